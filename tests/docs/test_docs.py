"""The documentation does what it says: every command and every Python example is run, every link leads somewhere."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path
from typing import get_args

import pytest
import typer.main
from pydantic import BaseModel

from cli.main import app
from pipelines.recipe import Recipe
from tests.docs.pages import PAGES, ROOT, Reader, blocks, commands, shim
from tests.docs.tables import MARKED, filled

FIRST = ROOT / "docs" / "quickstart.md"  # the other pages go on in the folder where it was followed
# Pages that train or run models for a minute: with the slow tests, so that `make test` stays short.
SLOW = {"train", "python-api", "export-model", "demo", "evaluate", "ground"}
COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
_LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+(?:\([^()]*\)[^()\s]*)?)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.M)


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shim(tmp_path_factory.mktemp("tools"))


@pytest.fixture(scope="session")
def begun(ray_local: None, tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of somebody who has followed the first page."""
    import ray.data  # noqa: F401  sets its log levels

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    folder = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Reader(folder, tools).follow(FIRST)
    return folder


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] * (page.stem in SLOW)) for page in PAGES if page != FIRST],
    ids=lambda page: page.stem,
)
def test_what_a_page_says_is_what_happens(
    page: Path, begun: Path, tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "here"
    shutil.copytree(begun, folder)
    monkeypatch.chdir(folder)
    Reader(folder, tools).follow(page)


def test_little_is_left_unrun_and_each_with_a_reason() -> None:
    shown = [block for page in PAGES for block in blocks(page) if block.language in ("sh", "python")]
    left = [block for block in shown if block.not_run]
    assert all(len(block.not_run) > 10 for block in left)
    assert len(left) <= len(shown) / 5, [f"{block.page}:{block.line}" for block in left]


def test_blocks_say_what_they_are_in() -> None:
    odd = [
        f"{block.page}:{block.line} {block.language!r}"
        for page in PAGES
        for block in blocks(page)
        if block.language not in ("sh", "python", "text", "yaml", "json", "bibtex")
    ]
    assert odd == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for target in _LINK.findall(page.read_text()):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        name, _, place = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (place and place not in _anchors(path)):
            dead.append(target)
    assert dead == []


def _anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to headings."""
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in _HEADING.findall(path.read_text())}


def test_every_page_can_be_reached_from_the_first() -> None:
    linked = set(_LINK.findall((ROOT / "docs" / "index.md").read_text()))
    assert {page.name for page in PAGES if page.parent.name == "docs"} <= linked | {"index.md"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_shown(command: str) -> None:
    typed = {
        line.split()[1]
        for page in PAGES
        for block in blocks(page)
        if block.language == "sh"
        for line in commands(block.code)
        if line.startswith("llmdet-data ")
    }
    assert command in typed


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_mentioned(command: str) -> None:
    told = "\n".join(page.read_text() for page in PAGES)
    parameters = typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]
    options = [name for one in parameters for name in one.opts if name.startswith("--") and name != "--help"]
    assert [name for name in options if not re.search(rf"{name}\b", told)] == []


def test_every_field_of_a_recipe_is_explained() -> None:
    told = (ROOT / "docs" / "recipes.md").read_text()
    assert [name for name in _field_names(Recipe) if f"| `{name}` |" not in told] == []


def _field_names(kind: type[BaseModel]) -> list[str]:
    found = []
    for name, one in kind.model_fields.items():
        found.append(name)
        for inner in (one.annotation, *get_args(one.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                found += _field_names(inner)
    return found


@pytest.mark.parametrize(
    "page", [page for page in PAGES if MARKED.search(page.read_text())], ids=lambda page: page.stem
)
def test_tables_say_what_the_code_says(page: Path) -> None:
    assert filled(page.read_text()) == page.read_text(), "run: python -m tests.docs.tables"


def test_the_readme_fits_a_few_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 200
