"""The protocol of an engine, and what goes in and comes out of one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import orjson

from llmdet.prompts.example import prompt_hash
from llmdet.prompts.prompt import Ask, Prompt, Task, View
from llmdet.record import Provenance, Record
from llmdet.workspace import fingerprint
from pipelines.parts import Workers


@dataclass(frozen=True, slots=True)
class Request:
    """One ask of one image under one fingerprint."""

    id: bytes  # 16 bytes
    task: Task
    ask: Ask
    attempt: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What an engine said to one request, or why it did not."""

    text: str = ""
    error: str = ""  # reason word; empty for an answer
    detail: str = ""
    finish: str = "stop"
    prompt_tokens: int = 0
    cached_tokens: int = 0
    answer_tokens: int = 0


STOPPED = Answer(error="stopped")  # to what was not answered before the run's end: no row, the next run asks it


@dataclass(frozen=True, slots=True)
class Job:
    """All open requests of one image: the unit of work, so that an image is opened once."""

    record: Record
    image: str  # address of the photo
    requests: tuple[Request, ...]


@dataclass(frozen=True, slots=True)
class Identity:
    """What an engine's answers depend on besides the request; part of the fingerprint and of every provenance."""

    engine: str
    engine_version: str = ""
    model: str = ""
    revision: str = ""
    sampling: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """How a started engine spent its time so far, in seconds, and what its pictures cost."""

    running_s: float = 0.0  # at least one chunk of images was given to it
    waiting_s: float = 0.0  # of these: no request was under way, because its pictures were not ready
    image_tokens_predicted: int = 0
    image_tokens: int = 0  # as the engine counted them, where it says so


class Answerer(Protocol):
    """A started engine: what a worker holds. Several threads may call it at once."""

    def answer(self, jobs: Sequence[Job]) -> list[list[Answer]]:
        """One answer per request of each job, in their order. A failure is an Answer with an error, never a raise.

        Who takes long asks `pipelines.stop.stopping` meanwhile, and then gives `STOPPED` to the rest.
        """
        ...

    def usage(self) -> Usage: ...


class Engine(Protocol):
    """A frozen dataclass of settings, with all that a worker needs to start answering."""

    @property
    def deterministic(self) -> bool:
        """The same request always gets the same answer, so it is never asked twice."""
        ...

    def identity(self) -> Identity: ...

    def prompts(self) -> dict[Task, Prompt]:
        """The prompt that this engine uses for each task, unless a recipe names another."""
        ...

    def workers(self) -> Workers | None:
        """The actors that it needs; None where any Ray task can answer."""
        ...

    def start(self) -> Answerer:
        """Load what answers. Called once in each worker process; raises an LlmdetError in one line where it cannot."""
        ...


def fingerprint_of(prompt: Prompt, identity: Identity, seed: int = 0) -> str:
    """The name of the ledger that these answers go to: two that could differ never share one."""
    engine = asdict(identity)
    del engine["engine_version"]  # an update in the middle of a million images does not ask for all of them again
    return fingerprint({"task": prompt.task, "prompt": asdict(prompt), "engine": engine, "seed": seed})  # type: ignore[call-overload]


_WHOLE = View()


def request_id(ledger: str, image_key: str, ask: Ask) -> bytes:
    """Requests are the same when ledger, picture, what is shown of it, rendered text and schema are; the attempt is
    not part of it."""
    digest = hashlib.blake2b(digest_size=16)
    view = () if ask.view == _WHOLE else (orjson.dumps(asdict(ask.view)).decode(),)
    for text in (ledger, image_key, ask.text, ask.schema, *view):
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()


def seed_of(base: int, request: bytes, attempt: int) -> int:
    """A 31-bit sampling seed that another attempt changes and another run does not."""
    data = base.to_bytes(8, "little", signed=True) + request + attempt.to_bytes(4, "little")
    return int.from_bytes(hashlib.blake2b(data, digest_size=4).digest(), "little") >> 1


def image_key(record: Record) -> str:
    """What identifies the picture of a record: its content where it was opened, its path elsewhere."""
    return record.image_sha256 or f"{record.root}/{record.image}"


def provenance_of(prompt: Prompt, identity: Identity) -> Provenance:
    """What a caption says of how it was made."""
    return Provenance(
        origin="template" if identity.engine == "template" else "lmm",
        prompt=f"{prompt.id}@{prompt.version}",
        prompt_hash=prompt_hash(prompt),
        model=identity.model,
        revision=identity.revision,
        engine=identity.engine,
        engine_version=identity.engine_version,
        sampling=orjson.dumps(identity.sampling, option=orjson.OPT_SORT_KEYS).decode() if identity.sampling else "",
    )
