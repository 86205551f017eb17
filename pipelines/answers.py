"""From a record to its requests, and to the newest answers: what caption writes and refine reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from llmdet import files
from llmdet.prompts import PROMPTS
from llmdet.prompts.prompt import Prompt, Task
from llmdet.record import Provenance, Record
from llmdet.workspace import Workspace
from pipelines.engines.engine import Engine, Request, fingerprint_of, image_key, provenance_of, request_id
from pipelines.ledger import Ledger

TASKS: tuple[Task, ...] = ("image", "region")


def ledgers_of(workspace: Workspace, source: str, engine: Engine, tasks: Sequence[Task]) -> dict[Task, Ledger]:
    """The ledger of each task under the engine's prompts and settings."""
    identity, prompts = engine.identity(), engine.prompts()
    return {task: Ledger(workspace.responses(source, task, fingerprint_of(prompts[task], identity))) for task in tasks}


@dataclass(frozen=True, slots=True)
class Said:
    """Where the newest answers of a task are, with what is needed to read them."""

    ledger: Ledger
    names: tuple[str, ...]  # files of the ledger at one moment: what is committed later is for the next reader
    prompt: Prompt
    provenance: Provenance
    deterministic: bool


def _latest_url(workspace: Workspace, source: str, task: Task) -> str:
    return workspace.path("responses", source, f"latest-{task}.json")


def point(workspace: Workspace, source: str, engine: Engine, ledgers: dict[Task, Ledger]) -> None:
    """Say which ledgers hold the newest answers; tasks that were not asked now keep theirs."""
    for task, ledger in ledgers.items():
        prompt = engine.prompts()[task]
        value = {
            "ledger": ledger.url.rsplit("/", 1)[-1],
            "prompt": asdict(prompt),  # type: ignore[call-overload]
            "provenance": asdict(provenance_of(prompt, engine.identity())),
            "deterministic": engine.deterministic,
        }
        files.write_json(_latest_url(workspace, source, task), value)


def latest(workspace: Workspace, source: str) -> dict[Task, Said]:
    """The newest answers of each task of a source; empty where nothing was asked."""
    found: dict[Task, Said] = {}
    for task in TASKS:
        url = _latest_url(workspace, source, task)
        if files.exists(url):
            value = files.read_json(url)
            ledger = Ledger(workspace.path("responses", source, value["ledger"]))
            prompt = PROMPTS[value["prompt"]["id"]](**value["prompt"])
            provenance = Provenance(**value["provenance"])
            found[task] = Said(ledger, tuple(ledger.names()), prompt, provenance, value["deterministic"])
    return found


def requests_of(record: Record, prompt: Prompt, ledger: Ledger) -> list[Request]:
    """What a prompt asks about a record, first attempt."""
    name = ledger.url.rsplit("-", 1)[-1]
    key = image_key(record)
    return [Request(request_id(name, key, ask), prompt.task, ask) for ask in prompt.render(record)]
