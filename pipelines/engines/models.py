"""Which model a name means: its family and its exact revision, read from a folder or from the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from llmdet.errors import ExtraError, MissingError

_SAMPLE = 1 << 20  # bytes read at either end of a weight file: enough to tell two trainings apart
_WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf")


@dataclass(frozen=True, slots=True)
class Model:
    """A model that can be loaded: nothing of it is loaded yet."""

    name: str  # hub id or folder
    revision: str  # commit of the hub, or a hash of the folder's files
    model_type: str  # `model_type` of its config.json; empty where it has none


@lru_cache(maxsize=16)
def find_model(name: str, revision: str = "") -> Model:
    """What a hub id or a folder holds. Raises MissingError where neither is there."""
    folder = Path(os.path.expanduser(name))
    if folder.is_dir():
        config = folder / "config.json"
        if not config.is_file():
            raise MissingError(f"{name} has no config.json: expected a folder that transformers' from_pretrained loads")
        return Model(str(folder.resolve()), _folder_revision(folder), _model_type(config))
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise MissingError(f"no folder {name}, and a hub id has the form owner/name")
    return _of_hub(name, revision)


def _of_hub(name: str, revision: str) -> Model:
    """A model of the hub; its config.json is fetched, or taken from the cache where there is no network."""
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise ExtraError.of("huggingface_hub", "transformers") from error
    try:
        config = Path(hf_hub_download(name, "config.json", revision=revision or None))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        first = str(error).strip().split("\n", 1)[0]
        raise MissingError(f"the model {name} cannot be read from the hub or its cache: {first}") from error
    # .../snapshots/<commit>/config.json
    return Model(name, config.parent.name, _model_type(config))


def _model_type(config: Path) -> str:
    return str(json.loads(config.read_text(encoding="utf-8")).get("model_type", ""))


def _folder_revision(folder: Path) -> str:
    """A hash of all small files and of both ends of the weights, whose whole length would take minutes to read."""
    digest = hashlib.sha256()
    for path in sorted(one for one in folder.iterdir() if one.is_file() and not one.name.startswith(".")):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            if path.suffix in _WEIGHTS and size > 2 * _SAMPLE:
                digest.update(file.read(_SAMPLE))
                file.seek(-_SAMPLE, os.SEEK_END)
            digest.update(file.read())
    return f"sha256:{digest.hexdigest()[:32]}"
