"""A chain is a list of rules, checked before anything runs; a rule that raises costs one row, not the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from llmdet.errors import SettingError
from llmdet.record import Record
from llmdet.rules.checks import (
    CheckColours,
    CheckCounts,
    CheckMentions,
    CheckObjects,
    CheckPositions,
    CheckRegionNouns,
)
from llmdet.rules.debris import CleanDebris
from llmdet.rules.language import RequireEnglish
from llmdet.rules.length import LimitLength, RequireLength
from llmdet.rules.links import LinkPhrases
from llmdet.rules.outcome import Drop, Kept, Loss, Outcome, Retry
from llmdet.rules.refusal import RejectRefusal
from llmdet.rules.repetition import RejectRepetition
from llmdet.rules.speculation import RemoveSpeculation
from llmdet.rules.truncation import RequireEnd

Rule = Callable[[Record], Outcome]

# What recipes call the rules.
RULES: dict[str, type] = {
    "limit_length": LimitLength,
    "debris": CleanDebris,
    "refusal": RejectRefusal,
    "language": RequireEnglish,
    "repetition": RejectRepetition,
    "truncation": RequireEnd,
    "speculation": RemoveSpeculation,
    "length": RequireLength,
    "links": LinkPhrases,
    "objects": CheckObjects,
    "counts": CheckCounts,
    "positions": CheckPositions,
    "mentions": CheckMentions,
    "region_nouns": CheckRegionNouns,
    "colours": CheckColours,
}
DEFAULT_CHAIN: tuple[Rule, ...] = (
    LimitLength(),
    CleanDebris(),
    RejectRefusal(),
    RequireEnglish(),
    RejectRepetition(),
    RequireEnd(),
    RemoveSpeculation(),
    RequireLength(),
)


def build_chain(settings: Mapping[str, Mapping[str, Any] | None]) -> tuple[Rule, ...]:
    """Rules from `{name: {field: value}}`, in the order given.

    Raises SettingError for a name, field or value that is not known, and for an order that cannot work.
    """
    from pydantic import TypeAdapter, ValidationError

    rules: list[Rule] = []
    for name, values in settings.items():
        kind = RULES.get(name)
        if kind is None:
            raise SettingError(f"there is no rule {name!r}; rules: {', '.join(RULES)}")
        known = {field.name for field in fields(kind)}
        if unknown := set(values or {}) - known:
            raise SettingError(f"rule {name} has no setting {sorted(unknown)}; settings: {', '.join(sorted(known))}")
        try:
            rules.append(TypeAdapter(kind).validate_python(dict(values or {})))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise SettingError(f"rule {name}: {where}: {first['msg']}; got {first['input']!r}") from error
    check_chain(rules)
    return tuple(rules)


def check_chain(rules: Sequence[Rule]) -> None:
    """Raise SettingError for what is not a rule, and for a rule that stands before one that it builds on."""
    names = [type(rule).__name__ for rule in rules]
    for place, rule in enumerate(rules):
        if isinstance(rule, type) or not callable(rule):
            raise SettingError(f"a chain holds rule instances such as RequireLength(); got {rule!r} at place {place}")
        late = [name for name in getattr(rule, "after", ()) if name in names[place + 1 :] and name not in names[:place]]
        if late:
            raise SettingError(f"{names[place]} must come after {', '.join(late)}: move it down the chain")


def with_images(rules: Sequence[Rule], images: str) -> tuple[Rule, ...]:
    """The rules with the address of a source's photos, where they look at pixels."""
    return tuple([rule.with_images(images) if hasattr(rule, "with_images") else rule for rule in rules])


def run_chain(rules: Sequence[Rule], record: Record) -> tuple[Record | None, list[Loss]]:
    """The record after all rules, or None where it is lost, with everything that was taken out on the way.

    Captions that a rule takes out are gone from the record; its boxes stay. Check the chain once with `check_chain`.
    """
    losses: list[Loss] = []
    current = record
    for rule in rules:
        name = type(rule).__name__
        try:
            outcome = rule(current)
        except Exception as error:
            fault = Drop("rule_raised", f"{type(error).__name__}: {error}"[:300])
            return None, [*losses, Loss(record.id, "record", fault, name, "fault")]
        if isinstance(outcome, Drop | Retry):
            return None, [*losses, Loss(record.id, "record", outcome, name)]
        if isinstance(outcome, Kept):
            losses.extend(replace(loss, rule=name) for loss in outcome.losses)
            outcome = outcome.record
        current = outcome
    return current, losses
