"""From a record to its requests, and to the newest answers: what caption writes and refine reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from llmdet import files
from llmdet.errors import DamagedError
from llmdet.prompts import PROMPTS
from llmdet.prompts.prompt import Prompt, Task
from llmdet.record import Provenance, Record
from llmdet.workspace import Workspace
from pipelines.engines.engine import Engine, Request, fingerprint_of, image_key, provenance_of, request_id
from pipelines.ledger import Ledger, new_look

TASKS: tuple[Task, ...] = ("image", "region")
UNTOLD = ("environment",)  # fields of engines that may hold a token


def ledgers_of(
    workspace: Workspace, source: str, engine: Engine, tasks: Sequence[Task], seed: int = 0
) -> dict[Task, Ledger]:
    """The ledger of each task under the engine's prompts and settings, and the base seed where it matters."""
    identity, prompts = engine.identity(), engine.prompts()
    seed = 0 if engine.deterministic else seed
    names = {task: fingerprint_of(prompts[task], identity, seed) for task in tasks}
    return {task: Ledger(workspace.responses(source, task, name)) for task, name in names.items()}


@dataclass(frozen=True, slots=True)
class Said:
    """Where the newest answers of a task are, with what is needed to read them."""

    ledger: Ledger
    names: tuple[str, ...]  # files of the ledger at one moment: what is committed later is for the next reader
    prompt: Prompt
    provenance: Provenance
    deterministic: bool
    settings: dict[str, Any] = field(default_factory=dict)  # fields of the engine
    seed: int = 0  # base of all sampling seeds
    look: str = field(default_factory=new_look)


def _latest_url(workspace: Workspace, source: str, task: Task) -> str:
    return workspace.path("responses", source, f"latest-{task}.json")


def point(workspace: Workspace, source: str, engine: Engine, ledgers: dict[Task, Ledger], seed: int = 0) -> None:
    """Say which ledgers hold the newest answers, and who gave them; tasks that were not asked now keep theirs.

    Settings of engines hold no keys, these come from the environment; what may hold one is left out.
    """
    for task, ledger in ledgers.items():
        prompt = engine.prompts()[task]
        value = {
            "ledger": ledger.url.rsplit("/", 1)[-1],
            "prompt": asdict(prompt),  # type: ignore[call-overload]
            "provenance": asdict(provenance_of(prompt, engine.identity())),
            "deterministic": engine.deterministic,
            "settings": {k: v for k, v in asdict(engine).items() if k not in UNTOLD},  # type: ignore[call-overload]
            "seed": seed,
        }
        files.write_json(_latest_url(workspace, source, task), value)


def latest(workspace: Workspace, source: str) -> dict[Task, Said]:
    """The newest answers of each task of a source; empty where nothing was asked."""
    found: dict[Task, Said] = {}
    for task in TASKS:
        url = _latest_url(workspace, source, task)
        if files.exists(url):
            try:
                found[task] = _said(workspace, source, files.read_json(url))
            except (KeyError, TypeError) as error:
                raise DamagedError(
                    f"{url} cannot be used ({error}); remove it and run caption again: nothing is asked twice"
                ) from error
    return found


def _said(workspace: Workspace, source: str, value: dict[str, Any]) -> Said:
    ledger = Ledger(workspace.path("responses", source, value["ledger"]))
    return Said(
        ledger,
        tuple(ledger.names()),
        PROMPTS[value["prompt"]["id"]](**value["prompt"]),
        Provenance(**value["provenance"]),
        value["deterministic"],
        value.get("settings", {}),
        value.get("seed", 0),
    )


def requests_of(record: Record, prompt: Prompt, ledger: Ledger) -> list[Request]:
    """What a prompt asks about a record, first attempt."""
    name = ledger.url.rsplit("-", 1)[-1]
    key = image_key(record)
    return [Request(request_id(name, key, ask), prompt.task, ask) for ask in prompt.render(record)]
