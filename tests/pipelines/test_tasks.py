"""Plain Ray tasks: order, bounds and errors."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator

import pytest

from llmdet.errors import FormatError, ImageError, LlmdetError
from pipelines.tasks import in_order


def slower_first(item: int) -> int:
    time.sleep(0.05 * (3 - item % 4))
    return item * item


def test_results_come_in_the_order_of_the_items_whatever_the_workers(local: None) -> None:
    for concurrency in (1, 3, None):
        assert list(in_order(slower_first, range(9), concurrency=concurrency)) == [n * n for n in range(9)]
    assert list(in_order(slower_first, [])) == []


def test_no_more_items_are_taken_than_are_worked_on(local: None) -> None:
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
    local: None, error: Exception, kind: type[Exception], says: str
) -> None:
    def work(item: int) -> int:
        raise error

    with pytest.raises(kind, match=says):
        list(in_order(work, [1]))


def test_a_bug_in_a_task_keeps_its_trace(local: None) -> None:
    def work(item: int) -> int:
        raise KeyError("id")

    with pytest.raises(KeyError, match="in work"):
        list(in_order(work, [1]))
