"""What asking would take, before anything is spent: requests, tokens, GPU-hours and money.

Requests are counted exactly, minus those that the ledger holds an answer to. The rest is an estimate, by these rules:
- words of a question: `llmdet.tokens.estimate_bert_tokens`, and `CHAT_TOKENS` for the marks of a chat around them;
- a picture: what its family's processor makes of its size (`llmdet.prompts.frames`); nothing is taken off for a prefix
  cache. A picture whose size is not known before it is opened counts as `USUAL_SIZE`;
- an answer: `IMAGE_ANSWER` tokens about a picture, `BOX_ANSWER` for each box, never more than the question allows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from llmdet.errors import ImageError, LlmdetError
from llmdet.prompts.frames import FAMILIES, Frame
from llmdet.prompts.prompt import Ask, Task
from llmdet.prompts.views import view_size
from llmdet.record import Record
from llmdet.tokens import estimate_bert_tokens
from llmdet.workspace import Workspace
from pipelines.answers import ledgers_of, requests_of
from pipelines.asking import Again, open_asks
from pipelines.caption import CaptionSettings
from pipelines.engines.engine import Engine, Request, seed_of
from pipelines.engines.lmm import Lmm
from pipelines.engines.template import TemplateEngine
from pipelines.ledger import Found, Ledger, ids_of
from pipelines.live import live_runs
from pipelines.prices import Prices

CHAT_TOKENS = 20
IMAGE_ANSWER = 150  # LLMDet's image captions have 115 words on average
BOX_ANSWER = 16  # a short caption and the brackets around it
USUAL_SIZE = (640, 480)  # pixels
EXAMPLES = 3
COUNTS = ("prompt tokens", "picture tokens", "answer tokens", "answer limit")


@dataclass(frozen=True, slots=True)
class Example:
    """One request as the engine would get it."""

    record: str
    task: Task
    attempt: int
    picture: str  # its size as the model gets it
    view: dict[str, Any]
    text: str
    schema: str
    sampling: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Spend:
    """What a number of tokens takes. None: no price or speed is known that could tell."""

    gpu_hours: float | None
    cost: float | None
    speed: str  # where the speed is from


@dataclass(frozen=True, slots=True)
class DryRun:
    """What would be asked, and what that would take."""

    plan: dict[str, dict[str, int]]  # source -> counts
    examples: list[Example]  # the first requests, fully resolved
    spend: Spend
    note: str = ""  # why another engine was planned with


@dataclass
class Estimate:
    """Counts of one source, and its first requests."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: list[Example] = field(default_factory=list)


def standing_in(engine: Engine) -> tuple[Engine, str]:
    """An engine that can plan, and a line that says why where it is not the one that was given.

    A model that cannot be looked up counts as its family, if a setting or its name says which; else the template's
    questions stand for its own. What its ledger holds is not known then.
    """
    try:
        engine.identity(), engine.prompts()
    except LlmdetError as error:
        why = str(error)[:100]
        family = (engine.family or _family(engine.model)) if isinstance(engine, Lmm) else ""
        if not family or not isinstance(engine, Lmm):
            return TemplateEngine(), f"{why}...: counted by the questions of the template engine, without pictures"
        return replace(engine, family=family), f"{why}...: counted as a model of the family {family}"
    return engine, ""


def _family(model: str) -> str:
    name = model.lower().replace(".", "_").replace("-", "_")
    return max((family for family in FAMILIES if family in name), key=len, default="")


class Estimator:
    """Counts what a source's records would ask, one record after the other."""

    def __init__(self, workspace: Workspace, source: str, engine: Engine, settings: CaptionSettings) -> None:
        self._engine, self._settings = engine, settings
        self._prompts = engine.prompts()
        self._frame: Frame | None = engine.frame() if isinstance(engine, Lmm) else None
        self._ledgers = _ledgers(workspace, source, engine, settings)
        self._held: dict[Task, Found] = {task: ledger.index() for task, ledger in self._ledgers.items()}
        self._asks = open_asks(workspace, source)
        self._seen: set[int] = set()  # hashes: a million ids would not fit
        self.found = Estimate(Counter(dict.fromkeys(self._keys(), 0)))

    def _keys(self) -> list[str]:
        tasks = self._settings.tasks
        return [f"{task} {what}" for task in tasks for what in ("requests", "tokens")] + ["answered", *COUNTS]

    def add(self, record: Record) -> None:
        """Count what one record asks that no earlier one did."""
        if not (record.width and record.height):
            record = replace(record, width=USUAL_SIZE[0], height=USUAL_SIZE[1])
        for task in self._settings.tasks:
            if self._settings.asks(task, record):
                for request in self._fresh(record, task):
                    self.found.counts[f"{task} requests"] += 1
                    again = self._open(request)
                    if again is None:
                        self.found.counts["answered"] += 1
                    else:
                        ask = again.ask(self._prompts[task], request, record)
                        self._count(record, replace(request, ask=ask, attempt=again.attempt))

    def _fresh(self, record: Record, task: Task) -> list[Request]:
        requests = requests_of(record, self._prompts[task], self._ledgers.get(task, Ledger("plan")))
        fresh = {hash(request.id): request for request in requests}
        fresh = {key: request for key, request in fresh.items() if key not in self._seen}
        self._seen.update(fresh)
        return list(fresh.values())

    def _open(self, request: Request) -> Again | None:
        """The attempt that is due; None for a request that is answered."""
        held = self._held.get(request.task)
        at = int(held.positions(ids_of([request.id]))[0]) if held is not None and len(held.ids) else -1
        again = self._asks.get(request.id, Again(0))
        answered = held is not None and at >= 0 and held.ok[at] and held.attempt[at] >= again.attempt
        return None if answered else again

    def _count(self, record: Record, request: Request) -> None:
        counts, ask = self.found.counts, request.ask
        words = estimate_bert_tokens(ask.text)
        counts[f"{request.task} tokens"] += words
        if self._frame is not None:  # who has no model reads and writes no tokens
            picture = self._picture(record, ask)
            counts["picture tokens"] += picture
            counts["prompt tokens"] += picture + words + CHAT_TOKENS
            limit = self._sampling(request)["max_tokens"]
            counts["answer limit"] += limit
            counts["answer tokens"] += min(limit, BOX_ANSWER * len(ask.boxes) if ask.boxes else IMAGE_ANSWER)
        if len(self.found.examples) < EXAMPLES:
            self.found.examples.append(self._example(record, request))

    def _picture(self, record: Record, ask: Ask) -> int:
        assert self._frame is not None
        try:
            return self._frame.image_tokens(*view_size(ask.view, record.width, record.height))
        except ImageError:
            return 0  # too narrow for the model: caption makes it a reject

    def _sampling(self, request: Request) -> dict[str, Any]:
        return self._engine.sampling.of(request) if isinstance(self._engine, Lmm) else {}

    def _example(self, record: Record, request: Request) -> Example:
        ask, size = request.ask, view_size(request.ask.view, record.width, record.height)
        if self._frame is not None:
            with suppress(ImageError):
                size = self._frame.resized(*size)
            request = replace(request, seed=seed_of(self._settings.seed, request.id, request.attempt))
        shown = f"{size[0]}x{size[1]}"
        view = {name: value for name, value in asdict(ask.view).items() if value}
        sampling = self._sampling(request)
        return Example(record.id, request.task, request.attempt, shown, view, ask.text, ask.schema, sampling)


def _ledgers(workspace: Workspace, source: str, engine: Engine, settings: CaptionSettings) -> dict[Task, Ledger]:
    """Where answers would be; none where the exact model is not known."""
    try:
        return ledgers_of(workspace, source, engine, settings.tasks, settings.seed)
    except LlmdetError:
        return {}


def plan_caption(
    workspace: Workspace, source: str, engine: Engine, settings: CaptionSettings, records: Iterable[Record] = ()
) -> DryRun:
    """What `caption` would ask: about the records of the workspace, or about these where it was not ingested."""
    engine, note = standing_in(engine)
    table = workspace.best_records(source)
    estimator = Estimator(workspace, source, engine, settings)
    count = 0
    for record in table.records() if table.manifest() else records:
        count += 1
        estimator.add(record)
    counts = {"records": count, **estimator.found.counts}
    spent = spend(workspace, engine, settings.price, counts["prompt tokens"], counts["answer tokens"])
    return DryRun({source: counts}, estimator.found.examples, spent, note)


def spend(workspace: Workspace, engine: Engine, prices: Prices, prompt_tokens: int, answer_tokens: int) -> Spend:
    """GPU-hours and money for so many tokens, at the prices' speed or at that of the last run of the same engine."""
    gpus, tokens = _gpus(engine, prices), prompt_tokens + answer_tokens
    speed, told = prices.tokens_per_s, "price.tokens_per_s"
    if speed is None:
        speed, held, told = _measured(workspace, engine)
        gpus = held or gpus
    known = prices.gpu_hour or prices.prompt_million or prices.answer_million
    if not tokens:
        return Spend(0.0, 0.0 if known else None, "")
    if gpus and speed:
        seconds = gpus * tokens / speed
        return Spend(seconds / 3600, prices.cost(prompt_tokens, 0, answer_tokens, seconds) if known else None, told)
    return Spend(None, prices.cost(prompt_tokens, 0, answer_tokens) if known and not prices.gpu_hour else None, "")


def _gpus(engine: Engine, prices: Prices) -> float:
    """GPUs that are paid for at a time: as the prices say or the engine's workers hold; one, if GPUs have a price."""
    pool = engine.workers()
    held = pool.num_gpus * (pool.count or 1) if pool else 0.0
    return prices.gpus if prices.gpus is not None else held or (1.0 if prices.gpu_hour else 0.0)


def _measured(workspace: Workspace, engine: Engine) -> tuple[float | None, float, str]:
    """Tokens a second of the newest run of the same engine and model that asked something, and its GPUs."""
    try:
        identity = engine.identity()
    except LlmdetError:
        return None, 0.0, ""
    for run in live_runs(workspace):
        tokens, seconds = run.prompt_tokens + run.answer_tokens, run.updated - run.started
        if (run.engine, run.model) == (identity.engine, identity.model) and tokens and seconds > 0:
            return tokens / seconds, run.gpus, f"as the last run about {run.source} had it"
    return None, 0.0, ""
