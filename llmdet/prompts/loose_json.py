"""JSON as language models write it: whatever of it can be understood, in order, up to where it breaks off.

Understood beyond the standard: prose around it, several values one after another, single and curly quotes, quotes
inside strings that are not escaped, trailing and missing commas, keys without quotes, Python's None, raw control
characters, ends that were cut. A string that was cut is no value at all: what is returned was complete.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_DEEPEST = 16
_WHITE = re.compile(r"[\s,;]*")
_WORD = re.compile(r"[^,{}\[\]\n\"\u201c\u201d]+")
_FIGURE = re.compile(r"-?\d{1,15}(?:\.\d{1,15})?")
_KEY = re.compile(r"[\w .#-]{1,40}?\s*(?=:)")
_STARTS = re.compile(r"[\[{]")
# A quote ends a string where the text goes on like JSON. At the very end of the text nobody knows: it counts as cut.
_END = re.compile(
    r"\s*(?:[}\]:]|,\s*(?:[\"'\u201c\u2018{}\[\]]|-?\d|null|None|\w+\s*:)|\s[\"'\u201c]\w+[\"'\u201d]\s*:)"
)
_CLOSES = {'"': '"', "'": "'", "\u201c": "\u201d", "\u2018": "\u2019"}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_UNICODE = re.compile(r"[0-9a-fA-F]{4}")


@dataclass(frozen=True, slots=True)
class Listing:
    """The values of a JSON array that were complete."""

    values: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Object:
    """The members of a JSON object that were complete, with doubled keys, in order."""

    members: tuple[tuple[str, object], ...]


class _Cut(Exception):
    """The text ended inside a value."""


def read(text: str) -> list[object]:
    """All arrays and objects of a text that are not inside another one.

    Values are str, float, None, `Listing` and `Object`; true and false are strings.
    """
    found: list[object] = []
    reader = _Reader(text)
    while start := _STARTS.search(text, reader.at):
        reader.at = start.start()
        try:
            found.append(reader.value(0))
        except _Cut:
            break
    return found


class _Reader:
    """Reads one value after another from `at` on."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def value(self, depth: int) -> object:
        opening = self._peek()
        if depth > _DEEPEST:
            raise _Cut
        if opening == "[":
            return self._listing(depth)
        if opening == "{":
            return self._object(depth)
        if opening in _CLOSES:
            return self._string(_CLOSES[opening])
        return self._word()

    def _peek(self) -> str:
        if self.at >= len(self.text):
            raise _Cut
        return self.text[self.at]

    def _skip(self) -> str:
        """Go to the next character that is neither white nor a comma."""
        found = _WHITE.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return self._peek()

    def _listing(self, depth: int) -> Listing:
        values: list[object] = []
        self.at += 1
        try:
            while (char := self._skip()) not in "]}":
                if char == ":":
                    self.at += 1  # a stray colon would be no value for ever
                else:
                    values.append(self.value(depth + 1))
            self.at += self._peek() == "]"  # a "}" closes what is around, too
        except _Cut:
            self.at = len(self.text)
        return Listing(tuple(values))

    def _object(self, depth: int) -> Object:
        members: list[tuple[str, object]] = []
        self.at += 1
        try:
            while self._skip() not in "}]":
                key = self._key(depth)
                if self._skip() != ":":
                    continue
                self.at += 1
                if self._skip() in "}]":
                    break
                members.append((key, self.value(depth + 1)))
            self.at += self._peek() == "}"
        except _Cut:
            self.at = len(self.text)
        return Object(tuple(members))

    def _key(self, depth: int) -> str:
        char = self._peek()
        if char in _CLOSES:
            return self._string(_CLOSES[char])
        if found := _KEY.match(self.text, self.at):
            self.at = found.end()
            return found[0].strip()
        return str(self.value(depth + 1)) if char != ":" else ""

    def _string(self, closes: str) -> str:
        opened = self.text[self.at]
        self.at += 1
        parts: list[str] = []
        while True:
            char = self._peek()
            if char == "\\":
                parts.append(self._escape())
                continue
            self.at += 1
            if char in (closes, opened) and _END.match(self.text, self.at):
                return "".join(parts)
            parts.append(char)

    def _escape(self) -> str:
        self.at += 1
        char = self._peek()
        self.at += 1
        if char != "u":
            return _ESCAPES.get(char, char)
        unit = self._unit()
        if 0xD800 <= unit < 0xDC00 and self.text.startswith("\\u", self.at):
            self.at += 2
            low = self._unit()
            return chr(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00)) if 0xDC00 <= low < 0xE000 else ""
        return "" if 0xD800 <= unit < 0xE000 else chr(unit)

    def _unit(self) -> int:
        found = _UNICODE.match(self.text, self.at)
        if not found:
            return 0x20
        self.at = found.end()
        return int(found[0], 16)

    def _word(self) -> object:
        found = _WORD.match(self.text, self.at)
        if not found:
            self.at += 1
            return None
        self.at = found.end()
        if self.at == len(self.text):
            raise _Cut  # 1 may have been the beginning of 12
        word = found[0].strip()
        if _FIGURE.fullmatch(word):
            return float(word)
        return None if word in ("", "null", "None", "nil") else word
