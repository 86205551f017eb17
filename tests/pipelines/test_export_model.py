"""export-model: what is refused before any work, and that nothing is left of a file that does not agree."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from detector import checkpoint, export
from detector.config import quickstart_model
from llmdet.errors import FormatError, SettingError
from pipelines.export_model import export_model, format_of


@pytest.mark.parametrize(
    ("out", "kind", "expected"),
    [("a/b.onnx", None, "onnx"), ("b.onnx", "onnx", "onnx"), ("b.pt2", None, "torch"), ("b.pt2", "torch", "torch")],
)
def test_the_suffix_says_the_format(out, kind, expected):
    assert format_of(out, kind) == expected


@pytest.mark.parametrize(("out", "kind"), [("b", None), ("b.pt2", "onnx"), ("b.onnx", "torch"), ("b.json", None)])
def test_a_suffix_that_does_not_fit_is_refused_with_those_that_do(out, kind):
    with pytest.raises(SettingError, match=r"must end with \.onnx for onnx, \.pt2 for torch"):
        format_of(out, kind)


def test_an_address_is_no_place_for_a_model():
    with pytest.raises(SettingError, match="a folder of this machine"):
        format_of("s3://bucket/b.onnx", None)


@pytest.mark.parametrize(
    ("agreement", "says"),
    [
        (export.Agreement(0.0, float("nan")), r"differs from .* nothing was written"),
        (export.Agreement(1.1e-3, 0.0), r"differs from .* by 0.0011 in a score .* nothing was written"),
        (
            export.Agreement(0.0, 0.0, 2e-4, 2, 30),
            r"chose other cells than .* differ by 0.0002; .* nothing was written",
        ),
    ],
)
def test_a_file_that_does_not_agree_is_not_written(
    agreement: export.Agreement, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    checkpoint.write_model(tmp_path / "tiny", checkpoint.start(quickstart_model(), seed=1))
    monkeypatch.setattr(export, "trace", lambda model: SimpleNamespace())
    monkeypatch.setattr(export, "write", lambda program, path, kind: path.write_bytes(b"other"))
    monkeypatch.setattr(export, "check", lambda *args: agreement)
    with pytest.raises(FormatError, match=says):
        export_model(str(tmp_path / "tiny"), str(tmp_path / "out" / "a.pt2"))
    assert list((tmp_path / "out").iterdir()) == []
