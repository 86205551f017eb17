"""Progress on standard error: bars with time left on a terminal, a line now and then in a log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

_LINE_EVERY_S = 10.0


def bars_or_lines() -> Bars | Lines:
    """Bars where a person looks, lines where a file is written."""
    console = Console(stderr=True)
    return Bars(console) if console.is_terminal and not console.is_dumb_terminal else Lines()


class _Count(ProgressColumn):
    """ "12/40", "12" where the end is not known, nothing for a stage that does not count."""

    def render(self, task: Task) -> Text:
        done = int(task.completed)
        if task.fields["counts"]:
            return Text(f"{done}/{int(task.total)}" if task.total else str(done), style="progress.download")
        return Text("")


class _Left(ProgressColumn):
    """Time left, while there is any and it can be told."""

    max_refresh = 0.5  # seconds

    def render(self, task: Task) -> Text:
        if task.finished or task.time_remaining is None:
            return Text("")
        return Text(f"{_clock(task.time_remaining)} left", style="progress.remaining")


@dataclass(frozen=True)
class Stage:
    """Shows how far a stage is, and one line of its own figures beside it."""

    report: Callable[[int, int | None], None]
    tell: Callable[[str], None]

    def __call__(self, done: int, total: int | None) -> None:
        self.report(done, total)


class Bars:
    """One bar a stage; those that are done stay above with their time."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            SpinnerColumn(finished_text="[green]done"),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            _Count(),
            TimeElapsedColumn(),
            _Left(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            console=console,
        )
        self._bars.start()

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        task = self._bars.add_task(name, total=None, counts=False, note="")

        def report(done: int, total: int | None) -> None:
            self._bars.update(task, completed=done, total=total, counts=True)

        def tell(line: str) -> None:
            self._bars.update(task, note=line)

        yield Stage(report, tell)
        self._finish(task)

    def _finish(self, task: TaskID) -> None:
        shown = next(one for one in self._bars.tasks if one.id == task)
        done = max(1, int(shown.total or shown.completed))
        self._bars.update(task, total=done, completed=done)

    def stop(self) -> None:
        self._bars.stop()


@dataclass
class Lines:
    """Plain lines, at most one every few seconds a stage."""

    every_s: float = _LINE_EVERY_S
    _last: float = field(default=0.0)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        started = time.monotonic()
        self._last = started
        self._say(f"{name}: started")
        note: list[str] = [""]  # the last one
        first: list[tuple[int, float]] = []  # the first report: what was done before, or took long to begin, is no pace

        def report(done: int, total: int | None) -> None:
            now = time.monotonic()
            first[:] = first or [(done, now)]
            if now - self._last >= self.every_s:
                self._last = now
                since = first[0]
                self._say(f"{name}: {_so_far(done, total, done - since[0], now - since[1])}{note[0]}")

        def tell(line: str) -> None:
            note[0] = f"; {line}"

        yield Stage(report, tell)
        self._say(f"{name}: done in {time.monotonic() - started:.1f} s")

    def stop(self) -> None:
        """Lines need no end."""

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


def _so_far(done: int, total: int | None, seen: int, seconds: float) -> str:
    """`seen` of what is done was done in these seconds."""
    if not total or not done:
        return f"{done} done"
    left = f", about {_clock(seconds / seen * (total - done))} left" if seen > 0 else ""
    return f"{done} of {total}{left}"


def _clock(seconds: float) -> str:
    """Hours only where there are any: 0:07, 12:30, 1:05:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
