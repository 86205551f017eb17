"""Work in plain Ray tasks, for stages that are no more than a map over parts.

Ray Data takes seconds to begin, and more of the driver's time for each block than such a part takes.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from llmdet.errors import LlmdetError
from pipelines.cluster import workers

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_AHEAD = 2  # items for each worker: one that it has, one that waits for it
_RETRIES = 5  # of an item whose worker died: of a bug, of too little memory, or with its machine


def connected() -> bool:
    """Whether Ray is there already, so that using it costs nothing."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def in_order(
    work: Callable[[_Item], _Result], items: Iterable[_Item], *, concurrency: int | None = None
) -> Iterator[_Result]:
    """The result of `work` for every item, in the order of the items, from tasks of one CPU each.

    Raises the LlmdetError that a task met, and what the machine refused it (a full disk) as one.
    """
    import ray

    task: Any = ray.remote(num_cpus=1, max_retries=_RETRIES)(_run)
    shared = ray.put(work)
    waiting: deque[Any] = deque()
    for item in items:
        waiting.append(task.remote(shared, item))
        if len(waiting) >= (concurrency or _AHEAD * workers()):
            yield _result(waiting.popleft())
    while waiting:
        yield _result(waiting.popleft())


def _run(work: Callable[[_Item], _Result], item: _Item) -> _Result:
    return work(item)


def _result(reference: Any) -> Any:
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, LlmdetError):
            raise error.cause from None
        if isinstance(error.cause, OSError):
            raise LlmdetError(str(error.cause)) from None
        raise
