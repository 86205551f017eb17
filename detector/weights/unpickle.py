"""The tensors of a `.pth` file, without Python's unpickler.

`torch.save` writes a zip: `NAME/data.pkl` says what there is, `NAME/data/0`, `NAME/data/1`, ... are the numbers, stored
as they are. Python's unpickler imports and calls whatever the first one names. This reader looks nothing up: the name
of a class or function stays a name, five of them (see `_CALLS`) say how a tensor or a dict is put together, and what
any other would have built, such as mmengine's HistoryBuffer, is an `Inert` that holds nothing.

Sizes come from the file's own length: an entry that is compressed is refused, a tensor never reaches outside its
storage, and the steps of the pickle are counted, so that a small file cannot fill the memory.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmdet.errors import FormatError, MissingError
from llmdet.plain_pickle import Machine, parse

# Where trainers keep the weights, in the order in which they are looked for; a file can also be the weights alone.
PARTS = ("state_dict", "model", "model_state_dict")
_MOST_STEPS = 5_000_000  # of the pickle; each keeps at most some 200 bytes, and 1,000 tensors take 50,000
_MOST_AXES = 64
_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True, slots=True)
class Inert:
    """What a name would have built that is not known here: nothing."""


@dataclass(frozen=True, slots=True)
class Name:
    """A class or function that the file names. It stays a name."""

    module: str
    name: str


@dataclass(frozen=True, slots=True)
class Storage:
    """Numbers of one type in the entry `data/KEY`."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True, slots=True)
class View:
    """A tensor as the pickle describes it: a window on a storage, in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    def check(self) -> None:
        """Raise ValueError for a window that reaches outside its storage, or that is larger."""
        numbers = (self.storage.count, self.offset, *self.shape, *self.stride)
        if len(self.shape) != len(self.stride) or not all(type(one) is int and one >= 0 for one in numbers):
            raise ValueError(f"a tensor of shape {self.shape} and stride {self.stride}")
        last = self.offset + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        if self.count and (last >= self.storage.count or self.count > self.storage.count):
            raise ValueError(f"a tensor of shape {self.shape} in a storage of {self.storage.count} numbers")


class TorchFile(Mapping[str, Tensor]):
    """The weights in a `.pth` file by name; each is read from the disk when it is asked for.

        with TorchFile("llmdet.pth") as state:
            state["level_embed"]

    `part` names the entry that holds the weights; without it the usual ones are tried. A prefix `module.` of all names,
    which wrappers for several GPUs leave, is taken away.
    Raises MissingError where there is no file, FormatError for one that is not a zip of torch, is cut short, or holds
    no weights.
    """

    def __init__(self, path: str | Path, part: str | None = None) -> None:
        self.path = Path(path)
        self._zip = _opened(self.path)
        try:
            self._root = self._find_root()
            self._last: tuple[str, Tensor] | None = None  # storages can be shared by tensors that follow each other
            content = parse(self._entry("data.pkl", self._root), f"{path}: data.pkl", _TorchMachine())
            self.views = _views(content, part, self.path)
        except BaseException:
            self.close()
            raise

    def __getitem__(self, name: str) -> Tensor:
        view = self.views[name]
        if not view.count:
            return torch.empty(view.shape, dtype=view.storage.dtype)
        numbers = self._storage(view.storage)
        window = numbers.view(view.storage.dtype).as_strided(view.shape, view.stride, view.offset)
        return window.clone(memory_format=torch.contiguous_format)

    def __iter__(self) -> Iterator[str]:
        return iter(self.views)

    def __len__(self) -> int:
        return len(self.views)

    def __enter__(self) -> TorchFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._zip.close()

    def _find_root(self) -> str:
        """The folder inside the zip, with a slash at its end."""
        roots = [name.removesuffix("data.pkl") for name in self._zip.namelist() if name.count("/") == 1]
        roots = [root for root in roots if root.endswith("/") and root + "data.pkl" in self._zip.NameToInfo]
        if len(roots) != 1:
            raise FormatError(f"{self.path} is a zip, but not one of torch.save: it has no NAME/data.pkl")
        if self._zip.NameToInfo.get(f"{roots[0]}byteorder") and self._entry("byteorder", roots[0]) != b"little":
            raise FormatError(f"{self.path} was written on a big-endian machine; write it again on a little-endian one")
        return roots[0]

    def _storage(self, storage: Storage) -> Tensor:
        """The bytes of a storage, (n,) uint8."""
        if self._last is None or self._last[0] != storage.key:
            data = self._entry(f"data/{storage.key}", self._root)
            self._last = storage.key, torch.frombuffer(bytearray(data), dtype=torch.uint8)
        found = self._last[1]
        if len(found) != storage.count * storage.dtype.itemsize:
            raise FormatError(
                f"{self.path}: storage {storage.key} has {len(found)} bytes, "
                f"expected {storage.count} numbers of {storage.dtype}; the file is damaged"
            )
        return found

    def _entry(self, name: str, root: str) -> bytes:
        """The bytes of an entry, whose check sum is checked."""
        info = self._zip.NameToInfo.get(root + name)
        if info is None:
            raise FormatError(f"{self.path} has no entry {name}; the file is damaged")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise FormatError(f"{self.path}: {name} is compressed, which torch.save never does; it is not read")
        if info.file_size > self.path.stat().st_size:
            raise FormatError(f"{self.path}: {name} claims {info.file_size} bytes, more than the file has")
        try:
            return self._zip.read(info)
        except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, NotImplementedError) as error:
            raise FormatError(f"{self.path}: {name} cannot be read ({error}); the file is damaged") from error


def _opened(path: Path) -> zipfile.ZipFile:
    if not path.is_file():
        raise MissingError(f"no file {path}; expected the .pth of a checkpoint")
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        head = path.open("rb").read(2)
        why = f"it is no whole zip ({error}); fetch it again"
        if head[:1] == b"\x80":
            why = (
                "it is in the format of torch before 1.6, which is not read; where you trust it, "
                "torch.save(torch.load(...)) of a newer torch writes it anew"
            )
        raise FormatError(f"{path} is not a checkpoint that can be read: {why}") from error


def _views(content: Any, part: str | None, path: Path) -> dict[str, View]:
    """Names and windows of the weights."""
    state = {name: value for name, value in _state(content, part, path).items() if name != "steps"}  # mmengine's EMA
    strange = [str(name) for name, value in state.items() if not isinstance(value, View) or not isinstance(name, str)]
    if strange:
        raise FormatError(f"{path}: {', '.join(strange[:5])} of the weights is not an ordinary dense tensor")
    total = sum(view.count * view.storage.dtype.itemsize for view in state.values())
    if total > 2 * path.stat().st_size:  # some tensors of a model are the same one
        raise FormatError(f"{path}: its tensors would fill {total} bytes, more than twice the file; it is not read")
    wrapped = all(name.startswith("module.") for name in state)
    return {name.removeprefix("module.") if wrapped else name: view for name, view in state.items()}


def _state(content: Any, part: str | None, path: Path) -> dict[Any, Any]:
    """The dict that holds the weights."""
    if not isinstance(content, dict):
        raise FormatError(f"{path} holds no dict of weights")
    if part is None and any(isinstance(value, View) for value in content.values()):
        return content
    for name in (part,) if part else PARTS:
        found = content.get(name)
        if isinstance(found, dict) and any(isinstance(value, View) for value in found.values()):
            return found
    there = ", ".join(str(name) for name in list(content)[:10] if isinstance(name, str))
    raise FormatError(f"{path} holds no weights under {part or ', '.join(PARTS)}; it holds: {there or 'nothing'}")


# --- the pickle -----------------------------------------------------------------------------------------------------


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> View | Inert:
    if not isinstance(storage, Storage):
        return Inert()
    if max(len(shape), len(stride)) > _MOST_AXES:
        raise ValueError(f"a tensor of {len(shape)} axes")
    view = View(storage, offset, tuple(shape), tuple(stride))
    view.check()
    return view


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _ordered(*given: Any) -> dict[Any, Any] | Inert:
    return Inert() if given else {}  # Python 3 fills it afterwards


def _typed(function: Any, _: Any, arguments: Any, *__: Any) -> Any:
    return _call(function, arguments)


_CALLS: dict[Name, Callable[..., Any]] = {
    Name("collections", "OrderedDict"): _ordered,
    Name("torch._utils", "_rebuild_tensor"): _tensor,
    Name("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Name("torch._utils", "_rebuild_parameter"): _parameter,
    Name("torch._tensor", "_rebuild_from_type_v2"): _typed,
}


def _call(function: Any, arguments: Any) -> Any:
    """What a call in the pickle stands for: one of ours by its name, else nothing."""
    ours = _CALLS.get(function) if isinstance(function, Name) else None
    return ours(*arguments) if ours and isinstance(arguments, tuple) and len(arguments) < 16 else Inert()


class _TorchMachine(Machine):
    """Plain values, tensors as `View`, and `Inert` for anything else that a pickle can build."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def step(self, name: str, argument: Any) -> None:
        self.steps += 1
        if self.steps > _MOST_STEPS:
            raise FormatError(f"more than {_MOST_STEPS} steps, which no file of weights needs")
        own = _OPERATIONS.get(name)
        if own is None:
            super().step(name, argument)
        else:
            own(self, argument)

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def fill_list(self, values: list[Any]) -> None:
        if isinstance(target := self.top(), list):
            target.extend(values)

    def fill_dict(self, values: list[Any]) -> None:
        if isinstance(target := self.top(), dict):
            target.update(_plain_pairs(values))

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        self.push(_call(function, arguments))

    def name_from_stack(self) -> None:
        name, module = self.pop(), self.pop()
        self.push(Name(module, name) if isinstance(module, str) and isinstance(name, str) else Inert())

    def persistent(self) -> None:
        """("storage", type, key, device, count) is where a tensor's numbers are."""
        match self.pop():
            case ("storage", Name(module="torch", name=kind), str(key), _, int(count)) if kind in _DTYPES:
                self.push(Storage(key, _DTYPES[kind], count))
            case _:
                self.push(Inert())

    def forget(self, count: int) -> None:
        """Take `count` values and leave an `Inert`: what a class would have been built from."""
        for _ in range(count):
            self.pop()
        self.push(Inert())

    def forget_to_mark(self) -> None:
        self.pop_to_mark()
        self.push(Inert())


_OPERATIONS: dict[str, Callable[[_TorchMachine, Any], object]] = {
    "GLOBAL": lambda machine, text: machine.push(Name(*text.split(" ", 1))),
    "STACK_GLOBAL": lambda machine, _: machine.name_from_stack(),
    "REDUCE": lambda machine, _: machine.call(),
    "NEWOBJ": lambda machine, _: machine.call(),
    "NEWOBJ_EX": lambda machine, _: machine.forget(3),
    "BUILD": lambda machine, _: machine.pop(),  # attributes of an object that is none here
    "INST": lambda machine, _: machine.forget_to_mark(),
    "OBJ": lambda machine, _: machine.forget_to_mark(),
    "BINPERSID": lambda machine, _: machine.persistent(),
    "PERSID": lambda machine, _: machine.push(Inert()),
    "APPEND": lambda machine, _: machine.fill_list([machine.pop()]),
    "APPENDS": lambda machine, _: machine.fill_list(machine.pop_to_mark()),
    "SETITEM": lambda machine, _: machine.fill_dict([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.fill_dict(machine.pop_to_mark()),
    "DICT": lambda machine, _: machine.push(dict(_plain_pairs(machine.pop_to_mark()))),
    "EMPTY_SET": lambda machine, _: machine.push(Inert()),
    "ADDITEMS": lambda machine, _: machine.pop_to_mark(),
    "FROZENSET": lambda machine, _: machine.forget_to_mark(),
    "DUP": lambda machine, _: machine.push(machine.top()),
    "POP_MARK": lambda machine, _: machine.pop_to_mark(),
    **dict.fromkeys(
        ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), lambda machine, _: machine.push(Inert())
    ),
}


def _plain_pairs(values: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Keys and values that follow each other. A key that is not a text or number is left out with its value: hashing
    tuples that share their parts could take for ever."""
    for key, value in zip(values[::2], values[1::2], strict=True):
        if isinstance(key, str | int | float | None):
            yield key, value
