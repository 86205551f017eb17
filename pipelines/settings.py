"""Plain values to typed settings: a frozen dataclass is a schema, pydantic checks against it."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar, cast, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from llmdet.errors import SettingError

T = TypeVar("T")


def build(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """An instance of a settings dataclass. Raises SettingError, in one line, for an unknown name or a wrong value."""
    known = [f.name for f in fields(kind) if f.init]  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise SettingError(f"{where} has no setting {name!r}; {_hint(name, known)}")
    try:
        value: T = _adapter(cast(Hashable, kind)).validate_python(dict(values))
        return value
    except ValidationError as error:
        raise SettingError(f"{where}: {first_fault(error)}") from None


def _hint(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]}?" if near else f"it has: {', '.join(known)}"


def check_name(name: str, what: str) -> None:
    """Raises SettingError for a name that cannot be that of a folder of the workspace, or would lead out of it."""
    if not name.strip() or name.startswith(".") or any(char in "/\\" or not char.isprintable() for char in name):
        raise SettingError(f"{what} must be a name without slashes that does not start with a dot; got {name!r}")


def first_fault(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """The first thing that pydantic objects to, as one line; with the `model` it knows what was meant."""
    fault = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(step) for step in fault["loc"] if not str(step).startswith(("literal", "function")))
    if fault["type"] == "extra_forbidden":
        section = _section(model, fault["loc"][:-1])
        hint = f"; {_hint(str(fault['loc'][-1]), list(section.model_fields))}" if section else ""
        return f"there is no setting {place}{hint}"
    if fault["type"] in {"missing", "missing_argument"}:
        return f"{place} must be given"
    return f"{place or 'value'}: {fault['msg']}; got {str(fault['input'])[:80]!r}"


def _section(model: type[BaseModel] | None, path: Sequence[str | int]) -> type[BaseModel] | None:
    """The model of a section below another one; steps into lists are numbers."""
    for step in path:
        if model and isinstance(step, str):
            kind = model.model_fields[step].annotation if step in model.model_fields else None
            kinds = (one for one in (kind, *get_args(kind)) if isinstance(one, type) and issubclass(one, BaseModel))
            model = next(kinds, None)
    return model


@cache
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast(Any, kind))
