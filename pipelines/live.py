"""What a run of caption is doing right now: gathered by its driver, shown by its progress line and by `status`.

The driver writes `runs/live/<source>-<task>.json` (a shard i of n: `<source>-<task>-i-of-n.json`), at most every two
seconds, and a last time when it ends. Whether a run that says "running" still does, its lease tells.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol, Self, runtime_checkable

from llmdet import files
from llmdet.workspace import Workspace
from pipelines.engines.engine import Usage
from pipelines.lease import Shard, leases
from pipelines.parts import Row
from pipelines.prices import Prices

WRITE_EVERY_S = 2.0
WINDOW_S = 60.0  # rates of a run that goes on are those of its last minute
FOLDER = ("runs", "live")
TOKENS = ("prompt_tokens", "cached_tokens", "answer_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """One run of caption. Counts are of this run only; times in seconds, `started` and `updated` since 1970."""

    source: str
    task: str
    shard: str  # i/n
    engine: str
    model: str
    ledgers: dict[str, int]  # folder below the workspace -> epoch of this driver's lease
    state: Literal["running", "finished", "stopped"] = "running"
    started: float = 0.0
    updated: float = 0.0
    chunks_done: int = 0
    chunks: int = 0
    images: int = 0  # about which something was asked
    requests: int = 0  # that came back, with an answer or an error
    errors: dict[str, int] = field(default_factory=dict)  # by reason
    prompt_tokens: int = 0
    cached_tokens: int = 0
    answer_tokens: int = 0
    image_tokens_predicted: int = 0
    image_tokens: int = 0  # as the engine counted them; 0 where it does not say
    images_per_s: float = 0.0
    requests_per_s: float = 0.0
    prompt_tokens_per_s: float = 0.0
    answer_tokens_per_s: float = 0.0
    cache_hits: float | None = None  # share of the prompt's tokens that came from the prefix cache
    waiting: float | None = None  # share of its time in which the engine had nothing to do for want of pictures
    left_s: float | None = None  # until the end; None while it cannot be told
    gpus: float = 0.0
    cost: float = 0.0

    def line(self) -> str:
        """The numbers in one line, for people."""
        said = [f"{self.images_per_s:.1f} images/s", f"{self.requests_per_s:.1f} requests/s"]
        if self.prompt_tokens or self.answer_tokens:
            said.append(f"tokens/s {self.prompt_tokens_per_s:.0f} in, {self.answer_tokens_per_s:.0f} out")
        if self.prompt_tokens:
            said.append(f"cached {self.cache_hits or 0:.0%}")
        if self.waiting is not None:
            said.append(f"engine waits {self.waiting:.0%}")
        said += [f"{count} {reason}" for reason, count in self.errors.items()]
        return ", ".join([*said, f"cost {self.cost:.2f}"] if self.cost else said)


@runtime_checkable
class Teller(Protocol):
    """Progress that can show more than how much is done."""

    def tell(self, line: str) -> None: ...


class Meter:
    """Gathers what each chunk of a run tells, and writes it down."""

    def __init__(self, workspace: Workspace, head: Live, prices: Prices) -> None:
        """Write the first lines at once. `head` says who runs, how many chunks there are, and which GPUs."""
        self._url = workspace.path(*FOLDER, _name(head.source, head.task, head.shard))
        self._prices = prices
        self._started = time.monotonic()
        self._written = 0.0
        self._errors: Counter[str] = Counter()
        self._usage: dict[str, tuple[Usage, Usage]] = {}  # worker -> (before its first chunk, after its last)
        self.live = replace(head, started=time.time(), updated=time.time())
        self._window = deque([self._counts()])
        self._write()

    def add(self, row: Row) -> None:
        """Take in what one chunk tells."""
        self._errors.update(row["errors"])
        before, after = (Usage(**usage) for usage in row["usage"])
        first, last = self._usage.get(row["worker"], (before, after))
        self._usage[row["worker"]] = min(first, before, key=_age), max(last, after, key=_age)
        sums = ("images", "requests", *TOKENS)
        totals: dict[str, Any] = {name: getattr(self.live, name) + row[name] for name in sums}
        self.live = replace(self.live, chunks_done=self.live.chunks_done + 1, **totals, **self._spent())
        now = self._counts()
        while len(self._window) > 1 and now[0] - self._window[1][0] >= WINDOW_S:
            self._window.popleft()
        self._window.append(now)
        self.live = replace(self.live, updated=time.time(), **self._rates(self._window[0]), **self._cost())
        if time.monotonic() - self._written > WRITE_EVERY_S:
            self._write()

    @contextlib.contextmanager
    def running(self) -> Iterator[Self]:
        """The time of a run: what is written last says whether it came to its end."""
        try:
            yield self
        except BaseException:
            self._end("stopped")
            raise
        self._end("finished")

    def _end(self, state: Literal["finished", "stopped"]) -> None:
        rates: dict[str, Any] = self._rates((self._started, 0, 0, 0, 0, 0)) | {"left_s": None}
        self.live = replace(self.live, state=state, updated=time.time(), **rates, **self._cost())
        self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        with contextlib.suppress(OSError):  # a run does not end because a store does not take its figures
            files.write_json(self._url, asdict(self.live))

    def _counts(self) -> tuple[float, int, int, int, int, int]:
        live = self.live
        return time.monotonic(), live.chunks_done, live.images, live.requests, live.prompt_tokens, live.answer_tokens

    def _rates(self, since: tuple[float, int, int, int, int, int]) -> dict[str, Any]:
        seconds = max(time.monotonic() - since[0], 1e-9)
        each = [(now - then) / seconds for now, then in zip(self._counts()[1:], since[1:], strict=True)]
        names = ("images_per_s", "requests_per_s", "prompt_tokens_per_s", "answer_tokens_per_s")
        left = (self.live.chunks - self.live.chunks_done) / each[0] if each[0] else None
        return {"left_s": left, **dict(zip(names, each[1:], strict=True))}

    def _spent(self) -> dict[str, Any]:
        """What the workers say of their engines, and the errors so far."""

        def total(name: str) -> float:
            return sum(getattr(last, name) - getattr(first, name) for first, last in self._usage.values())

        running = total("running_s")
        return {
            "errors": dict(self._errors.most_common()),
            "waiting": total("waiting_s") / running if running else None,
            "image_tokens_predicted": int(total("image_tokens_predicted")),
            "image_tokens": int(total("image_tokens")),
        }

    def _cost(self) -> dict[str, Any]:
        live = self.live
        spent = live.gpus * (time.monotonic() - self._started)
        return {
            "cost": self._prices.cost(live.prompt_tokens, live.cached_tokens, live.answer_tokens, spent),
            "cache_hits": live.cached_tokens / live.prompt_tokens if live.prompt_tokens else None,
        }


def _age(usage: Usage) -> float:
    return usage.running_s


def _name(source: str, task: str, shard: str) -> str:
    i, n = shard.split("/")
    return f"{source}-{task}.json" if n == "1" else f"{source}-{task}-{i}-of-{n}.json"


def shown(shard: Shard) -> str:
    """A shard as people write it."""
    return f"{shard[0]}/{shard[1]}"


def live_runs(workspace: Workspace) -> list[Live]:
    """The last run of each source, task and shard, the newest first. One whose driver is gone shows as stopped."""
    found = []
    for name in files.names(workspace.path(*FOLDER), ".json"):
        value = files.read_json(workspace.path(*FOLDER, name))
        live = Live(**value)
        found.append(replace(live, state="stopped", left_s=None) if _gone(workspace, live) else live)
    return sorted(found, key=lambda live: -live.started)


def _gone(workspace: Workspace, live: Live) -> bool:
    if live.state != "running":
        return False
    held = [leases(workspace.path(folder)).get(epoch) for folder, epoch in live.ledgers.items()]
    return not any(lease is not None and lease.alive() for lease in held)
