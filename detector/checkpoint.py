"""Checkpoints: a model folder that plain transformers opens, with the state of training beside it. No pickle.

    OUT/step-000500/config.json, model.safetensors, tokenizer and processor files
    OUT/step-000500/captions.safetensors, captions.json     additions to the language model, where captions are learned
    OUT/step-000500/training/state.json, optimizer.safetensors
    OUT/step-000500/training/weights.safetensors            where the model is a running mean: what goes on learning
    OUT/config.json, model.safetensors, ...           the finished model, once training is done

A checkpoint is written under another name and renamed, so a folder called `step-...` is whole.
"""

from __future__ import annotations

import copy
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertTokenizer,
    GroundingDinoImageProcessorPil,
    GroundingDinoProcessor,
    MMGroundingDinoConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as messages

from detector.averages import Averages
from detector.captions import heads as captions
from detector.captions.heads import CaptionHeads
from detector.config import ModelSettings, TrainSettings, tiny_config
from detector.model import OpenDetector, scale_init
from detector.pixels import Pixels
from detector.sizes import SIZES, config_of, for_training
from llmdet.errors import FormatError, MissingError, SettingError

log = logging.getLogger(__name__)

DOT = 1012  # of BERT, which transformers' model takes for the end of a phrase
LEARNED = "weights.safetensors"  # in `training`, beside a model that is a running mean
VOCABULARY = Path(__file__).parent / "assets" / "tiny" / "vocab.txt"


@dataclass(frozen=True, slots=True)
class Parts:
    """A model, what turns photos and texts into its input, and in training what learns captions from its features."""

    model: OpenDetector
    tokenizer: PreTrainedTokenizerBase
    pixels: Pixels
    captions: CaptionHeads | None = None

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Weights of the model by name, and those of the captions that learn under `captions.`."""
        spoken = self.captions.trained() if self.captions else {}
        return dict(self.model.named_parameters()) | {f"captions.{name}": one for name, one in spoken.items()}


def start(settings: ModelSettings, seed: int) -> Parts:
    """A model to be trained: fresh, tiny or of a published size, or one that is read from a folder or hub id."""
    if settings.start not in ("tiny", *SIZES):
        return read(settings.start, for_training)
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    if settings.start in SIZES:
        size = SIZES[settings.start]
        return Parts(OpenDetector(config_of(size, len(tokenizer))), tokenizer, Pixels(size.short_side, size.long_side))
    model = OpenDetector(tiny_config(len(tokenizer)))
    scale_init(model)
    return Parts(model, tokenizer, Pixels(settings.short_side, settings.long_side))


def tiny_tokenizer() -> PreTrainedTokenizerBase:
    """WordPiece over the vocabulary of this package: common words, and pieces that spell any other."""
    return BertTokenizer(vocab=str(VOCABULARY), do_lower_case=True, model_max_length=256)


def find(folder: str | Path) -> Path:
    """The model folder that is meant: the folder itself, or its newest checkpoint.

    Raises MissingError where there is neither.
    """
    place = Path(folder)
    if (place / "config.json").is_file():
        return place
    newest = checkpoints(place)
    if not newest:
        raise MissingError(f"no model in {folder}: neither config.json nor a step-... folder is there; run train first")
    return newest[-1]


def checkpoints(out: str | Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first; by number, because step 1,000,000 sorts before 999,999 as text."""
    found = {int(path.name[5:]): path for path in Path(out).glob("step-*") if path.name[5:].isdecimal()}
    return [path for _, path in sorted(found.items()) if path.is_dir()]


def place_of(out: str | Path, step: int) -> Path:
    """The folder of the checkpoint of a step."""
    return Path(out) / f"step-{step:06d}"


def read(
    name: str | Path, adapt: Callable[[MMGroundingDinoConfig], MMGroundingDinoConfig] = lambda config: config
) -> Parts:
    """Model, tokenizer and image settings of a folder or hub id of the MM-Grounding-DINO kind.

    `adapt` may change what the configuration says of dropout; shapes stay.
    Raises MissingError where there is none, FormatError for a model of another kind or a damaged one.
    """
    place = str(find(name)) if Path(name).exists() else str(name)
    try:
        config = AutoConfig.from_pretrained(place)
    except (OSError, ValueError) as error:
        there = "" if Path(name).exists() else "no such folder is there, and as an id of the hub: "
        raise MissingError(f"no model can be read from {name}: {there}{str(error).splitlines()[0]}") from error
    if not isinstance(config, MMGroundingDinoConfig):
        raise FormatError(f"{name} holds a model of type {config.model_type}; mm-grounding-dino is expected")
    try:
        model = _own_heads(place, adapt(config))
        processor = GroundingDinoImageProcessorPil.from_pretrained(place)
        tokenizer = AutoTokenizer.from_pretrained(place)
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise FormatError(f"{name} holds no whole model, tokenizer and image settings: {why}") from error
    if tokenizer.convert_tokens_to_ids(".") != DOT:  # transformers makes an empty tokenizer where the files are gone
        raise FormatError(f"{name} holds no tokenizer that fits its model: a dot must be token {DOT}")
    return Parts(model, tokenizer, Pixels.of(processor))


def _own_heads(place: str, config: MMGroundingDinoConfig) -> OpenDetector:
    """The model with a head for each decoder layer.

    Published weights have them, under configurations that say that one head is shared: transformers 5 believes those,
    and would refine boxes with the first head alone.
    """
    own = copy.deepcopy(config)
    own.decoder_bbox_embed_share = own.decoder_cls_embed_share = False
    model, missing = _loaded(place, own)
    if any("_embed." in name for name in missing):  # one head is all there is
        model, missing = _loaded(place, config)
    if missing:
        log.warning("%s lacks %d weights, which begin at random: %s, ...", place, len(missing), min(missing))
    return model


def _loaded(place: str, config: MMGroundingDinoConfig) -> tuple[OpenDetector, set[str]]:
    """The model of a folder or id, and the names of weights that its file has not.

    Raises FormatError for weights that are of another shape than the configuration says.
    """
    level = messages.get_verbosity()
    messages.set_verbosity_error()  # else a table of hundreds of lines
    try:
        loaded: Any = OpenDetector.from_pretrained(
            place, config=config, output_loading_info=True, ignore_mismatched_sizes=True
        )
    finally:
        messages.set_verbosity(level)
    model, found = loaded
    if found["mismatched_keys"]:
        name, stored, wanted = min(found["mismatched_keys"])
        raise FormatError(
            f"{place} holds {len(found['mismatched_keys'])} weights of another shape than its config.json says: "
            f"{name} is {tuple(stored)}, {tuple(wanted)} is expected"
        )
    assert isinstance(model, OpenDetector)
    return model, set(found["missing_keys"])


def write(
    out: str | Path,
    step: int,
    parts: Parts,
    optimizer: Optimizer,
    settings: TrainSettings,
    averages: Averages | None = None,
) -> Path:
    """Write the checkpoint of a step and drop older ones beyond `settings.keep`; returns its folder."""
    place = place_of(out, step)
    temporary = Path(out) / f".{place.name}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    training = temporary / "training"
    training.mkdir(parents=True)
    if averages:
        with averages.shown() as learned:
            _write_parts(temporary, parts)
        save_file(learned, training / LEARNED)
    else:
        _write_parts(temporary, parts)
    save_file(_optimizer_tensors(parts, optimizer), training / "optimizer.safetensors")
    state = {"version": 1, "step": step, "settings": asdict(settings)}
    (training / "state.json").write_bytes(orjson.dumps(state, option=orjson.OPT_INDENT_2))
    _sync(temporary)
    if place.exists():  # of a process whose driver was killed, and which went on for a moment: the same weights
        shutil.rmtree(temporary)
    else:
        temporary.rename(place)
    for old in checkpoints(out)[: -settings.keep]:
        shutil.rmtree(old, ignore_errors=True)
    return place


def _write_parts(folder: Path, parts: Parts) -> None:
    write_model(folder, parts)
    if parts.captions:
        captions.write(folder, parts.captions)


def write_model(folder: Path, parts: Parts) -> None:
    """Model, tokenizer and processor in transformers' formats."""
    parts.model.save_pretrained(folder)
    config = orjson.loads((folder / "config.json").read_bytes())
    config["architectures"] = ["MMGroundingDinoForObjectDetection"]  # what every reader knows
    (folder / "config.json").write_bytes(orjson.dumps(config, option=orjson.OPT_INDENT_2))
    GroundingDinoProcessor(parts.pixels.processor(), parts.tokenizer).save_pretrained(folder)
    parts.pixels.processor().save_pretrained(folder)


def publish(out: str | Path, checkpoint: Path) -> None:
    """Put the finished model at the top of the run's folder; `config.json` comes last."""
    names = sorted(path.name for path in checkpoint.iterdir() if path.is_file())
    for name in sorted(names, key=lambda name: name == "config.json"):
        temporary = Path(out) / f".{name}.tmp"
        shutil.copyfile(checkpoint / name, temporary)
        os.replace(temporary, Path(out) / name)


def resume(
    checkpoint: Path,
    parts: Parts,
    optimizer: Optimizer,
    settings: TrainSettings,
    averages: Averages | None = None,
) -> int:
    """Put weights and optimizer state of a checkpoint in place; returns the step that it was written after.

    Raises SettingError where the run was started with other settings: the continued run would be neither of the two.
    """
    state = orjson.loads((checkpoint / "training" / "state.json").read_bytes())
    check_settings(state["settings"], settings, checkpoint)
    _restore_model(checkpoint, parts.model)
    if parts.captions:
        captions.load(checkpoint, parts.captions)
    if averages:
        averages.restart()
        averages.put(load_file(checkpoint / "training" / LEARNED))
    _restore(optimizer, parts, load_file(checkpoint / "training" / "optimizer.safetensors"))
    return int(state["step"])


def _restore_model(checkpoint: Path, model: OpenDetector) -> None:
    """Raises FormatError for a checkpoint of another model, or a damaged one."""
    try:
        stored = _loaded(str(checkpoint), AutoConfig.from_pretrained(str(checkpoint)))[0].state_dict()
    except (FormatError, SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise FormatError(
            f"training cannot go on from {checkpoint}: {str(error).splitlines()[0]}. Remove it to go on from the one "
            "before it, or choose another --out"
        ) from error
    own = model.state_dict()
    shapes, wanted = ({name: tensor.shape for name, tensor in one.items()} for one in (stored, own))
    other = [name for name in shapes | wanted if shapes.get(name) != wanted.get(name)]
    if other:
        raise FormatError(
            f"{checkpoint} holds a model of another shape than this run begins with ({min(other)} differs); choose "
            "another --out"
        )
    model.load_state_dict(stored)


# What may change between the parts of one run without changing what is learned.
_FREE = (
    *("checkpoint_every", "evaluate_every", "keep", "log_every", "log_records", "loggers"),
    *("readers", "threads"),
)


def check_settings(stored: dict[str, Any], settings: TrainSettings, checkpoint: Path) -> None:
    """Raise SettingError unless a run with the stored settings may go on with these.

    What an older version did not store is what it did: the default.
    """
    now, usual = (orjson.loads(orjson.dumps(asdict(one))) for one in (settings, TrainSettings()))
    before = usual | stored
    different = [name for name in now if name not in _FREE and before[name] != now[name]]
    if different:
        changes = ", ".join(f"{name} {before[name]} -> {now[name]}" for name in different)
        raise SettingError(
            f"{checkpoint} was trained with other settings ({changes}); choose another --out to start anew"
        )


def _optimizer_tensors(parts: Parts, optimizer: Optimizer) -> dict[str, Tensor]:
    """State of each parameter by the parameter's name: `<name>/exp_avg`, `<name>/exp_avg_sq`, `<name>/step`."""
    names = {id(parameter): name for name, parameter in parts.named_parameters().items()}
    return {
        f"{names[id(parameter)]}/{kind}": torch.as_tensor(value).contiguous()
        for parameter, state in optimizer.state.items()
        for kind, value in state.items()
    }


def _restore(optimizer: Optimizer, parts: Parts, tensors: dict[str, Tensor]) -> None:
    parameters = parts.named_parameters()
    for key, value in tensors.items():
        name, kind = key.rsplit("/", 1)
        place = "cpu" if kind == "step" and parameters[name].device.type == "cpu" else parameters[name].device
        optimizer.state[parameters[name]][kind] = value.to(place)


def _sync(folder: Path) -> None:
    """Force the files of a folder to disk before it gets its final name."""
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)
