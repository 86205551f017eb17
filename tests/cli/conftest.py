"""The command line in this process, beside one local Ray."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from tests.cli.coco_folder import write_coco

# Options of the shell that runs the tests must not reach them; wide enough that no name is cut.
ENVIRONMENT = {"LLMDET_WORKSPACE": None, "LLMDET_DATA_ROOT": None, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        value = json.loads(self.out.splitlines()[-1])
        assert isinstance(value, dict)
        return value

    @property
    def error(self) -> str:
        """The one line that says what was wrong."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0].removeprefix("error: ")


Typed = Callable[..., Done]


def type_command(*words: str, **environment: str) -> Done:
    """What `llmdet-data WORDS` does. An exception that would be a traceback is raised here."""
    found = CliRunner().invoke(app, list(words), env={**ENVIRONMENT, **environment})
    if found.exception and not isinstance(found.exception, SystemExit):
        raise found.exception
    return Done(found.exit_code, found.stdout, found.stderr)


@pytest.fixture
def typed() -> Typed:
    """The command line for what needs no Ray."""
    return type_command


@pytest.fixture(scope="session")
def quiet_ray(ray_local: None) -> None:
    """A Ray that does not log to the standard error of a command that has ended."""
    import ray.data  # noqa: F401  sets its log levels

    logging.getLogger("ray.data").setLevel(logging.ERROR)


@pytest.fixture
def typed_with_ray(quiet_ray: None) -> Typed:
    """The command line beside a Ray that is there already."""
    return type_command


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@dataclass(frozen=True)
class Made:
    """A workspace of four records, captioned, refined and merged, and where they came from."""

    workspace: str
    annotations: str
    images: str


@pytest.fixture(scope="session")
def made(quiet_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    annotations, images = write_coco(folder)
    place = str(folder / "workspace")
    caption = ["caption", "--source", "coco", "--engine", "template", "--annotations", annotations, "--images", images]
    for words in (caption, ["refine"], ["merge"]):
        done = type_command(*words, "--workspace", place)
        assert done.code == 0, done.err
    return Made(place, annotations, images)
