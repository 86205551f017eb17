"""predict as it is typed, with an untrained detector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest
from PIL import Image

from tests.cli.conftest import Typed

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with an untrained detector."""
    from detector import checkpoint
    from detector.config import ModelSettings

    folder = tmp_path_factory.mktemp("tiny")
    checkpoint.write_model(folder, checkpoint.start(ModelSettings(short_side=64, long_side=96), 0))
    return str(folder)


@pytest.fixture
def photo(here: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(here / "photo.jpg")
    return here / "photo.jpg"


def test_a_table_and_a_picture(typed: Typed, tiny: str, photo: Path) -> None:
    shown = ("--checkpoint", tiny, "--cpu", "--threshold", "0", "--top-k", "3")
    done = typed("predict", "photo.jpg", "--text", "dog . cat .", *shown)
    assert done.code == 0, done.err
    rows = [line.split("\u2502")[1:-1] for line in done.out.splitlines() if line.startswith("\u2502 photo.jpg")]
    assert [row[1].strip() for row in rows] == ["1", "2", "3"]
    assert {row[2].strip() for row in rows} <= {"dog", "cat"}
    assert done.out.splitlines()[-2:] == [
        "3 boxes of at least 0 in 1 pictures",
        f"  {photo.parent}/predictions/photo.jpg",
    ]
    with Image.open(photo.parent / "predictions/photo.jpg") as drawn:
        assert drawn.size == (512, 384)  # enlarged, so that labels can be read


def test_a_sentence_as_odvg_and_coco(typed: Typed, tiny: str, photo: Path) -> None:
    words = ("--text", "A dog sees a red cup.", "--mode", "grounding", "--format", "odvg", "--format", "coco")
    done = typed(
        "predict",
        ".",
        *words,
        "--checkpoint",
        tiny,
        "--cpu",
        "--threshold",
        "0",
        "--nms",
        "0.5",
        "--out",
        "out",
        "--json",
    )
    assert done.code == 0, done.err
    (image,) = done.json["images"]
    assert done.json["mode"] == "grounding"
    assert {(phrase, str(spans)) for phrase, spans in zip(image["phrases"], image["spans"], strict=True)} == {
        ("A dog", "[[0, 5]]"),
        ("a red cup", "[[11, 20]]"),
    }
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "coco.json", "coco_results.json", "odvg.jsonl", "predictions.json"
    ]  # fmt: skip
    line = orjson.loads(Path("out/odvg.jsonl").read_bytes())
    assert line["filename"] == "photo.jpg"
    assert {str(region["phrase"]) for region in line["grounding"]["regions"]} == {"A dog", "a red cup"}


def test_an_expression_means_one_box(typed: Typed, tiny: str, photo: Path) -> None:
    words = ("--text", "the dog on the left", "--mode", "referring", "--checkpoint", tiny, "--cpu", "--threshold", "0")
    for protocol in ("llmdet", "mm_grounding_dino"):
        done = typed("predict", "photo.jpg", *words, "--protocol", protocol, "--json")
        assert done.json["images"][0]["phrases"] == ["the dog on the left"]


@pytest.mark.slow
def test_five_thousand_names(typed: Typed, tiny: str, photo: Path) -> None:
    Path("names.txt").write_text("".join(f"cup {number}\n" for number in range(5000)))
    done = typed(
        "predict", "photo.jpg", "--names", "names.txt", "--checkpoint", tiny, "--cpu", "--threshold", "0", "--json"
    )
    assert done.code == 0, done.err
    (image,) = done.json["images"]
    assert len(image["scores"]) == 100
    assert len(set(image["labels"])) > 10


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "either --text"),
        (("--text", "dog", "--names", "names.txt"), "either --text"),
        (("--names", "gone.txt"), "no such file: gone.txt"),
        (("--names", "names.txt"), "at least one name with a letter or digit"),
        (("--names", "names.txt", "--mode", "grounding"), "no --mode and no --spans"),
        (("--text", "dog", "--spans", "0,3"), "spans must be JSON"),
        (("--text", "dog", "--spans", "[[[0, 9]]]"), "is not inside the text"),
        (("--text", "dog", "--mode", "spans"), "mode spans needs spans"),
        (("--text", "running quickly", "--mode", "grounding"), "no noun phrase in"),
        (("--text", "dog", "--format", "xml"), "formats are pictures, coco, odvg; got xml"),
        (("--text", "dog", "--every", "often"), "every must be a number of frames"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_1(
    typed: Typed, photo: Path, tiny: str, words: tuple[str, ...], expected: str
) -> None:
    Path("names.txt").write_text("--\n\n")
    done = typed("predict", "photo.jpg", *words, "--checkpoint", tiny, "--cpu")
    assert done.code == 1
    assert expected in done.error


def test_pictures_that_cannot_be_used_are_named_and_the_others_go_on(typed: Typed, tiny: str, photo: Path) -> None:
    Path("broken.jpg").write_bytes(photo.read_bytes()[:400])
    Image.new("1", (20_000, 20_000)).save("huge.png")
    shown = ("--checkpoint", tiny, "--cpu", "--threshold", "0", "--top-k", "2")
    done = typed("predict", "broken.jpg", "huge.png", "photo.jpg", "--text", "dog", *shown)
    assert done.code == 0
    notes = [line for line in done.err.splitlines() if line.startswith("note: ")]
    assert [line.split(": ")[1] for line in notes] == ["image_unreadable", "image_too_large"]
    assert "2 boxes of at least 0 in 1 pictures" in done.out


def test_captions_of_a_detector_that_never_learned_any(typed: Typed, tiny: str, photo: Path) -> None:
    done = typed("predict", "photo.jpg", "--text", "dog .", "--captions", "--checkpoint", tiny, "--cpu")
    assert done.code == 1
    assert done.err.strip().splitlines()[-1].endswith("train it with captions first")
    assert not (photo.parent / "predictions").exists()
