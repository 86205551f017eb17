"""The `openai` engine against a real `vllm serve` on this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson
import pytest

from llmdet.errors import SettingError
from llmdet.workspace import Workspace
from pipelines.caption import CaptionSettings, caption
from pipelines.engines.openai import OpenAiEngine
from pipelines.ledger import Ledger
from tests.pipelines.engines.jobs import job, write_photos, write_shown_records
from tests.pipelines.engines.tiny_vlm import write_tiny_vlm

VLLM = Path(sys.executable).with_name("vllm")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(find_spec("vllm") is None or not VLLM.exists(), reason="vLLM is not installed"),
]
KEY = "sk-of-this-test"
SERVE: dict[str, Any] = {
    "host": "127.0.0.1",
    "dtype": "float32",
    "max-model-len": 4096,
    "max-num-seqs": 16,
    "max-num-batched-tokens": 8192,
    "block-size": 32,
    "limit-mm-per-prompt": '{"image": 1}',
    # Without these a weak model fills its answer with white space.
    "structured-outputs-config": '{"backend": "guidance", "disable_any_whitespace": true}',
    "api-key": KEY,
}
# vLLM 0.27 on a CPU dies of a request with a seed whose prompt is read in two pieces ("CPU Generator does not use
# offset"), so prompts are read whole.
FLAGS = ["--enforce-eager", "--enable-prompt-tokens-details", "--no-enable-chunked-prefill"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server with a tiny model of noise, called `tiny`."""
    folder = tmp_path_factory.mktemp("served")
    model = write_tiny_vlm(folder / "model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [word for name, value in SERVE.items() for word in (f"--{name}", str(value))]
    command = [VLLM, "serve", model, "--served-model-name", "tiny", "--port", str(port), *options, *FLAGS]
    path = f"{VLLM.parent}{os.pathsep}{os.environ['PATH']}"
    there = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "PATH": path}
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env={**os.environ, **there}, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-4000:]
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"vllm serve is not ready after 400 s: {log.read_text()[-4000:]}")


@pytest.fixture
def engine(server: str, monkeypatch: pytest.MonkeyPatch) -> OpenAiEngine:
    monkeypatch.setenv("TINY_KEY", KEY)
    return OpenAiEngine(
        model="tiny",
        base_url=server,
        api_key_variable="TINY_KEY",
        family="qwen2_vl",
        image_prompt="image-short",
        prompt_settings={"region-batch": {"max_words": 5}, "image-short": {"max_words": 8}},
    )


def test_all_captions_of_a_source_come_from_a_real_server(
    engine: OpenAiEngine, workspace: Workspace, tmp_path: Path
) -> None:
    import ray

    write_shown_records(workspace, tmp_path / "photos", 20, boxes=4)
    # A Ray of its own: workers have the environment of the moment at which Ray began, and the key is in ours only now.
    ray.shutdown()
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        done = caption(workspace, "hand", engine, CaptionSettings(chunk_images=8))
        again = caption(workspace, "hand", engine, CaptionSettings(chunk_images=8))
    finally:
        ray.shutdown()
    assert (done.requests, done.answered, done.faults) == (40, 40, {})
    assert again.skipped
    rows = _rows(done.ledgers["region"])
    assert len(rows) == 20
    for row in rows:
        assert row["finish"] == "stop"
        assert [one["id"] for one in orjson.loads(row["text"])] == [1, 2, 3, 4]
        assert all(3 <= len(one["caption"]) <= 50 for one in orjson.loads(row["text"]))
    assert all(row["finish"] == "length" or row["text"] for row in _rows(done.ledgers["image"]))
    # Either question about a photo found the picture of the other in the cache: 2 blocks of 32 tokens and more.
    assert done.cached_tokens >= 20 * 64
    assert done.prompt_tokens > 40 * 72


def _rows(ledger: str) -> list[dict[str, Any]]:
    return [row for name in Ledger(ledger).names() for row in Ledger(ledger).read(name).to_pylist()]


def test_failures_of_a_real_server_have_their_reasons(engine: OpenAiEngine, tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 1)
    answerer: Any = replace(engine, attempts=2, backoff_s=0.1).start()
    one = job(photos, 0)
    image = one.requests[0]
    long = replace(image, ask=replace(image.ask, text="word " * 5000))
    schema = replace(image, ask=replace(image.ask, schema='{"type": "nonsense"}'))
    (answers,) = answerer.answer([replace(one, requests=(image, long, schema))])
    answerer.close()
    # vLLM answers 500 to a schema that makes no sense
    assert [answer.error for answer in answers] == ["", "prompt_too_long", "server_error"]
    assert answers[2].detail.startswith("2 tries, the last: HTTP 500: ")


def test_a_wrong_key_and_a_wrong_name_are_one_line(
    engine: OpenAiEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match="has no model 'big'; it has: tiny"):
        replace(engine, model="big").start()
    with pytest.raises(SettingError, match=r"is not there \(HTTP 404\).*does the address end with /v1"):
        replace(engine, base_url=str(engine.base_url).removesuffix("/v1")).start()
    monkeypatch.setenv("TINY_KEY", "sk-wrong")
    with pytest.raises(SettingError, match=r"does not take the key in TINY_KEY \(HTTP 401\)"):
        engine.start()
    monkeypatch.delenv("TINY_KEY")
    with pytest.raises(SettingError, match="wants a key: set TINY_KEY where workers run"):
        engine.start()
