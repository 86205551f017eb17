import json
import subprocess
import sys

import pytest
import typer.main

from cli.main import app
from tests.cli.conftest import Typed

COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
# typer itself loads pydantic for the help of a command.
HEAVY = {"torch", "ray", "vllm", "transformers", "polars", "pyarrow", "numpy", "pandas"}
EVERY_HELP = """
import json, sys
import typer.main
from cli.main import app, main
for command in [None, *typer.main.get_command(app).commands]:
    sys.argv = ["llmdet-data", *([command] if command else []), "--help"]
    try:
        main()
    except SystemExit as end:
        assert not end.code, command
print("\\n" + json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_the_commands_that_scripts_rely_on_are_there() -> None:
    stages = {"ingest", "caption", "refine", "merge", "export", "report", "train", "evaluate", "predict"}
    assert stages | {"quickstart", "run", "status", "doctor", "sources", "prompts"} <= set(COMMANDS)


def test_no_help_loads_anything_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", EVERY_HELP], capture_output=True, text=True, check=True)
    modules = set(json.loads(done.stdout.splitlines()[-1]))
    assert "cli" in modules
    assert modules & HEAVY == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_speaks_json_and_says_what_it_does(typed: Typed, command: str) -> None:
    done = typed(command, "--help")
    assert done.code == 0
    assert "--json" in done.out


def test_version_is_that_of_the_package(typed: Typed) -> None:
    from llmdet import __version__

    assert typed("--version").out == f"llmdet-data {__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        ("bogus",),
        ("merge", "--bogus"),
        ("caption",),
        ("export",),
        ("caption", "--source", "coco", "--task", "song"),
        ("ingest", "--source", "coco", "--limit", "0"),
        ("evaluate", "--annotations", "a.json", "--task", "chess"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(typed: Typed, words: tuple[str, ...]) -> None:
    done = typed(*words)
    assert done.code == 2
    assert done.out == ""
    assert "Traceback" not in done.err


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cli", "prompts", "--json"], capture_output=True, text=True, check=True
    )
    said = json.loads(done.stdout.splitlines()[-1])
    assert (said["command"], said["workspace"]) == ("prompts", None)
    assert [one["name"] for one in said["prompts"]][:1] == ["image-detailed"]
