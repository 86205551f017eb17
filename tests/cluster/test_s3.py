"""A workspace at s3://, against a server on loopback."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.cluster.conftest import SCENES, World, last_json, plain
from tests.cluster.raylets import HOST, ROOT, free_port

pytest.importorskip("s3fs", reason="pip install -r tests/cluster/requirements.txt")
pytest.importorskip("moto.server", reason="pip install -r tests/cluster/requirements.txt")
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

HOLD = """
import time
from pipelines.lease import hold
with hold("s3://bucket/held"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def store() -> Iterator[dict[str, str]]:
    """The environment in which `s3://bucket` is there."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    keys = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    environment = {**plain(), **keys, "AWS_ENDPOINT_URL": f"http://{HOST}:{port}", "AWS_EC2_METADATA_DISABLED": "true"}
    make = [sys.executable, "-c", "import s3fs; s3fs.S3FileSystem().mkdir('bucket')"]
    until = time.monotonic() + 60
    while subprocess.run(make, env=environment, capture_output=True).returncode:
        assert time.monotonic() < until, "the S3 server does not answer"
        time.sleep(1)
    yield environment
    server.kill()
    server.wait()


def type_command(words: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    typed = [sys.executable, "-m", "cli", *words]
    return subprocess.run(typed, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)


def test_captions_are_kept_in_a_bucket(store: dict[str, str], world: World) -> None:
    words = ["caption", "--engine", "template", "--workspace", "s3://bucket/run", "--json", "--source", "world"]
    done = type_command([*words, *world.source[2:]], store)
    assert done.returncode == 0, done.stderr
    told = last_json(done.stdout)
    assert (told["answered"], told["skipped"], told["faults"]) == (2 * SCENES, False, {})
    again = type_command(words, store)
    assert last_json(again.stdout)["skipped"] is True


def test_a_bucket_has_one_driver_at_a_time(store: dict[str, str]) -> None:
    first = subprocess.Popen([sys.executable, "-c", HOLD], cwd=ROOT, env=store, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    second = subprocess.run([sys.executable, "-c", HOLD], cwd=ROOT, env=store, capture_output=True, text=True)
    first.kill()
    first.wait()
    assert f"(pid {first.pid}) is writing to s3://bucket/held" in second.stderr


def test_missing_keys_are_one_line(store: dict[str, str]) -> None:
    bare = {name: value for name, value in store.items() if "KEY" not in name}
    done = type_command(["status", "--workspace", "s3://bucket/run"], {**bare, "HOME": "/nonexistent"})
    assert done.returncode == 1
    assert done.stderr == "error: --workspace s3://bucket/run: Unable to locate credentials\n"
