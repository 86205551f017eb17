"""Errors on their way out of a worker."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from llmdet.errors import FormatError, ImageError, LlmdetError
from pipelines import parts
from pipelines.parts import Packed, Row, Workers, raise_failure, run_parts


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (FormatError("not JSON"), FormatError, "not JSON"),
        (ImageError("image_empty", "a.jpg has zero bytes"), LlmdetError, "image_empty: a.jpg has zero bytes"),
        (OSError(28, "No space left on device"), LlmdetError, "No space left on device"),
        (PermissionError(13, "Permission denied"), LlmdetError, "Permission denied"),
    ],
)
def test_what_is_no_bug_comes_out_of_a_worker_as_one_line(error: Exception, kind: type[Exception], says: str) -> None:
    def work(row: Row) -> Row:
        raise error

    result = Packed(work)({})
    with pytest.raises(kind, match=says):
        raise_failure(orjson.loads(result["result"]))


def test_a_bug_in_a_worker_keeps_its_trace() -> None:
    def work(row: Row) -> Row:
        raise KeyError("id")

    with pytest.raises(KeyError):
        Packed(work)({})


@dataclass(frozen=True)
class Deadly:
    """Kills its own process on one item; every try becomes a line of the file `log`."""

    log: str

    def __call__(self, item: Row) -> Row:
        if item["number"] == 2:
            with open(self.log, "a") as file:
                file.write("tried\n")
            os.kill(os.getpid(), signal.SIGKILL)
        return item


@pytest.mark.parametrize("pool", [None, Workers()], ids=["tasks", "actors"])
def test_an_item_that_kills_its_workers_ends_the_run_in_one_line(
    ray_local: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: Workers | None
) -> None:
    import ray

    from tests.pipelines import test_parts

    ray.cloudpickle.register_pickle_by_value(test_parts)
    monkeypatch.setattr(parts, "_RETRIES", 1)
    log, rows = tmp_path / "log", list[Row]()
    with pytest.raises(LlmdetError, match="the process of a worker died 2 times over the same work") as raised:
        run_parts([{"number": number} for number in range(4)], Deadly(str(log)), pool=pool, each=rows.append)
    assert "\n" not in str(raised.value)
    assert log.read_text().count("tried") == 2
    assert {row["number"] for row in rows} <= {0, 1, 3}
