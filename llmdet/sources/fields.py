"""Values of raw rows, which may hold anything: typed access that ends in a FieldError, never in a traceback.

JSON from the wild has numbers as text, nulls, lists in lists, half surrogate pairs, NaN, and integers that no column
can hold. Each function here returns a value that a Record can carry through Arrow and back, or says what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from llmdet import boxes
from llmdet.boxes import XYXY
from llmdet.files import safe_join
from llmdet.images import inspect
from llmdet.record import Orientation

INT32_MAX = 2**31 - 1


class FieldError(ValueError):
    """Why a row, or one of its annotations, cannot be used: a short word to count by, and what came."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def shown(value: Any, limit: int = 160) -> str:
    """A value for a message: bounded, and storable even where the value is not."""
    try:
        told = repr(value)
    except (RecursionError, ValueError):
        told = f"a {type(value).__name__} too deep or too long to show"
    told = told if len(told) <= limit else told[: limit - 3] + "..."
    return printable(told)


def text(value: Any, what: str) -> str:
    """A text that can be written as UTF-8, which one with half a surrogate pair cannot."""
    if not isinstance(value, str):
        raise FieldError("row_malformed", f"{what} must be a text, got {shown(value)}")
    if not storable(value):
        raise FieldError("text_not_unicode", f"{what} has half a surrogate pair: {shown(value)}")
    return value


def printable(value: str) -> str:
    """A text for an id of a reject: half surrogate pairs, as in odd file names, are spelled out."""
    return value.encode("utf-8", "backslashreplace").decode()


def storable(value: str) -> bool:
    """Whether a text can be written as UTF-8."""
    try:
        return value.isascii() or bool(value.encode())
    except UnicodeEncodeError:
        return False


def texts(value: Any, what: str) -> tuple[str, ...]:
    """A list of texts."""
    if not isinstance(value, list):
        raise FieldError("row_malformed", f"{what} must be a list of texts, got {shown(value)}")
    return tuple(text(item, f"{what}[{index}]") for index, item in enumerate(value))


def number(value: Any, what: str, reason: str = "row_malformed") -> float:
    """A finite number; a truth value or a text of digits is none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            found = float(value)
        except OverflowError:
            found = np.inf
        if np.isfinite(found):
            return found
    raise FieldError(reason, f"{what} must be a finite number, got {shown(value)}")


def whole(value: Any, what: str, low: int = 0, high: int = INT32_MAX) -> int:
    """A whole number of `low` to `high`; `19.0` counts, as parquet columns of floats hold it."""
    found = number(value, what)
    if found != int(found) or not low <= found <= high:
        raise FieldError("row_malformed", f"{what} must be a whole number of {low} to {high}, got {shown(value)}")
    return int(found)


def identity(value: Any, what: str = "id") -> str:
    """An id as text: sources write `"004539375"` as well as `4539375`."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**64:
        return str(value)
    if found := text(value, what):
        return found
    raise FieldError("row_malformed", f"{what} is empty")


def four(value: Any, what: str = "bbox") -> XYXY:
    """Four finite numbers in a list."""
    if not isinstance(value, list | tuple) or len(value) != 4:
        raise FieldError("box_malformed", f"{what} must be a list of four numbers, got {shown(value)}")
    a, b, c, d = (number(v, what, "box_malformed") for v in value)
    return a, b, c, d


def scaled(box: XYXY, width: float, height: float) -> XYXY:
    """A box of 0..1 in pixels."""
    x1, y1, x2, y2 = box
    return x1 * width, y1 * height, x2 * width, y2 * height


def usable(box: XYXY, width: int, height: int) -> XYXY:
    """The box, or a FieldError with the reason of `llmdet.boxes.fault`."""
    reason = boxes.fault(box, width, height)
    if reason:
        raise FieldError(reason, f"box {list(box)} in {width}x{height}")
    return box


def span(value: Any, inside: str, what: str = "tokens_positive") -> tuple[int, int]:
    """Character offsets `[start, end)` of a piece of `inside`; floats that are whole numbers count."""
    if not isinstance(value, list | tuple) or len(value) < 2:
        raise FieldError("span_malformed", f"{what} must be [start, end], got {shown(value)}")
    start, end = (number(v, what, "span_malformed") for v in value[:2])
    if not (0 <= start < end <= len(inside)) or start != int(start) or end != int(end):
        raise FieldError("span_outside_text", f"{what} {shown(value)} in a text of {len(inside)} characters")
    return int(start), int(end)


def size(row: Mapping[str, Any]) -> tuple[int, int]:
    """(width, height) of a row in pixels; (0, 0) where the row has neither, for whoever opens the picture."""
    if row.get("width") is None and row.get("height") is None:
        return 0, 0
    return whole(row.get("width"), "width", 1), whole(row.get("height"), "height", 1)


def picture_size(images: str, relative: str, orientation: Orientation = "stored") -> tuple[int, int]:
    """(width, height) in pixels of a picture, from its header. Raises ImageError."""
    return inspect(safe_join(images, relative), decode=False).size(orientation)


def extra(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a Record keeps beside its own fields; refuses values too deep or too large for JSON."""
    kept = {key: value for key, value in values.items() if value is not None}
    try:
        orjson.dumps(kept)
    except (TypeError, RecursionError, ValueError) as error:
        raise FieldError("row_malformed", f"other fields {sorted(kept)} cannot be stored: {error}") from error
    return kept


def rest(row: Mapping[str, Any], known: Sequence[str]) -> dict[str, Any]:
    """The members of a row that its reader has no use for."""
    return {key: value for key, value in row.items() if key not in known}
