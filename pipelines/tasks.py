"""A map over parts for stages that are no more than that: in threads here, in plain Ray tasks on a cluster.

On one machine a million records are merged about as fast as a local Ray starts, and Arrow works without the
interpreter, so threads are enough. Ray Data takes seconds to begin, and more of the driver's time for each block than
such a part takes.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from llmdet.errors import LlmdetError
from pipelines.cluster import cluster, workers
from pipelines.parts import in_one_line

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_AHEAD = 2  # items for each worker: one that it has, one that waits for it
_MOST_THREADS = 8  # more of them wait for the interpreter
_RETRIES = 5  # of an item whose worker died: of a bug, of too little memory, or with its machine


@contextlib.contextmanager
def machines(*writes: str) -> Iterator[None]:
    """The cluster that RAY_ADDRESS names for the time of a block; without one nothing is started."""
    with cluster(*writes) if os.environ.get("RAY_ADDRESS") else contextlib.nullcontext():
        yield


def in_order(
    work: Callable[[_Item], _Result], items: Iterable[_Item], *, concurrency: int | None = None
) -> Iterator[_Result]:
    """The result of `work` for every item, in the order of the items: side by side, in threads or on a cluster.

    Raises the LlmdetError that the work met, and what the machine refused it (a full disk) as one.
    """
    return (_in_tasks if on_cluster() else _in_threads)(work, items, concurrency)


def on_cluster() -> bool:
    """Whether this program is connected to more than a Ray of its own."""
    ray: Any = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return False
    return bool(os.environ.get("RAY_ADDRESS")) or len(ray.nodes()) > 1


def _in_threads(work: Callable[[_Item], _Result], items: Iterable[_Item], concurrency: int | None) -> Iterator[_Result]:
    threads = concurrency or min(_MOST_THREADS, 1 + (os.cpu_count() or 1))  # one waits for the disk
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Any] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= (concurrency or _AHEAD * threads):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except OSError as error:
        raise LlmdetError(str(error)) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _in_tasks(work: Callable[[_Item], _Result], items: Iterable[_Item], concurrency: int | None) -> Iterator[_Result]:
    """In Ray tasks of one CPU each."""
    import ray

    task: Any = ray.remote(num_cpus=1, max_retries=_RETRIES)(_run)
    shared = ray.put(work)
    waiting: deque[Any] = deque()
    with in_one_line():
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
