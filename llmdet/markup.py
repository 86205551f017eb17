"""HTML that is safe by construction: whatever is not `Html` is data, and data is escaped.

Control and direction characters of data are shown by name (`U+202E`), so that a caption can neither break the page nor
turn the order of what stands beside it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

# C0 and C1 controls except tab and newline; marks, embeddings and isolates of direction; halves of surrogate pairs.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufff9-\ufffb\ud800-\udfff]"
)


class Html(str):
    """Text that is markup already. Made only by `element`, `text` and `join`, and from literals of this project."""

    __slots__ = ()


def text(value: object) -> Html:
    """Data as markup, for the inside of elements."""
    if isinstance(value, Html):
        return value
    escaped = html.escape(str(value))
    return Html(_CONTROLS.sub(lambda match: f'<span class="control">{_name(match[0])}</span>', escaped))


def attribute(value: object) -> str:
    """Data for the inside of a double-quoted attribute."""
    return html.escape(_CONTROLS.sub(lambda match: _name(match[0]), str(value)))


def element(name: str, /, *children: object, **attributes: object) -> Html:
    """`<name ...>children</name>`. Children that are not Html are escaped.

    `class_` and `for_` are written without the underscore and others with dashes for underscores; an attribute that is
    True is written bare, one that is None or False is left out.
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{attribute(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(children)}</{name}>")


_VOID = frozenset({"meta", "img", "input", "br", "hr", "link"})


def join(parts: Iterable[object], separator: str = "") -> Html:
    """Markup and data, one after the other; None is left out."""
    return Html(text(separator).join(text(part) for part in parts if part is not None))


class Number(str):
    """A cell of a table that is set like a number."""

    __slots__ = ()


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Html:
    """A table that scrolls by itself where the page is narrow. Whole numbers get separators."""
    rows = list(rows)
    body = [element("tr", *(_cell(value) for value in row)) for row in rows]
    first = rows[0] if rows else [""] * len(head)
    names = [
        element("th", name, scope="col", class_="number" if isinstance(value, (int, Number)) else None)
        for name, value in zip(head, first, strict=True)
    ]
    content = element("table", element("thead", element("tr", *names)), element("tbody", *body))
    return element("div", content, class_="scroll", tabindex="0")


def _cell(value: object) -> Html:
    if isinstance(value, int):
        return element("td", f"{value:,}", class_="number")
    return element("td", value, class_="number" if isinstance(value, Number) else None)


def _name(character: str) -> str:
    return f"U+{ord(character):04X}"
