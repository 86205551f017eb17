"""The caption heads of a run: the language model found or made, the additions as they begin or as a run left them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import orjson
import torch
import torch.distributed as dist
from transformers import MMGroundingDinoConfig

from detector import checkpoint as checkpoints
from detector.captions import heads as module
from detector.captions import llm, tiny
from detector.captions.heads import CaptionHeads
from detector.captions.llm import LanguageModel
from detector.captions.tiny import Thing, Told
from detector.config import CaptionSettings
from detector.words import words_of
from llmdet.errors import FormatError, MissingError, SettingError
from llmdet.record import Box, Record, Region

TINY = "llm"  # folder of a run that the tiny model is kept in
READ = 2000  # records that the tiny model learns from


def start(
    settings: CaptionSettings,
    config: MMGroundingDinoConfig,
    records: Iterable[Record],
    out: Path,
    seed: int,
    place: torch.device,
) -> CaptionHeads:
    """Heads on their device, ready to train; in a process group each process calls this.

    The language model is in bfloat16 on a GPU and in float32 on a CPU, the additions always in float32.
    """
    name = settings.llm
    if name == "tiny":
        name = str(out / TINY)
        if _rank() == 0 and not (out / TINY / "config.json").is_file():
            out.mkdir(parents=True, exist_ok=True)
            tiny.write(out / TINY, *texts_of(records), replace(tiny.TinySettings(), seed=seed))
        if dist.is_available() and dist.is_initialized():
            dist.barrier()
    model = llm.read(name, torch.bfloat16 if place.type == "cuda" else torch.float32, settings.recompute)
    _check_context(model, settings)
    torch.manual_seed(seed)
    made = CaptionHeads(model, config, settings)
    if settings.start:
        module.load(settings.start, made)
    return made.to(place).train()


def _check_context(model: LanguageModel, settings: CaptionSettings) -> None:
    """Raise SettingError where sequences may become longer than the language model reads."""
    most = getattr(model.body.config, "max_position_embeddings", None)
    wanted = {"image_tokens": settings.image_weight, "region_tokens": settings.region_weight}
    for name, weight in wanted.items():
        length = getattr(settings, name)
        if most is not None and weight and length > most:
            raise SettingError(
                f"captions.{name} {length} is more than the {most} tokens that the model {settings.llm} reads: "
                f"set it to at most {most}, with smaller captions.grids where that is too little, or take another model"
            )


def settings_of(folder: str | Path) -> CaptionSettings:
    """What the heads beside a detector were trained with; its `llm` is the address of the language model.

    Raises MissingError where there are no heads, FormatError where their settings cannot be read.
    """
    place = checkpoints.find(folder) if Path(folder).exists() else Path(folder)
    if not (place / module.FACTS).is_file() or not (place / module.WEIGHTS).is_file():
        raise MissingError(f"{folder} has no caption heads ({module.WEIGHTS}): train it with captions first")
    try:
        stored = orjson.loads((place / module.FACTS).read_bytes())["settings"]
        stored = {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}
        settings = CaptionSettings(**stored)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{place / module.FACTS} holds no settings of caption heads: {error}") from error
    if settings.llm != "tiny":
        return settings
    homes = [one / TINY for one in (place, place.parent) if (one / TINY / "config.json").is_file()]
    if not homes:
        raise MissingError(
            f"the caption heads of {folder} need the language model of their run: copy {TINY}/ beside them"
        )
    return replace(settings, llm=str(homes[0]))


def read(folder: str | Path, config: MMGroundingDinoConfig, place: torch.device) -> CaptionHeads:
    """Heads as a run left them, with the language model that they were trained with, ready to speak.

    Raises MissingError where one of them is not there, FormatError where they do not fit.
    """
    settings = settings_of(folder)
    model = llm.read(settings.llm, torch.bfloat16 if place.type == "cuda" else torch.float32, recompute=False)
    made = CaptionHeads(model, config, settings)
    module.load(checkpoints.find(folder), made)
    return made.to(place).eval()


def texts_of(records: Iterable[Record]) -> tuple[list[Told], list[Told]]:
    """What records say of photos, and of boxes."""
    images: list[Told] = []
    regions: list[Told] = []
    for number, record in zip(range(READ), records, strict=False):
        chosen = [(region, box) for region in record.regions for box in region.boxes]
        words = words_of(record, chosen, "mixed", (number,))
        things = tuple(_thing(record, region, box) for region, box in chosen)
        images += [Told(words.image, things)] if words.image else []
        regions += [Told(text, (thing,)) for text, thing in zip(words.regions, things, strict=True) if text]
    return images, regions


def _thing(record: Record, region: Region, box: Box) -> Thing:
    x1, y1, x2, y2 = box.xyxy
    name = region.phrases[0] if region.phrases else ""
    return Thing(name, (x1 + x2) / 2 / record.width, (y1 + y2) / 2 / record.height)


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
