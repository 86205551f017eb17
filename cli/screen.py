"""The two outputs of a command: progress and errors on standard error, the result on standard output."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer

from llmdet.errors import ExtraError, LlmdetError
from pipelines.stop import CODE as STOPPED

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cli.progress import Bars, Lines
    from pipelines.parts import Progress

_PIPED_WIDTH = 140  # columns of a table that goes to a file


@dataclass
class Screen:
    """What one command shows. `result` is the JSON object, `shown` is the same for people."""

    command: str
    workspace: str | None
    as_json: bool
    result: dict[str, Any] = field(default_factory=dict)
    shown: list[RenderableType] = field(default_factory=list)
    too_many_faults: list[str] = field(default_factory=list)  # one line each; any makes the exit code 3
    _progress: Bars | Lines | None = None

    @contextlib.contextmanager
    def watch(self, stage: str) -> Iterator[Progress]:
        """Show the progress of a stage while it runs."""
        from cli.progress import bars_or_lines

        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # transformers' bars would tear ours apart
        self._progress = self._progress or bars_or_lines()
        with self._progress.stage(stage) as progress:
            yield progress

    def note(self, line: str) -> None:
        """One line for people, beside the result: standard error."""
        typer.echo(line, err=True)

    def stop(self) -> None:
        """End the progress display, so that what follows stands below it."""
        if self._progress:
            self._progress.stop()
            self._progress = None

    def print(self, seconds: float, error: str = "") -> None:
        """Write the result to standard output."""
        if self.as_json:
            head = {"command": self.command, "workspace": _address(self.workspace), "seconds": round(seconds, 3)}
            rest = {"error": error} if error else {k: v for k, v in self.result.items() if k not in head}
            typer.echo(_json(head | rest))
        elif self.shown and not error:
            from rich.console import Console

            console = Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH, markup=False, highlight=False)
            for part in self.shown:
                console.print(part, soft_wrap=isinstance(part, str))


@contextlib.contextmanager
def screen(command: str, workspace: str | None, as_json: bool) -> Iterator[Screen]:
    """Run a command: errors of ours become one line and exit code 1, too many faults become 3, Ctrl-C becomes 130,
    SIGTERM 143."""
    out = Screen(command, workspace, as_json)
    started = time.monotonic()
    error = ""
    try:
        _check_address(workspace)
        yield out
    except (KeyboardInterrupt, SystemExit) as end:  # Ray Train answers Ctrl-C with sys.exit
        out.stop()
        typer.echo("\ninterrupted; the same command goes on where this one stopped", err=True)
        stopped = isinstance(end, SystemExit) and end.code == STOPPED
        raise typer.Exit(STOPPED if stopped else 130) from None
    except LlmdetError as failure:
        error = str(failure)
    except ModuleNotFoundError as failure:
        error = _missing(failure)
    except OSError as failure:
        error = str(failure)
    finally:
        out.stop()
    error = " ".join(error.split())
    out.print(time.monotonic() - started, error)
    for line in [error] if error else out.too_many_faults:
        typer.echo(f"error: {line}", err=True)
    if error or out.too_many_faults:
        raise typer.Exit(1 if error else 3)


def counted(counts: dict[str, int]) -> str:
    """{"crowd": 11} as "11 crowd"."""
    return ", ".join(f"{count} {what}" for what, count in counts.items())


def _missing(failure: ModuleNotFoundError) -> str:
    """Which extra brings a module that is not there. A missing module of ours is a bug."""
    from pipelines.doctor import EXTRAS

    for extra, modules in EXTRAS.items():
        if failure.name in modules:
            return str(ExtraError.of(str(failure.name), extra))
    raise failure


def _check_address(workspace: str | None) -> None:
    """Raise LlmdetError for a URL that this environment cannot open: its kind, its host, or who we are there."""
    if workspace and "://" in workspace:
        from llmdet.files import exists

        try:
            exists(workspace)
        except Exception as error:  # every store has errors of its own, such as missing credentials
            raise LlmdetError(f"--workspace {workspace}: {error}") from None


def _address(workspace: str | None) -> str | None:
    from llmdet.files import absolute

    return absolute(workspace) if workspace is not None else None


def _json(value: dict[str, Any]) -> str:
    import orjson

    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY).decode()
