"""A map over parts, in threads and in plain Ray tasks: order, bounds and errors."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator

import pytest

from llmdet.errors import FormatError, ImageError, LlmdetError
from pipelines.tasks import in_order, on_cluster


@pytest.fixture(params=["threads", "tasks"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the work is done."""
    if request.param == "tasks":
        request.getfixturevalue("local")
    monkeypatch.setattr("pipelines.tasks.on_cluster", lambda: request.param == "tasks")
    return str(request.param)


def slower_first(item: int) -> int:
    time.sleep(0.05 * (3 - item % 4))
    return item * item


def test_results_come_in_the_order_of_the_items_whatever_the_workers(place: str) -> None:
    for concurrency in (1, 3, None):
        assert list(in_order(slower_first, range(9), concurrency=concurrency)) == [n * n for n in range(9)]
    assert list(in_order(slower_first, [])) == []


def test_no_more_items_are_taken_than_are_worked_on(place: str) -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            yield number

    results = in_order(slower_first, items(), concurrency=2)
    assert (next(results), taken) == (0, [0, 1])


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (FormatError("not JSON"), FormatError, "^not JSON$"),
        (ImageError("image_empty", "a.jpg has zero bytes"), ImageError, "^image_empty: a.jpg has zero bytes$"),
        (OSError(errno.ENOSPC, "No space left on device"), LlmdetError, "No space left on device"),
    ],
)
def test_what_is_no_bug_comes_out_of_a_task_as_one_line(
    place: str, error: Exception, kind: type[Exception], says: str
) -> None:
    def work(item: int) -> int:
        raise error

    with pytest.raises(kind, match=says):
        list(in_order(work, [1]))


def test_a_bug_in_a_task_keeps_its_trace(place: str) -> None:
    def work(item: int) -> int:
        raise KeyError("id")

    with pytest.raises(KeyError) as caught:
        list(in_order(work, [1]))
    assert "in work" in "".join(traceback.format_exception(caught.value))


def test_a_ray_of_its_own_is_no_cluster_and_one_that_was_named_is(local: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not on_cluster()
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert on_cluster()


def test_without_a_cluster_ray_is_not_even_imported() -> None:
    program = (
        "import sys; from pipelines.merge import merge; from pipelines.tasks import in_order, machines\n"
        "with machines('/somewhere'): assert list(in_order(str, [1, 2])) == ['1', '2']\n"
        "assert not {'ray', 'polars'} & set(sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def test_when_the_reader_stops_nothing_further_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    results = in_order(lambda item: begun.append(item) or item, range(100), concurrency=2)
    assert next(results) == 0
    results.close()
    assert len(begun) <= 3
