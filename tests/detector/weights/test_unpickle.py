"""Reading `.pth` files: the tensors as torch reads them, nothing run, and a clear line for what is not read."""

from __future__ import annotations

import builtins
import collections
import io
import os
import pickle
import struct
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detector.weights.unpickle import TorchFile
from llmdet.errors import FormatError, LlmdetError, MissingError


class HistoryBuffer:
    """Stands for mmengine's class of this name: state of any kind, under a module that is not installed."""

    def __init__(self, length: int) -> None:
        self._log_history = np.arange(float(length))
        self._methods = {"mean": HistoryBuffer.mean}

    def mean(self) -> float:
        return float(self._log_history.mean())


HistoryBuffer.__module__ = "mmengine.logging.history_buffer"


def tensors() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    base = torch.randn(6, 4, generator=g)
    return {
        "float": base,
        "half": base.half(),
        "bfloat": base.bfloat16(),
        "double": base.double(),
        "long": torch.arange(5),
        "bytes": torch.arange(7, dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 3),
        "transposed": base.t(),
        "window": base[2:5, 1:3],
        "same": base,
        "parameter": torch.nn.Parameter(base[0].clone()),
    }


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def as_mmengine(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A training checkpoint as mmengine writes it: classes of its own beside the weights."""
    parents = ["mmengine", "mmengine.logging", HistoryBuffer.__module__]
    for name in parents:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules[parents[-1]].HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    state = collections.OrderedDict(tensors())
    state._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    content = {
        "meta": {"epoch": 3, "dataset_meta": {"CLASSES": ("cat", "dog")}, "seen": {1, 2}, "raw": b"\x00\xff"},
        "state_dict": state,
        "message_hub": {"log_scalars": collections.OrderedDict({"train/loss": HistoryBuffer(1000)}), "at": {(1, 2): 3}},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": np.float64(1e-4)}]},
        "ema_state_dict": {"steps": torch.tensor(9), "module.float": tensors()["float"] + 1},
    }
    saved(content, path)
    for name in parents:
        monkeypatch.delitem(sys.modules, name)
    return path


def test_tensors_are_those_that_torch_reads(tmp_path: Path) -> None:
    path = saved(tensors(), tmp_path / "weights.pth")
    expected = torch.load(path, weights_only=True)
    with TorchFile(path) as state:
        assert list(state) == list(expected)
        assert len(state) == len(expected)
        for name, tensor in expected.items():
            assert state[name].dtype == tensor.dtype, name
            assert torch.equal(state[name], tensor), name
            assert state[name].is_contiguous()


def test_a_checkpoint_with_classes_of_mmengine_gives_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = as_mmengine(tmp_path / "epoch_3.pth", monkeypatch)
    with pytest.raises(Exception, match="mmengine"):  # torch's own readers need that package
        torch.load(path, weights_only=False)
    with TorchFile(path) as state:
        assert {name: state[name].tolist() for name in state} == {k: v.tolist() for k, v in tensors().items()}
    with TorchFile(path, "ema_state_dict") as averaged:
        assert list(averaged) == ["float"]
        assert torch.equal(averaged["float"], tensors()["float"] + 1)


def test_a_prefix_of_all_names_is_taken_away_and_of_some_is_not(tmp_path: Path) -> None:
    one = torch.zeros(1)
    with TorchFile(saved({"model": {"module.a": one, "module.b": one}}, tmp_path / "all.pth")) as state:
        assert list(state) == ["a", "b"]
    with TorchFile(saved({"model": {"module.a": one, "b": one}}, tmp_path / "some.pth")) as state:
        assert list(state) == ["module.a", "b"]


# --- files that want to run something -------------------------------------------------------------------------------


class Calls:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.how = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.how

    def __call__(self) -> None:
        """Only what can be called may stand for a function in a pickle."""


def hostile(mark: Path) -> dict[str, Any]:
    touch = f"open({str(mark)!r}, 'w').close()"
    return {
        "os.system": Calls(os.system, f"touch {mark}"),
        "eval": Calls(builtins.eval, touch),
        "exec": Calls(builtins.exec, touch),
        "getattr chain": Calls(Calls(getattr, Calls(__import__, "os"), "system"), f"touch {mark}"),
        "nested": Calls(list, [Calls(collections.OrderedDict, [("a", Calls(builtins.eval, touch))])]),
        "open": Calls(io.open, str(mark), "w"),
    }


def with_pickle(path: Path, data: bytes, extra: dict[str, bytes] | None = None, compression: int = 0) -> Path:
    """A zip as torch.save makes it, around any pickle."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data)
        for name, content in (extra or {}).items():
            archive.writestr(f"archive/{name}", content)
    return path


@pytest.mark.parametrize("kind", list(hostile(Path("mark"))))
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_nothing_that_a_pickle_names_is_called(kind: str, protocol: int, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    attack = hostile(mark)[kind]
    beside = {"meta": attack, "state_dict": {"a": 1}}
    for content in (attack, beside, {"state_dict": attack}):
        path = with_pickle(tmp_path / "bad.pth", pickle.dumps(content, protocol))
        with pytest.raises(FormatError):
            TorchFile(path)
        assert not mark.exists()
    pickle.loads(pickle.dumps(attack, protocol))  # the attack is a real one
    assert mark.exists()


def test_an_attack_beside_good_weights_leaves_the_weights(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = saved({"hooks": list(hostile(mark).values()), "state_dict": tensors()}, tmp_path / "mixed.pth")
    with TorchFile(path) as state:
        assert torch.equal(state["float"], tensors()["float"])
    assert not mark.exists()


def test_an_object_in_place_of_a_weight_is_named(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = saved({"state_dict": {**tensors(), "head.bias": Calls(os.system, f"touch {mark}")}}, tmp_path / "x.pth")
    with pytest.raises(FormatError, match=r"head\.bias of the weights is not an ordinary dense tensor"):
        TorchFile(path)
    assert not mark.exists()


# Opcodes written by hand: what Python's pickler never writes.
TENSOR = (
    b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK%ctQK%c(%st(%st\x89ccollections\nOrderedDict\n)RtRs."
)


def tensor(count: int, offset: int, shape: bytes, stride: bytes) -> bytes:
    return TENSOR % (bytes([count]), bytes([offset]), shape, stride)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (tensor(4, 1, b"K\x04", b"K\x01"), "shape"),
        (tensor(4, 0, b"K\x02K\x03", b"K\x03K\x01"), "shape"),
        (tensor(4, 0, b"K\xffK\xffK\xff", b"K\x00K\x00K\x00"), "shape"),
        (tensor(4, 0, b"J\xff\xff\xff\xff", b"K\x01"), "shape"),
        (tensor(4, 0, b"K\x04" * 65, b"K\x01" * 65), "65 axes"),
        (tensor(4, 0, b"X\x01\x00\x00\x004", b"K\x01"), "shape"),
        (b"\x80\x02}R.", "damaged"),
        (b"\x80\x02Q.", "damaged"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x02(((", "not a pickle"),
        (b"\x80\x02]q\x00" + b"h\x00a" * 1000 + b".", "no dict"),
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.", "no dict|damaged"),
        (b"\x80\x02X\xff\xff\xff\x7fa.", "damaged"),
        (b"", "not a pickle"),
    ],
)
def test_a_pickle_written_to_harm_is_refused(data: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=said):
        TorchFile(with_pickle(tmp_path / "bad.pth", data, {"data/0": bytes(16)}))


def test_the_steps_of_a_pickle_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = with_pickle(tmp_path / "long.pth", b"\x80\x02]" + b"2" * 2000 + b".")
    with pytest.raises(FormatError, match="2001 values"):
        TorchFile(path)
    monkeypatch.setattr("detector.weights.unpickle._MOST_STEPS", 1000)
    with pytest.raises(FormatError, match="more than 1000 steps"):
        TorchFile(path)


def test_a_tensor_written_by_hand_is_read(tmp_path: Path) -> None:
    numbers = struct.pack("<4f", 1, 2, 3, 4)
    with TorchFile(with_pickle(tmp_path / "ok.pth", tensor(4, 1, b"K\x03", b"K\x01"), {"data/0": numbers})) as state:
        assert state["a"].tolist() == [2, 3, 4]


# --- damaged files --------------------------------------------------------------------------------------------------


def test_every_truncation_is_an_error_of_ours(tmp_path: Path) -> None:
    data = saved({"state_dict": tensors()}, tmp_path / "whole.pth").read_bytes()
    for length in (0, 1, 100, len(data) // 2, len(data) - 1):
        cut = tmp_path / f"cut-{length}.pth"
        cut.write_bytes(data[:length])
        with pytest.raises(FormatError, match="no whole zip"):
            TorchFile(cut)


def test_flipped_bytes_are_an_error_of_ours_or_read_the_same(tmp_path: Path) -> None:
    data = bytearray(saved({"state_dict": tensors()}, tmp_path / "whole.pth").read_bytes())
    broken = tmp_path / "flipped.pth"
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.integers(0, len(data), 150):
        changed = bytes(data[:place]) + bytes([data[place] ^ 0x15]) + bytes(data[place + 1 :])
        broken.write_bytes(changed)
        try:
            with TorchFile(broken) as state:
                found = {name: state[name].tolist() for name in state}
            assert found == {name: one.tolist() for name, one in tensors().items()}
        except LlmdetError:
            refused += 1
    assert refused > 20


def test_a_storage_that_is_missing_or_of_another_size_is_named(tmp_path: Path) -> None:
    whole = tensor(4, 0, b"K\x04", b"K\x01")
    with (
        TorchFile(with_pickle(tmp_path / "none.pth", whole)) as state,
        pytest.raises(FormatError, match="no entry data/0"),
    ):
        state["a"]
    short = with_pickle(tmp_path / "short.pth", whole, {"data/0": bytes(12)})
    with TorchFile(short) as state, pytest.raises(FormatError, match="12 bytes, expected 4 numbers"):
        state["a"]


def test_compressed_entries_which_could_be_bombs_are_refused(tmp_path: Path) -> None:
    data = pickle.dumps({"a": "x" * 100_000}, 2)
    with pytest.raises(FormatError, match="compressed"):
        TorchFile(with_pickle(tmp_path / "bomb.pth", data, compression=zipfile.ZIP_DEFLATED))


def test_an_entry_that_claims_more_bytes_than_the_file_is_refused(tmp_path: Path) -> None:
    path = with_pickle(tmp_path / "claim.pth", pickle.dumps({}, 2))
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 20 : at + 28] = struct.pack("<II", 0x7FFFFFFF, 0x7FFFFFFF)
    path.write_bytes(data)
    with pytest.raises(FormatError, match="claims 2147483647 bytes"):
        TorchFile(path)


def test_many_names_for_one_storage_do_not_multiply_it(tmp_path: Path) -> None:
    one = torch.zeros(1000)
    path = saved({f"layer.{index}": one for index in range(100)}, tmp_path / "many.pth")
    with pytest.raises(FormatError, match="more than twice the file"):
        TorchFile(path)


def test_other_formats_are_told_apart(tmp_path: Path) -> None:
    old = tmp_path / "old.pth"
    torch.save({"a": torch.zeros(1)}, old, _use_new_zipfile_serialization=False)
    with pytest.raises(FormatError, match=r"torch before 1\.6"):
        TorchFile(old)
    with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
        archive.writestr("readme.txt", "x")
    with pytest.raises(FormatError, match="not one of torch"):
        TorchFile(tmp_path / "other.pth")
    with pytest.raises(FormatError, match="big-endian"):
        TorchFile(with_pickle(tmp_path / "big.pth", pickle.dumps({}, 2), {"byteorder": b"big"}))
    with pytest.raises(MissingError, match="no file"):
        TorchFile(tmp_path / "absent.pth")


def test_a_file_without_weights_says_what_it_holds(tmp_path: Path) -> None:
    path = saved({"optimizer": {"step": 1}, "epoch": 3}, tmp_path / "x.pth")
    with pytest.raises(
        FormatError, match="no weights under state_dict, model, model_state_dict; it holds: optimizer, epoch"
    ):
        TorchFile(path)
    with pytest.raises(FormatError, match="no weights under ema"):
        TorchFile(saved({"state_dict": tensors()}, tmp_path / "y.pth"), "ema")
