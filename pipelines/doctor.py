"""doctor: is this machine, this environment and this workspace in order, and what to do where it is not."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from llmdet import __version__, files
from llmdet.card import not_checked
from llmdet.catalogue import CATALOGUE, DATA_ROOT, compare
from llmdet.errors import ExtraError, FormatError, SettingError
from llmdet.workspace import Workspace
from pipelines.recipe import workflows
from pipelines.verify import check_files, remove_damaged

Level = Literal["ok", "warn", "fail"]

DISTRIBUTION = "llmdet-data"
ROOMS = ("llmdet", "detector", "pipelines", "cli")
CORE = ("ray", "pyarrow", "polars", "numpy", "pillow", "pydantic", "fsspec", "typer", "rich", "pycocotools")
EXTRAS = {  # extra -> modules that it cannot do without
    "train": ("torch", "transformers", "safetensors", "scipy", "faster_coco_eval", "peft"),
    "vllm": ("vllm", "transformers"),
    "transformers": ("torch", "torchvision", "transformers"),
    "openai": ("aiohttp",),
    "demo": ("gradio",),
    "video": ("cv2",),
    "http": ("aiohttp",),
    "wandb": ("wandb",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
}
NLTK_DATA = ("tokenizers/punkt_tab", "taggers/averaged_perceptron_tagger_eng", "corpora/stopwords", "corpora/wordnet")
LOW_DISK, NO_DISK = 10 * 2**30, 2**30  # bytes


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `hint` says what to do, where something is to be done."""

    level: Level
    subject: str
    text: str
    hint: str = ""


def doctor(
    workspace: Workspace | None = None,
    verify: bool = False,
    source: str | None = None,
    data_root: str = "",
    remove: bool = False,
) -> list[Finding]:
    """Look at everything that a run needs.

    With `verify`, read every file of the workspace against its checksum, and with `remove` take those that are
    damaged out of the way; with `source`, look for its files below the data root. Raises SettingError for a source
    that has no usual place, BusyError where a damaged file belongs to a table that is being written.
    """
    found = [
        _python(),
        _core(),
        *_clashes(),
        *(_extra(extra, modules) for extra, modules in EXTRAS.items()),
        _gpu(),
        _ray(),
        _nltk(),
        _recipes(),
    ]
    if workspace:
        found.append(_disk(workspace))
        found += _leaks(workspace)
        if verify:
            found += _verified(workspace, remove)
    if source:
        found += _layout(source, data_root or DATA_ROOT)
    return found


def require_extra(extra: str) -> None:
    """Raise ExtraError where a module of an extra is not installed."""
    for module in EXTRAS[extra]:
        if not util.find_spec(module):
            raise ExtraError.of(module, extra)


def gpus() -> list[str]:
    """Names of the GPUs of this machine. torch is loaded only where nvidia-smi is not there to ask."""
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
        try:
            done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
        except subprocess.TimeoutExpired:
            return []
        return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []
    if not os.path.exists("/dev/kfd") or not util.find_spec("torch"):
        return []  # no driver of either maker, so that torch could not tell more
    code = "import torch; print('\\n'.join(map(torch.cuda.get_device_name, range(torch.cuda.device_count()))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    return [line for line in done.stdout.splitlines() if line] if done.returncode == 0 else []


# --- the environment -----------------------------------------------------------------------------------------------


def _python() -> Finding:
    shown = f"{sys.version.split()[0]}, {DISTRIBUTION} {__version__}"
    if sys.version_info < (3, 11):  # noqa: UP036  this is where a user of an older one is told
        return Finding("fail", "python", shown, "Python 3.11 or newer is needed")
    return Finding("ok", "python", shown)


def _core() -> Finding:
    versions = {name: _version(name) for name in CORE}
    shown = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    missing = [name for name, version in versions.items() if not version]
    if missing:
        return Finding("fail", "core", f"not installed: {', '.join(missing)}", f"run: pip install {DISTRIBUTION}")
    return Finding("ok", "core", shown)


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _clashes() -> Iterator[Finding]:
    """Our four packages are found beside this one, and no other distribution claims their names."""
    ours = Path(__file__).resolve().parent.parent
    owners = metadata.packages_distributions()
    for room in ROOMS:
        place = _place(room)
        others = sorted({name for name in owners.get(room, []) if name.lower().replace("_", "-") != DISTRIBUTION})
        if place != ours / room:
            shown = f"package {room} is found in {place or 'no place'}, not in {ours / room}"
            by = f" ({', '.join(others)} put it there)" if others else ""
            yield Finding("fail", "packages", shown + by, f"use an environment of its own for {DISTRIBUTION}")
        elif others:
            shown = f"{', '.join(others)} also has a package {room}; ours is found first"
            yield Finding("warn", "packages", shown, f"use an environment of its own for {DISTRIBUTION}")
    if all(_place(room) == ours / room for room in ROOMS):
        yield Finding("ok", "packages", f"{', '.join(ROOMS)} are those in {ours}")


def _place(package: str) -> Path | None:
    spec = util.find_spec(package)
    return Path(spec.origin).resolve().parent if spec and spec.origin else None


def _extra(extra: str, modules: tuple[str, ...]) -> Finding:
    missing = [module for module in modules if not util.find_spec(module)]
    subject = f"extra {extra}"
    if missing:
        install = f"pip install '{DISTRIBUTION}[{extra}]'"
        return Finding("ok", subject, f"not installed: {', '.join(missing)}", f"only where it is wanted: {install}")
    shown = ", ".join(f"{module} {_version(module.replace('_', '-'))}".strip() for module in modules)
    if "torchvision" in modules and (error := _import_error("torchvision")):
        return Finding("warn", subject, f"torchvision does not work: {error}", "install the build that fits torch")
    return Finding("ok", subject, shown)


def _import_error(module: str) -> str:
    """Why a module cannot be imported, tried in a process of its own; empty where it can."""
    command = [sys.executable, "-c", f"import {module}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no message"])[-1][:200]


def _gpu() -> Finding:
    found = gpus()
    if found:
        return Finding("ok", "gpu", "; ".join(found))
    hint = "captions by an LMM need --engine openai and an endpoint, or a GPU; the template engine needs neither"
    return Finding("ok", "gpu", "none: training and the transformers engine run on the CPU", hint)


def _ray() -> Finding:
    address = os.environ.get("RAY_ADDRESS", "")
    version = _version("ray")
    if address in {"", "local"}:
        return Finding("ok", "ray", f"{version}; a local one is started on demand (RAY_ADDRESS is not set)")
    if address == "auto":
        return Finding("ok", "ray", f"{version}; RAY_ADDRESS=auto looks for a cluster on this machine")
    place = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        with socket.create_connection((place.hostname or "", place.port or 6379), timeout=3):
            return Finding("ok", "ray", f"{version}; {address} answers")
    except (OSError, ValueError) as error:
        hint = "start the cluster, or unset RAY_ADDRESS for a local Ray"
        return Finding("fail", "ray", f"RAY_ADDRESS {address} does not answer: {error}", hint)


def _nltk() -> Finding:
    """Looks where nltk would, without importing it."""
    home = [Path(place) for place in os.environ.get("NLTK_DATA", "").split(os.pathsep) if place]
    places = [*home, Path.home() / "nltk_data", *(Path(sys.prefix, *below) for below in _NLTK_BELOW)]
    places += [Path(place) for place in ("/usr/share/nltk_data", "/usr/local/share/nltk_data", "/usr/lib/nltk_data")]
    missing = [
        name for name in NLTK_DATA if not any((p / name).exists() or (p / f"{name}.zip").exists() for p in places)
    ]
    if not missing:
        return Finding("ok", "nltk data", "there")
    names = " ".join(name.rsplit("/", 1)[-1] for name in missing)
    hint = f"not needed; for better noun phrases: python -m nltk.downloader {names}"
    return Finding("ok", "nltk data", f"not there: {names.replace(' ', ', ')}", hint)


_NLTK_BELOW = (("nltk_data",), ("share", "nltk_data"), ("lib", "nltk_data"))


def _recipes() -> Finding:
    folder = workflows()
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    if not names:
        return Finding("fail", "recipes", f"none in {folder}", f"install {DISTRIBUTION} again")
    return Finding("ok", "recipes", f"{', '.join(names)} in {folder}")


def _layout(source: str, data_root: str) -> list[Finding]:
    if source not in CATALOGUE:
        raise SettingError(f"no source {source!r} has a usual layout; there are: {', '.join(sorted(CATALOGUE))}")
    found = compare(source, files.absolute(data_root))
    return [Finding(one.level, f"{source} {one.subject}", one.text, one.hint) for one in found]


# --- the workspace -------------------------------------------------------------------------------------------------


def _disk(workspace: Workspace) -> Finding:
    if "://" in workspace.url:
        return Finding("ok", "workspace", f"{workspace.url} is not on this machine's disks")
    place = Path(workspace.url)
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK):
        return Finding("fail", "workspace", f"{place} cannot be written to", "choose another --workspace")
    free = shutil.disk_usage(place).free
    level: Level = "fail" if free < NO_DISK else "warn" if free < LOW_DISK else "ok"
    hint = "" if level == "ok" else "make room, or choose another --workspace"
    return Finding(level, "workspace", f"{workspace.url}: {free / 2**30:.1f} GiB free", hint)


def _leaks(workspace: Workspace) -> Iterator[Finding]:
    """For each source that was ingested, the lists of evaluation photos that it was not checked against."""
    for name in workspace.children("records"):
        try:
            manifest = workspace.records(name).manifest()
        except FormatError:
            continue  # --verify says what is wrong with it
        if manifest is None:
            continue
        missing = [f"{one}: {why}" for one, why in not_checked(manifest.info.get("notes", {}))]
        hint = "name the lists in the section leaks of a recipe, then ingest again"
        if missing:
            yield Finding("warn", f"{name} leaks", f"not checked: {'; '.join(missing)}", hint)
        else:
            yield Finding("ok", f"{name} leaks", "checked against every list of evaluation photos that was named")


def _verified(workspace: Workspace, remove: bool) -> list[Finding]:
    """Every file of the workspace against its checksum; one line when all are whole."""
    checked, damages = check_files(workspace)
    if not damages:
        return [Finding("ok", "files", f"{checked} checked in {workspace.url}, all whole")]
    if remove:
        remove_damaged(damages)
        return [Finding("warn", "files", f"{one.url} {one.fault}: removed", f"run: {one.again}") for one in damages]
    hint = "take it out of the way with: doctor --verify --remove-damaged; then run: "
    return [Finding("fail", "files", f"{one.url} {one.fault}", hint + one.again) for one in damages]
