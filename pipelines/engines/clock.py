"""How an engine's time goes: how long it had images to describe, and how long of that nothing was under way."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from pipelines.engines.engine import Usage


class Clock:
    """Counts chunks and requests as they begin and end, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._chunks = self._requests = 0
        self._changed = time.monotonic()
        self._running = self._waiting = 0.0
        self._predicted = self._counted = 0

    @contextlib.contextmanager
    def chunk(self) -> Iterator[None]:
        """While it lasts, the engine has images to describe."""
        self._step(1, 0)
        try:
            yield
        finally:
            self._step(-1, 0)

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """While it lasts, the model has something to do."""
        self._step(0, 1)
        try:
            yield
        finally:
            self._step(0, -1)

    def pictures(self, predicted: int, counted: int) -> None:
        """Add what a picture was expected to take, and took, in tokens."""
        with self._lock:
            self._predicted += predicted
            self._counted += counted

    def usage(self) -> Usage:
        self._step(0, 0)
        return Usage(
            running_s=self._running,
            waiting_s=self._waiting,
            image_tokens_predicted=self._predicted,
            image_tokens=self._counted,
        )

    def _step(self, chunks: int, requests: int) -> None:
        with self._lock:
            now = time.monotonic()
            if self._chunks:
                self._running += now - self._changed
                self._waiting += 0 if self._requests else now - self._changed
            self._changed = now
            self._chunks += chunks
            self._requests += requests
