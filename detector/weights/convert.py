"""A `.pth` of mmdet to a model folder that plain transformers opens, and back.

OUT/config.json, model.safetensors, tokenizer and processor files
OUT/mmdet.safetensors     under mmdet's names: what has no place in transformers' model, for the way back
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GroundingDinoImageProcessorPil,
    MMGroundingDinoConfig,
    PreTrainedTokenizerBase,
)

from detector import checkpoint
from detector.model import OpenDetector
from detector.pixels import Pixels
from detector.sizes import SIZES
from detector.weights import mmdet
from detector.weights.unpickle import TorchFile
from llmdet.errors import FormatError, MissingError, SettingError

ASIDE = "mmdet.safetensors"
PTH = "mmdet.pth"
TOKENIZER = "google-bert/bert-base-uncased"


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was written: a folder, or a file of mmdet."""

    out: str
    weights: int  # tensors of the detector
    aside: tuple[str, ...]  # names of mmdet that transformers' model has no place for


def to_transformers(
    source: str | Path, out: str | Path, *, like: str = "", tokenizer: str = TOKENIZER, part: str | None = None
) -> Conversion:
    """Write the model folder `out` with the weights of mmdet's or LLMDet's file `source`.

    The shapes of the weights say which size it is; `like`, a model folder or hub id, gives configuration, tokenizer
    and image settings of any other. `part` names the entry of the file that holds the weights.
    Raises MissingError, FormatError for a file that is no whole checkpoint of this kind, SettingError where `out` is
    in use.
    """
    with TorchFile(source, part) as state, _new_folder(Path(out)) as folder:
        config, words, pixels = _like(like) if like else _of_shapes(state, tokenizer)
        converted = mmdet.from_mmdet(state, config)
        with torch.device("meta"):
            model = OpenDetector(config)
        model.load_state_dict(converted.weights, assign=True)
        checkpoint.write_model(folder, checkpoint.Parts(model, words, pixels))
        if converted.extra:
            save_file(converted.extra, folder / ASIDE)
    return Conversion(str(out), len(converted.weights), tuple(converted.extra))


def to_mmdet(source: str | Path, out: str | Path) -> Conversion:
    """Write `out`/mmdet.pth with the weights of a model folder or hub id, for mmdet to load.

    What a conversion kept aside in that folder comes back; denoising labels are drawn anew where there are none.
    Raises MissingError, FormatError for a model that mmdet has no names for, SettingError where `out` is in use.
    """
    model = checkpoint.read(source).model
    aside = _aside(Path(source))
    with _new_folder(Path(out)) as folder:
        state = mmdet.to_mmdet(model.state_dict(), aside, model.config)
        torch.save({"meta": {}, "state_dict": state}, folder / PTH)
    return Conversion(str(Path(out) / PTH), len(state), tuple(aside))


def _aside(source: Path) -> dict[str, Tensor]:
    place = checkpoint.find(source) / ASIDE if source.exists() else source / ASIDE
    try:
        return load_file(place) if place.is_file() else {}
    except SafetensorError as error:
        raise FormatError(f"{place} is damaged ({error}); convert the original again, or delete it") from error


def _of_shapes(state: Mapping[str, Tensor], name: str) -> tuple[MMGroundingDinoConfig, PreTrainedTokenizerBase, Pixels]:
    """The published size that the weights have, with BERT's tokenizer."""
    config = mmdet.config_for(state)
    size = next(size for size in SIZES.values() if size.width == mmdet.swin_of(config).embed_dim)
    return config, _tokenizer(name), Pixels(size.short_side, size.long_side)


def _like(name: str) -> tuple[MMGroundingDinoConfig, PreTrainedTokenizerBase, Pixels]:
    """Configuration, tokenizer and image settings of a model folder or hub id; its weights are not read."""
    try:
        config = AutoConfig.from_pretrained(name)
        processor = GroundingDinoImageProcessorPil.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise MissingError(f"no model can be read from {name}: {str(error).splitlines()[0]}") from error
    if not isinstance(config, MMGroundingDinoConfig):
        raise FormatError(f"{name} holds a model of type {config.model_type}; mm-grounding-dino is expected")
    config.decoder_bbox_embed_share = config.decoder_cls_embed_share = False  # mmdet has a head for each layer
    return config, _tokenizer(name), Pixels.of(processor)


def _tokenizer(name: str) -> PreTrainedTokenizerBase:
    """BERT's tokenizer. Raises MissingError where there is none, FormatError for another one."""
    try:
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise MissingError(
            f"no tokenizer can be read from {name}: {str(error).splitlines()[0]}; "
            "give a folder or hub id of bert-base-uncased with --tokenizer"
        ) from error
    if found.convert_tokens_to_ids(".") != checkpoint.DOT:
        raise FormatError(f"{name} holds no tokenizer of bert-base-uncased: a dot must be token {checkpoint.DOT}")
    return found


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder that gets its name when all is written. Raises SettingError where something is there."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SettingError(f"{out} is there and not empty; choose another --out")
    temporary = out.absolute().with_name(f".{out.absolute().name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
