"""The pages of the documentation as what they are to a reader: commands and Python that are typed one after the other.

How a fenced block is treated:

    ```sh       each line is a command and must succeed; `llmdet-data ...` runs in this process, the rest in bash
    ```python   runs in one namespace per page
    ```text     right below one of these: what it printed, `...` standing for anything
    <!-- not run: reason -->   above a block: it is for a cluster, a GPU or an installation, and is not run
    <!-- exits 1 -->           above a block: its last command ends so; the text below is the line of the error
    <!-- file: mine.yaml -->   above a block: it is saved under this name
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.cli.conftest import type_command

ROOT = Path(__file__).resolve().parents[2]
# In the order of the loop: index.md says it too.
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_DIRECTIVE = re.compile(r"<!-- (?:not run: (?P<reason>.+)|exits (?P<code>\d+)|file: (?P<file>[\w.]+)) -->\s*$")
_SHELL = re.compile(r"[|<>;&$*`]")
_MATCH = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int  # of its first line of code, from 1
    language: str
    code: str
    not_run: str = ""
    exits: int = 0
    file: str = ""  # that the block is saved as
    printed: str | None = None  # what the page says that it prints

    @property
    def runs(self) -> bool:
        return self.language in ("sh", "python") and not self.not_run


def blocks(path: Path) -> list[Block]:
    """All fenced blocks of a page; a `text` block that follows a command is that command's output."""
    found: list[Block] = []
    said: re.Match[str] | None = None  # the directive right above
    alone = True  # something other than blank lines stands since the last block
    lines = iter(enumerate(path.read_text().splitlines(), start=1))
    for number, line in lines:
        if line.startswith("```"):
            code = _until_end(lines)
            block = Block(path.name, number + 1, line[3:].strip(), code, *_said(said))
            if block.language == "text" and found and not alone and found[-1].runs:
                found[-1] = replace(found[-1], printed=code)
            else:
                found.append(block)
            said, alone = None, False
        elif line.strip():
            said, alone = _DIRECTIVE.match(line), True
    return found


def _until_end(lines: Iterator[tuple[int, str]]) -> str:
    code = []
    for _, line in lines:
        if line.startswith("```"):
            break
        code.append(line)
    return "\n".join(code) + "\n"


def _said(directive: re.Match[str] | None) -> tuple[str, int, str]:
    if directive is None:
        return "", 0, ""
    return directive["reason"] or "", int(directive["code"] or 0), directive["file"] or ""


def commands(code: str) -> list[str]:
    """The commands of a block: lines, joined where they end with a backslash; comments are none."""
    whole = code.replace("\\\n", " ")
    return [line.strip() for line in whole.splitlines() if line.strip() and not line.strip().startswith("#")]


@dataclass
class Reader:
    """Somebody who types a page into a terminal, in a folder of their own."""

    folder: Path
    tools: Path  # where the shim of the console script is
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "page"})

    def follow(self, path: Path) -> None:
        """Type every block that is to be run. Raises AssertionError with page, line and what was seen."""
        other: list[str] = []
        for block in blocks(path):
            if block.file:
                (self.folder / block.file).write_text(block.code)
            elif block.runs:
                printed = self._python(block) if block.language == "python" else self._shell(block)
                if not doctest.OutputChecker().check_output(block.printed or "...", printed, _MATCH):
                    other.append(f"{block.page}:{block.line} prints\n{printed}\nand not\n{block.printed}")
        assert not other, "\n\n".join(other)

    def _python(self, block: Block) -> str:
        sink = io.StringIO()
        # The code stands at its line of the page, so that a traceback names it.
        code = compile("\n" * (block.line - 1) + block.code, block.page, "exec")
        with contextlib.redirect_stdout(sink):
            exec(code, self.names)
        return sink.getvalue()

    def _shell(self, block: Block) -> str:
        printed = ""
        typed = commands(block.code)
        for number, line in enumerate(typed, start=1):
            here = line.startswith("llmdet-data ") and not _SHELL.search(line)
            code, out = self._here(line) if here else self._bash(line)
            expected = block.exits if number == len(typed) else 0
            assert code == expected, f"{block.page}:{block.line}: {line}\nends with {code}, not {expected}:\n{out}"
            printed += out
        return printed

    def _here(self, line: str) -> tuple[int, str]:
        done = type_command(*shlex.split(line)[1:])
        told = [said for said in done.err.splitlines() if said.startswith(("error: ", "note: ", "Usage: "))]
        return done.code, done.out + "\n".join([*told, ""] if told else told)

    def _bash(self, line: str) -> tuple[int, str]:
        path = f"{self.tools}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line], cwd=self.folder, env=environment, capture_output=True, text=True
        )
        return done.returncode, done.stdout + (done.stderr if done.returncode else "")


def shim(folder: Path) -> Path:
    """A folder with the console script, for environments in which the project is not installed."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "llmdet-data"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cli "$@"\n')
    script.chmod(0o755)
    return folder
