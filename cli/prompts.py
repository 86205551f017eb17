"""prompts: what language models are asked, word for word."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import options
from cli.looking import Kind
from cli.screen import screen

if TYPE_CHECKING:
    from rich.console import RenderableType


def prompts(
    name: Annotated[
        str | None, typer.Argument(help="Only this one, in full.", autocompletion=options.complete_prompt)
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """The prompts by id; one of them in full: what it asks about an example, and its settings."""
    with screen("prompts", None, as_json) as out:
        from llmdet.errors import SettingError
        from llmdet.prompts import PROMPTS

        if name is not None and name not in PROMPTS:
            raise SettingError(f"no prompt {name!r}; there are: {', '.join(sorted(PROMPTS))}")
        found = [_facts(one) for one in sorted(PROMPTS) if name in (None, one)]
        out.result = {"prompts": found}
        out.shown += _in_full(found[0]) if name else [_listed(found)]


def _facts(name: str) -> dict[str, Any]:
    """A prompt with its default settings, and what it asks about the example."""
    from llmdet.prompts import PROMPTS
    from llmdet.prompts.example import EXAMPLE, prompt_hash

    kind = PROMPTS[name]
    prompt = kind()
    return {
        "name": name,
        "version": prompt.version,
        "task": prompt.task,
        "hash": prompt_hash(prompt),
        "engines": _default_of(name),
        **Kind(kind.__doc__ or "", dataclasses.fields(kind)).to_dict(),  # type: ignore[arg-type]
        "asks": [dataclasses.asdict(ask) for ask in prompt.render(EXAMPLE)],
    }


def _default_of(name: str) -> list[str]:
    """The engines that use a prompt unless told otherwise."""
    from pipelines.engines import ENGINES

    found = []
    for engine, kind in ENGINES.items():
        defaults = {field.name: field.default for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
        # An engine with a model cannot say its prompts before the model is known, but which they are stands in fields.
        named = [value for key, value in defaults.items() if key in ("image_prompt", "region_prompt")]
        if name in (named or [prompt.id for prompt in kind().prompts().values()]):
            found.append(engine)
    return found


def _listed(found: list[dict[str, Any]]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table("prompt", "version", "hash", "what it is", "default of")
    for one in found:
        table.add_row(one["name"], one["version"], one["hash"], Text(one["summary"]), ", ".join(one["engines"]))
    return table


def _in_full(one: dict[str, Any]) -> list[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    shown: list[RenderableType] = [
        Text(one["about"]),
        f"version {one['version']}, hash {one['hash']}, default of: {', '.join(one['engines']) or 'no engine'}",
    ]
    for number, ask in enumerate(one["asks"], start=1):
        shown += ["", f"question {number} of {len(one['asks'])} about an example of 640x480 with three boxes:"]
        # As it is: a table or a panel would break the lines of what is sent.
        shown.append(Text(ask["text"], style="cyan"))
        shown += [Text(line) for line in _bounds(ask)]
    table = Table("setting", "type and default")
    for field, value in one["fields"].items():
        table.add_row(field, Text(value))
    return [*shown, "", table]


def _bounds(ask: dict[str, Any]) -> list[str]:
    """What a question shows and allows beyond its text."""
    view, numbers = ask["view"], ask["view"]["numbers"]
    shows = {
        "whole": "",
        "crop": f"shows only {view['boxes']}",
        "mark": f"shows boxes drawn with the numbers {numbers}",
    }
    schema = f"the answer must obey {ask['schema']}" if ask["schema"] else ""
    longest = f"at most {ask['max_tokens']} tokens" if ask["max_tokens"] else ""
    return [line for line in (shows[view["kind"]], schema, longest) if line]
