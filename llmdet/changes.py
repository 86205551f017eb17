"""What rules did to a text: its words before and after, side by side in one line."""

from __future__ import annotations

import difflib
import re

from llmdet.markup import Html, element, join, text

LONGEST = 6000  # characters of a text that a page shows
_MOST_WORDS = 800  # that are compared: the work grows with their square


def changes(before: str, after: str) -> Html:
    """The text before with what was taken out struck, and what was put in marked; plain where it is too long."""
    if max(len(before), len(after)) > LONGEST:
        return shown(before)
    old, new = (re.findall(r"\s+|[^\s]+", words) for words in (before, after))
    if max(len(old), len(new)) > 2 * _MOST_WORDS:
        return shown(before)
    parts: list[Html] = []
    for what, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if what == "equal":
            parts.append(text("".join(old[a:b])))
            continue
        parts += [element("del", "".join(old[a:b]))] if b > a else []
        parts += [element("ins", "".join(new[c:d]))] if d > c else []
    return join(parts)


def removed_words(before: str, after: str) -> int:
    """How many words fewer a text has."""
    return max(0, len(before.split()) - len(after.split()))


def shown(words: str) -> Html:
    """A text, cut where it is too long for a page."""
    return join([words[:LONGEST], more(words)])


def more(words: str) -> Html | None:
    """What stands in the place of the rest of a text that is too long for a page."""
    rest = len(words) - LONGEST
    return element("span", f" ... and {rest:,} more characters", class_="quiet") if rest > 0 else None
