"""Pickles read as data: lists, dicts, tuples, texts, numbers, true, false and none, and nothing else.

Python's unpickler calls whatever a file names, so a downloaded pickle can run any program. This reader knows no
operation that looks up a name, builds an object or calls anything: a file that contains one is refused with its place.
`pickletools`, of the standard library, says how arguments are written; it runs nothing either.
"""

from __future__ import annotations

import codecs
import io
import pickletools
from collections.abc import Callable, Iterator
from typing import Any

from llmdet.errors import FormatError
from llmdet.files import read_bytes

_CODES = {operation.code.encode("latin-1"): operation for operation in pickletools.opcodes}
_MARK = object()
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
}
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
_BYTE_TEXTS = {"BINSTRING", "SHORT_BINSTRING"}  # what Python 2 wrote as str
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read_plain_pickle(url: str) -> Any:
    """The value in a pickle file. Raises FormatError for one that holds more than plain values; MissingError."""
    return parse(read_bytes(url), url)


def parse(data: bytes, url: str = "the pickle", machine: Machine | None = None) -> Any:
    """The value in the bytes of a pickle, of any protocol. Raises FormatError as `read_plain_pickle` does.

    A `machine` of one's own may know more operations than plain values need.
    """
    file = io.BytesIO(data)
    machine = machine or Machine()
    while True:
        place = file.tell()
        code = file.read(1)
        operation = _CODES.get(code)
        if operation is None:
            raise FormatError(f"{url} is not a pickle: byte {place} is {code!r}")
        try:
            if operation.name == "STRING":
                machine.step("TEXT", _quoted(file.readline()))
            elif operation.name == "STOP":
                return machine.result()
            else:
                machine.step(operation.name, operation.arg.reader(file) if operation.arg else None)
        except FormatError as error:
            raise FormatError(f"{url}, byte {place}: {error}") from error
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, EOFError, RecursionError) as error:
            raise FormatError(f"{url} is a damaged pickle at byte {place} ({operation.name}): {error}") from error


class Machine:
    """The stack and the memory that a pickle's operations work on."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memory[len(self.memory) if name == "MEMOIZE" else argument] = self.top()
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memory[argument])
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in _VALUES or name == "TEXT":
            stack.append(_unicode(argument) if isinstance(argument, str) else argument)
        elif name in _BYTE_TEXTS:
            stack.append(_text(argument.encode("latin-1")))
        elif name in ("APPENDS", "SETITEMS", "LIST", "TUPLE", "DICT"):
            self._since_mark(name, self.pop_to_mark())
        elif name == "APPEND":
            value = self.pop()
            _expect(stack[-1], list).append(value)
        elif name == "SETITEM":
            value, key = self.pop(), self.pop()
            _expect(stack[-1], dict)[_key(key)] = value
        elif name in _TUPLES:
            stack.append(tuple([self.pop() for _ in range(_TUPLES[name])][::-1]))
        elif name == "POP":
            stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise FormatError(
                f"the operation {name} does more than make lists, dicts, texts and numbers; such a file can run any "
                "program and is not read. Export it as json where it comes from"
            )

    def _since_mark(self, name: str, values: list[Any]) -> None:
        if name == "APPENDS":
            _expect(self.stack[-1], list).extend(values)
        elif name == "SETITEMS":
            _expect(self.stack[-1], dict).update(_pairs(values))
        else:
            build: dict[str, Callable[[], Any]] = {
                "LIST": lambda: values,
                "TUPLE": lambda: tuple(values),
                "DICT": lambda: dict(_pairs(values)),
            }
            self.stack.append(build[name]())

    def pop_to_mark(self) -> list[Any]:
        values: list[Any] = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def top(self) -> Any:
        if self.stack[-1] is _MARK:
            raise ValueError("a mark where a value belongs")
        return self.stack[-1]

    def pop(self) -> Any:
        value = self.top()
        self.stack.pop()
        return value

    def result(self) -> Any:
        if len(self.stack) != 1:
            raise ValueError(f"{len(self.stack)} values at the end, expected one")
        return self.top()


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"expected a {kind.__name__} on the stack, found {type(value).__name__}")
    return value


def _pairs(values: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Keys and values that follow each other."""
    return zip(map(_key, values[::2]), values[1::2], strict=True)


def _key(value: Any) -> Any:
    """A key that is a text or a number: a tuple of tuples, nested by reference, would be hashed for ever."""
    if not isinstance(value, str | int | float | None):
        raise ValueError(f"a key must be a text or a number, found a {type(value).__name__}")
    return value


def _quoted(line: bytes) -> str:
    """The text of a protocol 0 string, which is written as Python 2 would print it."""
    body = line.rstrip(b"\n")
    if len(body) < 2 or body[:1] != body[-1:] or body[:1] not in (b"'", b'"'):
        raise ValueError("a string without quotes")
    return _text(codecs.escape_decode(body[1:-1])[0])


def _unicode(text: str) -> str:
    """The text itself, unless it has half of a surrogate pair: pickles allow it, files and tables do not."""
    if not text.isascii():
        text.encode()
    return text


def _text(data: bytes) -> str:
    """Python 2 wrote bytes: UTF-8 where they are, Latin-1 otherwise."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")
