"""A recipe: a YAML file of values that says what a run does. Data only; a typo fails at once.

sources:
  coco:                                     # name of its tables
    format: coco                            # a reader of llmdet.sources; the rest are its fields
    annotations: coco/annotations/instances_train2017.json    # below data_root
    images: coco/train2017
leaks: {coco_val: coco/annotations/instances_val2017.json}    # evaluation photos to leave out: llmdet.leaks
ground: {sources: [llava], checkpoint: detectors/swin_l}    # boxes for photos without any
caption: {engine: template}
export: [{format: odvg}]
train: {steps: 1000}
evaluate: [{task: coco, annotations: ..., images: ...}]
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer

from llmdet import files
from llmdet.catalogue import DATA_ROOT
from llmdet.errors import FormatError, MissingError, SettingError
from llmdet.exports import Exporter
from llmdet.leaks import LeakSettings
from llmdet.rules.chain import DEFAULT_CHAIN, RULES, Rule, check_chain
from llmdet.sources.source import Source
from pipelines.answers import UNTOLD
from pipelines.caption import CaptionSettings
from pipelines.engines import ENGINES
from pipelines.engines.engine import Engine
from pipelines.export import exporter_of
from pipelines.finding import GroundSettings
from pipelines.ingest import IngestSettings
from pipelines.merge import MergeSettings
from pipelines.prices import Prices
from pipelines.readers import LEAK_PATHS, Values, below, below_all, source_of
from pipelines.refine import RefineSettings
from pipelines.sets import EvaluationSet, Task
from pipelines.settings import build, check_name, first_fault

if TYPE_CHECKING:
    from detector.config import TrainSettings


HUB_LLM = "llava-hf/llava-onevision-qwen2-0.5b-ov-hf"  # the language model inside it is LLMDet's


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=_Section)


class CaptionSection(_Section):
    """Engine, its settings, and what is asked; the settings of other engines may stand beside it."""

    engine: str = "template"
    engines: dict[str, Values] = Field(default_factory=dict)  # name -> fields of that engine
    task: Literal["image", "region", "all"] = "all"
    images: Literal["all", "missing"] = "all"  # missing: only those that their source does not describe
    chunk_images: int | None = Field(None, ge=1)
    seed: int = 0
    concurrency: int | None = None
    price: Values = Field(default_factory=dict)  # fields of pipelines.prices.Prices

    @field_serializer("engines", when_used="json")
    def _without_keys(self, engines: dict[str, Values]) -> dict[str, Values]:
        """What is written down of engines."""
        return {name: {k: v for k, v in one.items() if k not in UNTOLD} for name, one in engines.items()}

    def build_engine(self) -> Engine:
        return engine_of(self.engine, self.engines.get(self.engine, {}))

    def settings(self, shard: tuple[int, int] = (0, 1)) -> CaptionSettings:
        return CaptionSettings(
            task=self.task,
            images=self.images,
            chunk_images=self.chunk_images,
            seed=self.seed,
            concurrency=self.concurrency,
            shard=shard,
            price=build(Prices, self.price, "caption.price"),
        )


class GroundSection(_Section):
    """Which sources get pseudo boxes, and of which detector; `settings` are fields of pipelines.finding."""

    sources: list[str]  # names of tables
    checkpoint: str  # folder or hub id
    gpu: bool = False  # one GPU for each worker
    settings: Values = Field(default_factory=dict)

    def build_settings(self) -> GroundSettings:
        return build(GroundSettings, self.settings, "ground.settings").check()


class RefineSection(_Section):
    """The chain of rules by name, in order; absent: the default chain."""

    rules: dict[str, Values] | None = None
    also: dict[str, Values] = Field(default_factory=dict)  # rules behind these: links, and checks against the boxes
    max_attempts: int = Field(3, ge=1)
    source_captions: Literal["keep", "drop"] = "keep"

    def settings(self) -> RefineSettings:
        return RefineSettings(
            rules=rules_of(self.rules, self.also),
            max_attempts=self.max_attempts,
            source_captions=self.source_captions,
        )


class EvaluateSection(_Section):
    """One evaluation of the trained detector; what is None is what the task is known for."""

    name: str = ""
    task: Task = "coco"
    annotations: str
    images: str
    top_k: int | None = Field(None, ge=1)
    top_k_per: Literal["chunk", "image"] | None = None
    per_category: int = Field(10_000, ge=1)
    names_per_prompt: int | None = Field(None, ge=1)
    threshold: float = Field(0.0, ge=0, le=1)
    batch_size: int = Field(8, ge=1)
    protocol: Literal["llmdet", "mm_grounding_dino"] = "llmdet"
    benchmark: Literal["odinw13", "odinw35"] = "odinw13"
    split: str = "test"

    def build_set(self, data_root: str) -> EvaluationSet:
        """The set with its addresses."""
        values = self.model_dump() | {"annotations": below(data_root, self.annotations)}
        return EvaluationSet(**values | {"images": below(data_root, self.images)})


class TrainSection(_Section):
    """What the detector starts from and how it learns; `settings` are fields of detector.config.TrainSettings."""

    name: str = "detector"
    start: str = "tiny"  # or a folder or hub id of the MM-Grounding-DINO kind
    short_side: int = 800
    long_side: int = 1333
    workers: int = Field(1, ge=1)  # training processes
    gpu: bool = False
    settings: Values = Field(default_factory=dict)
    captions: bool | Values | None = None  # on: losses that fit `start`; or fields of detector.config.CaptionSettings

    def values(self) -> Values:
        """What `detector.config.TrainSettings` is built from."""
        chosen = captions_for(self.start) if self.captions is True else self.captions
        return {**self.settings, **({} if chosen in (None, False) else {"captions": chosen})}

    def build_settings(self) -> TrainSettings:
        """Raises SettingError."""
        from detector.config import CaptionSettings, TrainSettings

        if isinstance(self.captions, dict):
            build(CaptionSettings, self.captions, "train.captions")
        settings = build(TrainSettings, self.values(), "train.settings")
        if settings.batch_size % (self.workers * settings.accumulate):
            raise SettingError(
                f"train.settings.batch_size {settings.batch_size} must be a multiple of train.workers {self.workers} "
                f"times accumulate {settings.accumulate}"
            )
        return settings


def captions_for(start: str) -> Values:
    """Fields of `detector.config.CaptionSettings` for a detector: a tiny language model for the tiny one."""
    from detector.config import tiny_captions

    return asdict(tiny_captions()) if start == "tiny" else {"llm": HUB_LLM}


class ReportSection(_Section):
    """What the report shows."""

    title: str = ""
    gallery: int = Field(24, ge=0)


class Recipe(_Section):
    """Everything that `llmdet-data run` does, in the order of its fields."""

    name: str = "run"
    workspace: str = "workspace"
    data_root: str = DATA_ROOT
    sources: dict[str, Values]
    leaks: Values = Field(default_factory=dict)  # fields of llmdet.leaks.LeakSettings; paths below data_root
    ingest: Values = Field(default_factory=dict)
    ground: GroundSection | None = None
    caption: CaptionSection | None = CaptionSection()
    refine: RefineSection = RefineSection()
    merge: Values = Field(default_factory=dict)
    export: list[Values] = Field(default_factory=list)
    train: TrainSection | None = None
    evaluate: list[EvaluateSection] = Field(default_factory=list)
    report: ReportSection = ReportSection()
    max_faults: float = Field(0.05, ge=0, le=1)

    def build_sources(self) -> list[Source]:
        return [source_of(name, values, self.data_root) for name, values in self.sources.items()]

    def ingest_settings(self, limit: int | None = None) -> IngestSettings:
        values = {**self.ingest, **({"limit": limit} if limit else {})}
        return build(IngestSettings, {**values, "leaks": self.leak_settings()}, "ingest")

    def leak_settings(self) -> LeakSettings:
        """Where the lists of evaluation photos are; one path may stand where several can."""
        found = dict(self.leaks)
        for key in LEAK_PATHS & found.keys():
            several = key in ("refcoco", "photos")
            value = [found[key]] if several and isinstance(found[key], str) else found[key]
            found[key] = below_all(self.data_root, value) if several else below_all(self.data_root, value or "")
        return build(LeakSettings, found, "leaks")

    def merge_settings(self) -> MergeSettings:
        return build(MergeSettings, {"order": tuple(self.sources), **self.merge}, "merge")

    def exporters(self) -> list[tuple[str, Exporter]]:
        """(folder name, exporter) of each export; two of one format are told apart by their `out`."""
        found = []
        for values in self.export:
            options = dict(values)
            format = str(options.pop("format", ""))
            out = str(options.pop("out", format))
            found.append((out, exporter_of(format, options)))
        return found

    def check(self, *, planning: bool = False) -> None:
        """Build everything once, so that a mistake in the last section fails before the first stage runs.

        For `planning` the engine need not be one of this version's.
        """
        self.build_sources()
        self.ingest_settings()
        self.merge_settings()
        self.refine.settings()
        self.exporters()
        if self.caption:
            self.caption.settings()
            if not (planning and self.caption.engine not in ENGINES):
                self.caption.build_engine()
        self._check_names()
        self._check_ground()
        if self.train:
            self.train.build_settings()

    def _check_ground(self) -> None:
        if self.ground is None:
            return
        unknown = [name for name in self.ground.sources if name not in self.sources]
        if unknown:
            raise SettingError(f"ground.sources names {unknown[0]!r}; the recipe has: {', '.join(self.sources)}")
        if self.ground.build_settings().caption == "lmm" and self.caption is None:
            raise SettingError("ground.settings.caption: lmm needs a caption section, which says who writes captions")

    def _check_names(self) -> None:
        """Names of folders and files: two of the same would write over each other."""
        exports = [out for out, _ in self.exporters()]
        sets = [one.name or one.task for one in self.evaluate]
        for what, names, setting in (("export", exports, "out"), ("evaluate", sets, "name")):
            for name in names:
                check_name(name, f"{what}.{setting}")
                if names.count(name) > 1:
                    raise SettingError(f"{what} has two entries called {name!r}; tell them apart with {setting}")
        if self.train:
            check_name(self.train.name, "train.name")


def engine_of(name: str, values: Values | None = None) -> Engine:
    """An engine with its fields checked. Raises SettingError."""
    if name not in ENGINES:
        there = ", ".join(sorted(ENGINES))
        raise SettingError(f"no engine {name!r}; there are: {there}. Choose with --engine or --set caption.engine=NAME")
    return build(ENGINES[name], dict(values or {}), f"caption.engines.{name}")


def rules_of(values: dict[str, Values] | None, also: dict[str, Values] | None = None) -> tuple[Rule, ...]:
    """A chain of rules from names and fields, the default chain for None, and what comes behind it.

    Raises SettingError.
    """
    rules = tuple(DEFAULT_CHAIN) if values is None else _rules("refine.rules", values)
    rules += _rules("refine.also", also or {})
    check_chain(rules)
    return rules


def _rules(where: str, values: dict[str, Values]) -> tuple[Rule, ...]:
    unknown = [name for name in values if name not in RULES]
    if unknown:
        raise SettingError(f"{where}: no rule {unknown[0]!r}; there are: {', '.join(sorted(RULES))}")
    return tuple(build(RULES[name], fields or {}, f"{where}.{name}") for name, fields in values.items())


def load(path: str, overrides: list[str] | None = None, *, check: bool = True) -> Recipe:
    """A recipe from a YAML file (or the name of a bundled one) with `key.key=value` overrides.

    `check` builds every section, which a command that needs only one of them does without. Raises MissingError,
    FormatError for what is not YAML, SettingError for what does not fit.
    """
    try:
        values = yaml.safe_load(files.read_bytes(find(path)).decode())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise FormatError(f"{path} must be a mapping of sections (sources, caption, ...); got {type(values).__name__}")
    return recipe_of(set_values(values, overrides or []), path, check=check)


def recipe_of(values: Values, where: str = "recipe", *, check: bool = True) -> Recipe:
    """A checked recipe. Raises SettingError."""
    recipe = section_of(Recipe, values, where)
    if check:
        recipe.check()
    return recipe


def section_of(kind: type[S], values: Values, where: str) -> S:
    """A recipe or one section of it, checked. Raises SettingError."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise SettingError(f"{where}: {first_fault(error, kind)}") from None


def set_values(values: Values, overrides: list[str]) -> Values:
    """The values with `key.key=value` overrides applied, in place. Raises SettingError."""
    for override in overrides:
        _override(values, override)
    return values


def _override(values: Values, override: str) -> None:
    """Apply `caption.engine=openai`; the value is read as YAML, so numbers and lists work."""
    path, equals, value = override.partition("=")
    if not equals or not path:
        raise SettingError(f"--set needs key.key=value; got {override!r}")
    *above, last = path.split(".")
    place: Any = values
    for key in above:
        if isinstance(place, dict) and place.get(key) is None:
            place[key] = {}  # also a section that the recipe turns off with null
        place = place[key] if isinstance(place, dict) else place[_number(key, override, place)]
        if not isinstance(place, dict | list):
            raise SettingError(f"--set {override}: {key} holds a plain value, so nothing can be set inside it")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        raise SettingError(f"--set {override}: {value!r} cannot be read as a YAML value; put text in quotes") from None
    if isinstance(place, list):
        place[_number(last, override, place)] = parsed
    else:
        place[last] = parsed


def _number(key: str, override: str, place: list[Any]) -> int:
    if not key.isdigit() or int(key) >= len(place):
        raise SettingError(f"--set {override}: {key!r} must be a position in a list of {len(place)}")
    return int(key)


def workflows() -> Path:
    """The folder of the bundled recipes: in a checkout beside the packages, in a wheel inside this one."""
    here = Path(__file__).parent
    return here / "workflows" if (here / "workflows").is_dir() else here.parent / "workflows"


def find(path: str) -> str:
    """A recipe's address: the path as given, or `name` or `name.yaml` among the bundled ones."""
    bundled = [workflows() / Path(path).name, workflows() / f"{Path(path).name}.yaml"]
    if files.exists(path) and not os.path.isdir(path):  # the workspace of a recipe often has its name
        return path
    for candidate in bundled:
        if candidate.is_file():
            return str(candidate)
    names = ", ".join(sorted(p.stem for p in workflows().glob("*.yaml")))
    raise MissingError(f"no recipe at {path}; bundled ones: {names}")
