"""The arrows of the design: imports only go down, and a heavy library stays in the room that is about it."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("llmdet", "detector", "pipelines", "cli")  # from the ground floor up
VAGUE_NAMES = {"utils", "util", "common", "helpers", "helper", "manager", "managers", "misc"}
TORCH_ENGINES = tuple(f"pipelines/engines/{name}.py" for name in ("transformers", "transformers_answerer", "drawing"))
VLLM_ENGINE = "pipelines/engines/vllm.py"
VLLM_ENGINES = (VLLM_ENGINE, "pipelines/engines/vllm_answerer.py")
MODULES = [path.relative_to(ROOT).as_posix() for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


@dataclass(frozen=True)
class Import:
    """One imported module, dotted; `typing_only` when it stands under `if TYPE_CHECKING`."""

    module: str
    line: int
    typing_only: bool

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def imports_of(node: ast.AST, typing_only: bool = False) -> Iterator[Import]:
    """Every import below `node`, those inside functions too; a relative one is `.` and its name."""
    if isinstance(node, ast.Import):
        yield from (Import(name.name, node.lineno, typing_only) for name in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield Import("." * node.level + (node.module or ""), node.lineno, typing_only)
    elif is_type_checking(node):
        assert isinstance(node, ast.If)
        for child in node.body:
            yield from imports_of(child, True)
        for child in node.orelse:
            yield from imports_of(child, typing_only)
    else:
        for child in ast.iter_child_nodes(node):
            yield from imports_of(child, typing_only)


def is_allowed(path: str, found: Import) -> bool:
    """Whether the module at `path` may import `found`."""
    room = path.partition("/")[0]
    match found.package:
        case "":
            return False  # relative imports hide which room a name comes from
        case package if package in ROOMS:
            return ROOMS.index(package) <= ROOMS.index(room)
        case "ray":
            return room == "pipelines"
        case "vllm":
            return path in VLLM_ENGINES
        case "torch" | "torchvision":
            return found.typing_only or room == "detector" or path in TORCH_ENGINES
        case "pickle" | "cPickle" | "dill" | "cloudpickle":
            return False
        case _:
            return True


def unsafe_calls(tree: ast.AST) -> Iterator[str]:
    """Calls that would run code out of a downloaded file."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if ast.unparse(node.func) == "torch.load" and keywords.get("weights_only") != "True":
            yield f"line {node.lineno}: torch.load without weights_only=True"
        if keywords.get("trust_remote_code") == "True":
            yield f"line {node.lineno}: trust_remote_code=True"


def star_imports(tree: ast.AST) -> list[int]:
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return [node.lineno for node in nodes if any(name.name == "*" for name in node.names)]


def parse(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=path)


def forbidden(path: str, source: str) -> list[str]:
    return [found.module for found in imports_of(ast.parse(source)) if not is_allowed(path, found)]


def test_the_ground_floor_is_there() -> None:
    assert "llmdet/record.py" in MODULES


@pytest.mark.parametrize("path", MODULES)
def test_imports_only_go_down(path: str) -> None:
    broken = [
        f"{path}:{found.line} imports {found.module}"
        for found in imports_of(parse(path))
        if not is_allowed(path, found)
    ]
    assert broken == []


@pytest.mark.parametrize("path", MODULES)
def test_nothing_runs_code_from_a_downloaded_file(path: str) -> None:
    assert list(unsafe_calls(parse(path))) == []


@pytest.mark.parametrize("path", MODULES)
def test_imports_name_what_they_bring(path: str) -> None:
    assert star_imports(parse(path)) == []


@pytest.mark.parametrize("path", MODULES)
def test_modules_are_named_after_a_noun(path: str) -> None:
    parts = PurePosixPath(path).with_suffix("").parts
    assert VAGUE_NAMES.isdisjoint(parts)


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("llmdet/spans.py", "import detector.model", ["detector.model"]),
        ("llmdet/spans.py", "def f():\n    from ray import data", ["ray"]),
        ("detector/model.py", "from pipelines import train\nimport llmdet.boxes, torch.nn", ["pipelines"]),
        ("detector/model.py", "import ray.train", ["ray.train"]),
        ("pipelines/train.py", "import torch\nimport ray.train.torch", ["torch"]),
        ("pipelines/train.py", "if TYPE_CHECKING:\n    import torch\n    import cli.main", ["cli.main"]),
        ("pipelines/train.py", "if TYPE_CHECKING:\n    x = 1\nelse:\n    import torch", ["torch"]),
        ("pipelines/engines/openai.py", "import vllm", ["vllm"]),
        (VLLM_ENGINE, "import vllm, ray", []),
        (TORCH_ENGINES[0], "from torch import nn", []),
        ("cli/main.py", "from pipelines.run import run\nfrom .options import o", [".options"]),
        ("llmdet/sources/refcoco.py", "import pickle", ["pickle"]),
    ],
)
def test_a_planted_import_is_seen(path: str, source: str, expected: list[str]) -> None:
    assert forbidden(path, source) == expected


def test_a_planted_unsafe_call_is_seen() -> None:
    source = (
        "torch.load(p)\ntorch.load(p, weights_only=False)\ntorch.load(p, weights_only=True)\nf(trust_remote_code=True)"
    )
    assert list(unsafe_calls(ast.parse(source))) == [
        "line 1: torch.load without weights_only=True",
        "line 2: torch.load without weights_only=True",
        "line 4: trust_remote_code=True",
    ]
