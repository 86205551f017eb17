"""SIGTERM, which job queues and clusters send before they kill: begin nothing new, end what is begun, in half a minute.

The driver keeps collecting what workers have begun; workers ask `stopping` before they begin a part, and engines give
up what they cannot answer in `ANSWER_S`. What is not ended after `DRAIN_S` is given up, and everything after `LIMIT_S`.
Leases are given back, so that the same command goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any

CODE = 128 + signal.SIGTERM  # exit code, as shells show an end by this signal
ANSWER_S = 10.0  # for answers that are under way
DRAIN_S = 20.0  # for what was begun: these answers, and writing them down
LIMIT_S = 28.0  # for everything: what comes next is SIGKILL, in half a minute as a rule

_LOOK_S = 1.0
_KEY = "llmdet-data/stop/"
_told = threading.Event()
_over = threading.Event()  # the end has begun: whatever comes now must not disturb it
_drains: list[None] = []  # one entry for each `draining` block that is open


def listen() -> None:
    """Answer SIGTERM from now on. Only the command line does so: a library leaves signals to its program."""
    signal.signal(signal.SIGTERM, _answer)


def told() -> bool:
    """Whether this driver was sent SIGTERM."""
    return _told.is_set()


def stopping() -> bool:
    """Whether the driver of this worker was sent SIGTERM: work that can end early, with what it has, should."""
    from ray.experimental import internal_kv

    ready = internal_kv._internal_kv_initialized()
    return bool(ready and internal_kv._internal_kv_exists(_key()))


async def until_stop(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all of it side by side; what is not done `ANSWER_S` after SIGTERM is cancelled. Raises what it raises."""
    open_ = {asyncio.ensure_future(one) for one in work}
    end = math.inf
    try:
        while open_ and time.monotonic() < end:
            done, open_ = await asyncio.wait(open_, timeout=_LOOK_S, return_when=asyncio.FIRST_EXCEPTION)
            for one in done:
                one.result()
            if open_ and end == math.inf and await asyncio.to_thread(stopping):
                end = time.monotonic() + ANSWER_S
    finally:
        for one in open_:
            one.cancel()
        await asyncio.gather(*open_, return_exceptions=True)


@contextlib.contextmanager
def draining() -> Iterator[None]:
    """A block that collects from workers which ask `stopping`. After SIGTERM it ends with SystemExit, but in order."""
    _drains.append(None)
    try:
        yield
    except Exception:
        if not told():
            raise  # else: who stops us may have stopped Ray too
    finally:
        _drains.pop()
    if told():
        _over.set()
        raise SystemExit(CODE)


def _answer(*_: object) -> None:
    if _over.is_set():
        return
    if _drains and not told():
        _told.set()
        _later(LIMIT_S, _exit)
        _later(DRAIN_S, _again)
        threading.Thread(target=_tell_workers, daemon=True).start()  # a handler must not wait
        return
    if not told():
        _told.set()
        _later(LIMIT_S, _exit)
    _over.set()
    raise SystemExit(CODE)


def _later(seconds: float, call: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()


def _exit() -> None:
    os._exit(CODE)


def _again() -> None:
    """A second SIGTERM, to the thread that waits for workers."""
    if _drains:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def _tell_workers() -> None:
    from ray.experimental import internal_kv

    with contextlib.suppress(Exception):  # Ray may be on its way out; then there is nobody to tell
        internal_kv._internal_kv_put(_key(), b"1")


def _key() -> bytes:
    import ray

    return f"{_KEY}{ray.get_runtime_context().get_job_id()}".encode()
