"""The tables of the documentation that are made from the code, so that they cannot say anything else.

    python -m tests.docs.tables        write them anew between their markers in docs/*.md

A page has `<!-- table: sources -->` and `<!-- end -->`; what stands between is replaced.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

from detector.config import CaptionSettings, CriterionSettings, DataSettings, DenoisingSettings, TrainSettings
from llmdet.catalogue import CATALOGUE, rows
from llmdet.exports import EXPORTERS
from llmdet.joining import SameImage
from llmdet.leaks import LeakSettings
from llmdet.prompts import PROMPTS
from llmdet.prompts.example import prompt_hash
from llmdet.prompts.frames import FAMILIES, GENERAL
from llmdet.rules.chain import DEFAULT_CHAIN, RULES
from llmdet.sources import SOURCES
from pipelines.engines import ENGINES
from pipelines.engines.lmm import Lmm, Sampling
from pipelines.engines.openai import OpenAiEngine
from pipelines.engines.transformers import TransformersEngine
from pipelines.engines.vllm import VllmEngine
from pipelines.finding import GroundSettings
from pipelines.ingest import IngestSettings
from pipelines.merge import MergeSettings
from pipelines.prices import Prices
from pipelines.recipe import (
    CaptionSection,
    EvaluateSection,
    GroundSection,
    Recipe,
    RefineSection,
    ReportSection,
    TrainSection,
)

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.S)
_EVERY_READER = {"annotations", "images", "name", "licence", "address"}


def filled(page: str) -> str:
    """A page with all its tables as they are now."""
    return MARKED.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}\n{found[3]}", page)


def table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """A Markdown table; bars in cells are escaped."""
    head = list(head)
    shown = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in shown)


def notes(kind: type) -> dict[str, tuple[str, str]]:
    """Field -> (default as written, the comment at its end or above it); fields of the parents first."""
    found = notes(kind.__base__) if kind.__base__ and kind.__base__.__module__.startswith(_OURS) else {}
    source = textwrap.dedent(inspect.getsource(kind))
    lines = source.splitlines()
    names = {one.name for one in fields(kind)} if is_dataclass(kind) else set(getattr(kind, "model_fields", {}))
    for node in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id in names:
            default = ast.unparse(node.value) if node.value else "must be given"
            found[node.target.id] = (_default(default, kind), _comment(lines, node))
    return {name: found[name] for name in found if name in names}


_OURS = ("llmdet", "pipelines", "detector")


def _comment(lines: list[str], node: ast.AnnAssign) -> str:
    """A comment behind any line of the statement, else the comment lines right above it."""
    assert node.end_lineno is not None
    for line in lines[node.lineno - 1 : node.end_lineno]:
        if "  # " in line:
            return line.split("  # ", 1)[1].strip()
    above = []
    for line in reversed(lines[: node.lineno - 1]):
        if not line.strip().startswith("# "):
            break
        above.insert(0, line.strip()[2:])
    return " ".join(above)


def _default(text: str, kind: type) -> str:
    """`Field(24, ge=0)` is 24, `field(default_factory=dict)` is {}, a constant is its value."""
    for pattern, shown in (
        (r"(?:F|f)ield\(default_factory=dict\)", "{}"),
        (r"(?:F|f)ield\(default_factory=list\)", "[]"),
        (r"field\(default_factory=lambda: (.*)\)", r"\1"),
        (r"Field\(([^,]+), .*\)", r"\1"),
        (r"(\w+)\(\)|(?:F|f)ield\(default_factory=(\w+)\)", "see below"),
    ):
        if re.fullmatch(pattern, text):
            return re.sub(pattern, shown, text)
    constant = getattr(sys.modules[kind.__module__], text, None) if text.isupper() else None
    return text if constant is None else repr(constant)


def of_fields(kind: type, leave: Iterable[str] = ()) -> str:
    """The fields of a settings class."""
    told = {name: note for name, note in notes(kind).items() if name not in set(leave)}
    hints = get_type_hints(kind)
    lines = [
        (f"`{name}`", f"`{value}`", "; ".join(filter(None, (_choices(hints[name]), note or _meaning(kind, name)))))
        for name, (value, note) in told.items()
    ]
    return table(("field", "default", "meaning"), lines)


def _choices(hint: object) -> str:
    """The values of a Literal, also where it may be None."""
    for one in (hint, *get_args(hint)):
        if get_origin(one) is Literal:
            return " or ".join(f"`{value}`" for value in get_args(one))
    return ""


def _meaning(kind: type, name: str) -> str:
    """What a field means whose name says it well enough in the code. Raises KeyError for one that nobody explained."""
    return MEANINGS[f"{kind.__name__}.{name}"]


MEANINGS = {
    "Recipe.name": "in the run record, and the title of the report",
    "Recipe.workspace": "folder or URL of everything that the run makes",
    "Recipe.data_root": "what relative paths are below",
    "Recipe.sources": "name of the tables -> fields of the reader",
    "Recipe.ingest": "how photos are checked",
    "Recipe.ground": "which sources get pseudo boxes; absent: none",
    "Recipe.caption": "the engine and what it is asked; `null`: no captions are asked for",
    "Recipe.refine": "rules and attempts",
    "Recipe.merge": "order, caps, weights, captions and splits",
    "Recipe.export": "a list: `format`, `out` and fields of the exporter",
    "Recipe.train": "absent: nothing is trained",
    "Recipe.evaluate": "a list of sets; each is measured before and after training",
    "Recipe.report": "the HTML page",
    "Recipe.max_faults": "share of faults of a stage above which the exit code is 3",
    "IngestSettings.part_rows": "records of one parquet part",
    "LeakSettings.action": "what becomes of a record that shows an evaluation photo",
    "SameImage.count_tokens": "only from Python: a function of the text",
    "CaptionSection.engine": "who answers",
    "CaptionSection.price": "what is shown as cost: see [costs.md](costs.md)",
    "CaptionSection.task": "captions of whole images, of boxes, or both",
    "CaptionSection.chunk_images": "images per unit of work: what a kill can cost",
    "CaptionSection.seed": "base of all sampling seeds",
    "CaptionSection.concurrency": "units of work at a time; `None`: one per CPU of the cluster",
    "GroundSection.settings": "fields of `ground`: see [ground.md](ground.md#settings)",
    "Lmm.image_prompt": "the [prompt](prompts.md) about images",
    "Lmm.region_prompt": "the prompt about boxes",
    "Lmm.max_pixels": "the same, upwards; more pixels are more tokens",
    "Lmm.sampling": "see the next table",
    "Sampling.temperature": "of a first answer",
    "Sampling.retry_temperature": "of an answer that is asked for again",
    "Sampling.top_p": "the likeliest words that are drawn from, as a share",
    "Sampling.repetition_penalty": "above 1: words that were said become less likely",
    "RefineSection.rules": "name -> fields, in order; `None`: the default chain",
    "RefineSection.max_attempts": "answers asked for one request before it is given up",
    "RefineSection.source_captions": "the source's own captions, which come after the engine's",
    "TrainSection.name": "folder below `detector/`",
    "TrainSection.short_side": "pixels that the shorter side is resized to; only where `start` is `tiny`",
    "TrainSection.long_side": "pixels that the longer side may have then",
    "TrainSection.gpu": "one GPU for each training process",
    "TrainSection.settings": "see the next table",
    "TrainSettings.steps": "of the optimizer; a run is bounded by them and never by time",
    "TrainSettings.learning_rate": "of AdamW, after the warm-up",
    "TrainSettings.betas": "of AdamW",
    "TrainSettings.weight_decay": "of AdamW",
    "TrainSettings.precision": "of the forward pass (autocast)",
    "TrainSettings.seed": "of weights, order and noise",
    "TrainSettings.log_every": "steps between two entries of the TensorBoard log",
    "TrainSettings.criterion": "see below",
    "TrainSettings.denoising": "see below",
    "TrainSettings.data": "see below",
    "CriterionSettings.class_cost": "of the matching",
    "CriterionSettings.l1_cost": "of the matching",
    "CriterionSettings.giou_cost": "of the matching",
    "CriterionSettings.class_weight": "of the loss",
    "CriterionSettings.l1_weight": "of the loss",
    "CriterionSettings.giou_weight": "of the loss",
    "EvaluateSection.name": "in file names and figures; empty: the task",
    "EvaluateSection.task": "protocol and format of the ground truth",
    "EvaluateSection.annotations": "ground truth, below `data_root`; of `odinw` and `coco-o` the folder of their sets",
    "EvaluateSection.images": "folder of its photos, below `data_root`; of `odinw` and `coco-o` the same folder",
    "EvaluateSection.top_k": "(box, name) pairs kept; `None`: 300, 30 of `refcoco`, 100 of a phrase of `flickr30k`",
    "EvaluateSection.top_k_per": "pairs kept of each prompt or of each image; `None`: `chunk` for LVIS, else `image`",
    "EvaluateSection.per_category": "of `lvis-fixed`: detections of each category that count",
    "EvaluateSection.names_per_prompt": "names asked at once; `None`: 40 for LVIS, else as many as fit",
    "EvaluateSection.threshold": "pairs with a lower score are not kept",
    "EvaluateSection.batch_size": "photos asked at once",
    "EvaluateSection.protocol": "of `refcoco`",
    "EvaluateSection.benchmark": "of `odinw`",
    "EvaluateSection.split": "of `flickr30k`",
    "ReportSection.title": "heading of the page; empty: the recipe's name",
    "ReportSection.gallery": "records that are shown with their photo",
}


def first_sentence(kind: type) -> str:
    """The first paragraph of a docstring, as one line."""
    return " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())


def sources() -> str:
    """Every reader: the set that it is known from, its licence, its own fields."""
    licences = {row["source"]: row["licence"] for row in rows()}
    lines = []
    for name, kind in SOURCES.items():
        own = ", ".join(f"`{one}`" for one in notes(kind) if one not in _EVERY_READER)
        lines.append((f"`{name}`", CATALOGUE[name].title, licences[name], own))
    return table(("source", "known from", "licence", "fields of its own"), sorted(lines))


def layout() -> str:
    """Where each public set is looked for below the data root."""
    lines = []
    for name, entry in sorted(CATALOGUE.items()):
        if entry.annotations:
            files = "<br>".join(f"`{path}`" for path in (*entry.annotations, entry.finished) if path)
            lines.append((f"`{name}`", files, f"`{entry.images}`"))
    return table(("source", "annotations: the first that is there", "photos"), lines)


def exports() -> str:
    """Every exporter: files, what is lost, its own settings."""
    lines = []
    for name, kind in EXPORTERS.items():
        writes = first_sentence(kind).removeprefix("Writes ").rstrip("., ").replace("`Odvg`", "`odvg`")
        own = ", ".join(f"`{one}`" for one in notes(kind))
        lines.append((f"`{name}`", writes, kind.cannot_hold, own))
    return table(("format", "files", "what it holds and cannot hold", "settings"), lines)


def rules() -> str:
    """The rules by the name that recipes use, in the order of the default chain."""
    order = {type(rule): place for place, rule in enumerate(DEFAULT_CHAIN)}
    lines = [
        (f"`{name}`", first_sentence(kind), ", ".join(f"`{one}: {value}`" for one, (value, _) in notes(kind).items()))
        for name, kind in sorted(RULES.items(), key=lambda item: order.get(item[1], len(order)))
    ]
    return table(("rule", "what it does", "settings and defaults"), lines)


def engines() -> str:
    """The engines that are there."""
    lines = [
        (f"`{name}`", first_sentence(kind), ", ".join(f"`{one}: {value}`" for one, (value, _) in notes(kind).items()))
        for name, kind in ENGINES.items()
    ]
    return table(("engine", "what it does", "settings and defaults"), lines)


def of_engine(kind: type) -> str:
    """What an engine with a language model has beside the settings that all of these have."""
    return of_fields(kind, [one.name for one in fields(Lmm)])


def prompts() -> str:
    """The prompts with their pinned words, and the settings beyond id, version and task."""
    lines = [
        (
            f"`{name}`",
            kind().version,
            f"`{prompt_hash(kind())}`",
            first_sentence(kind),
            ", ".join(f"`{one}: {value}`" for one, (value, _) in notes(kind).items() if one not in _NAMED),
        )
        for name, kind in PROMPTS.items()
    ]
    return table(("prompt", "version", "hash", "what it is", "settings and defaults"), lines)


_NAMED = ("id", "version", "task", "frame")  # the frame is the model's, not the user's


def frames() -> str:
    """How each family sees a picture of 640x480 and a box in it."""
    lines = [
        (
            f"`{family}`" if family else "any other",
            f"`{frame.write((160, 120, 320, 360), 640, 480)}`",
            f"multiples of {frame.factor}"
            if frame.layout == "patches"
            else "unknown"
            if frame.layout == "free"
            else "the processor cuts tiles",
            f"{frame.min_pixels:,} to {frame.max_pixels:,}"
            if frame.layout == "patches"
            else f"to {frame.max_pixels:,}",
            ("about " if frame.layout == "free" else "") + str(frame.image_tokens(640, 480)),
        )
        for family, frame in [*FAMILIES.items(), ("", GENERAL)]
    ]
    return table(("model_type", "a box", "sides", "pixels", "tokens of a 640x480 photo"), lines)


TABLES: dict[str, Callable[[], str]] = {
    "sources": sources,
    "layout": layout,
    "exports": exports,
    "rules": rules,
    "engines": engines,
    "prompts": prompts,
    "frames": frames,
    "recipe": lambda: of_fields(Recipe),
    "ingest": lambda: of_fields(IngestSettings, ["leaks"]),
    "leaks": lambda: of_fields(LeakSettings),
    "joining": lambda: of_fields(SameImage),
    "ground": lambda: of_fields(GroundSection),
    "grounding": lambda: of_fields(GroundSettings),
    "caption": lambda: of_fields(CaptionSection),
    "prices": lambda: of_fields(Prices),
    "lmm": lambda: of_fields(Lmm),
    "sampling": lambda: of_fields(Sampling),
    "openai": lambda: of_engine(OpenAiEngine),
    "vllm": lambda: of_engine(VllmEngine),
    "transformers": lambda: of_engine(TransformersEngine),
    "refine": lambda: of_fields(RefineSection),
    "merge": lambda: of_fields(MergeSettings),
    "train": lambda: of_fields(TrainSection),
    "training": lambda: of_fields(TrainSettings),
    "criterion": lambda: of_fields(CriterionSettings),
    "denoising": lambda: of_fields(DenoisingSettings),
    "caption_losses": lambda: of_fields(CaptionSettings),
    "samples": lambda: of_fields(DataSettings),
    "evaluate": lambda: of_fields(EvaluateSection),
    "report": lambda: of_fields(ReportSection),
}

if __name__ == "__main__":
    for path in PAGES:
        path.write_text(filled(path.read_text()))
