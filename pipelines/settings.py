"""Plain values to typed settings: a frozen dataclass is a schema, pydantic checks against it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from llmdet.errors import SettingError

T = TypeVar("T")


def build(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """An instance of a settings dataclass. Raises SettingError, in one line, for an unknown name or a wrong value."""
    known = [f.name for f in fields(kind) if f.init]  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"it has: {', '.join(known)}"
            raise SettingError(f"{where} has no setting {name!r}; {hint}")
    try:
        return _adapter(kind).validate_python(dict(values))  # type: ignore[no-any-return]
    except ValidationError as error:
        raise SettingError(f"{where}: {first_fault(error)}") from None


def first_fault(error: ValidationError) -> str:
    """The first thing that pydantic objects to, as one line."""
    fault = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(step) for step in fault["loc"] if not str(step).startswith(("literal", "function")))
    if fault["type"] == "extra_forbidden":
        return f"there is no setting {place}"
    if fault["type"] in {"missing", "missing_argument"}:
        return f"{place} must be given"
    return f"{place or 'value'}: {fault['msg']}; got {str(fault['input'])[:80]!r}"


@lru_cache(maxsize=None)
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
