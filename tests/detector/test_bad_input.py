"""What may be wrong with the input of training: a clear line each, and training goes on where it can."""

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from detector.captions import tiny
from detector.captions.start import texts_of
from detector.config import ModelSettings
from detector.data import NOISED, TrainData
from detector.train import StepReport, TrainResult, train
from llmdet.errors import FormatError, LlmdetError, MissingError, SettingError
from llmdet.record import Box, Caption, Record, Region, to_batch
from llmdet.workspace import to_parquet
from tests.detector import example_run
from tests.detector.captions.example_llm import tokenizer
from tests.detector.captions.test_training import settings as spoken
from tests.detector.example_run import MODEL, settings

BOX = Box((10.0, 10.0, 60.0, 60.0))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("llm") / "model"
    quick = tiny.TinySettings(layers=1, hidden=32, vocabulary=300, steps=1, batch=2)
    tiny.write(folder, *texts_of(example_run.records(4)), quick)
    return str(folder)


def data_of(folder: Path, change: Callable[[list[Record]], list[Record]] = list) -> TrainData:
    """Four records of scenes, changed, with their photos."""
    folder.mkdir(exist_ok=True)
    given = example_run.data(folder, 4)
    for part in Path(given.records).iterdir():
        part.unlink()
    rows = to_batch(change(example_run.records(4)))
    (Path(given.records) / "part-00000.parquet").write_bytes(to_parquet(rows))
    return given


def said(caplog: pytest.LogCaptureFixture) -> set[str]:
    lines = {entry.getMessage() for entry in caplog.records if entry.levelno >= logging.WARNING}
    assert not [line for line in lines if "\n" in line]
    return lines


def photo(data: TrainData, number: int) -> Path:
    return Path(data.roots["w"]) / f"images/{number:012d}.jpg"


# --- It is named, and training goes on -----------------------------------------------------------------------------


def odd(rows: list[Record]) -> list[Record]:
    """One with 400 boxes, one with a text of thousands of tokens, one without boxes; none but one has a caption."""
    many = replace(rows[0], text="red circle. ", regions=(Region(("red circle",), ((0, 10),), (BOX,) * 400),))
    text = "".join(f"a red circle near a blue square {n}. " for n in range(300))
    spans = [(at, at + 12) for at in range(len(text)) if text.startswith("a red circle", at)]
    regions = tuple(Region(("a red circle",), (span,), (BOX,)) for span in spans)
    long = replace(rows[1], kind="grounding", text=text, regions=regions, captions=(Caption("A red circle. " * 700),))
    said_once = replace(rows[2], kind="grounding", text=text, regions=regions[:1], negatives=())
    return [many, long, said_once, rows[3]]


def test_odd_records_are_named_and_learned_from(llm: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    result = train(spoken(1, llm, batch_size=4), MODEL, data_of(tmp_path / "w", odd), tmp_path / "out")
    assert len(result.losses) == 1
    assert all(0 < loss < 10_000 for loss in result.losses)
    lines = said(caplog)
    assert "w/0/0 has 400 boxes, more than the 30 queries of the model" in lines
    assert "w/3/0 and maybe others have no box: they teach what is absent only" in lines
    assert any("have no image caption: they take no part in that loss" in line for line in lines)
    assert any(line.startswith("w/1/0: ") and "of 300 boxes are left out of a sample" in line for line in lines)
    assert (
        "w/2/0: the text is longer than the model reads, so a sample has some of its sentences" in lines
    )  # its one box stays


@pytest.mark.slow
def test_records_with_neither_boxes_nor_captions_teach_what_is_absent(
    llm: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bare = data_of(tmp_path / "w", lambda rows: [replace(row, regions=(), captions=()) for row in rows])
    result = train(spoken(2, llm), MODEL, bare, tmp_path / "out")
    assert len(result.losses) == 2
    assert len(said(caplog)) == 2  # no box, no caption: once each, whatever the number of records


def test_noised_queries_of_many_boxes_stay_within_a_bound(tmp_path: Path) -> None:
    from tests.detector.test_data import batches_of, dataset

    plan = settings(1, batch_size=4)
    (batch,) = batches_of(dataset(data_of(tmp_path / "w", odd)), plan)
    assert max(batch.targets.counts) == 400
    assert batch.noise is not None
    assert batch.noise.boxes_BD4.shape[1] <= NOISED


@pytest.mark.parametrize("readers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_photos_that_go_while_training_runs_are_passed_over(
    readers: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = data_of(tmp_path / "w")

    def lose(report: StepReport) -> None:
        if report.step == 1:
            photo(data, 2).unlink()
            photo(data, 3).write_bytes(photo(data, 3).read_bytes()[:400])

    steps = 5 + 4 * readers  # a reader is some steps ahead
    assert len(train(settings(steps, readers=readers), MODEL, data, tmp_path / "out", on_step=lose).losses) == steps
    lines = {line for line in said(caplog) if "photo" in line}
    assert len(lines) == 2
    assert any(line.startswith("photo skipped in training: w/1/0: image_missing: ") for line in lines)
    assert any(line.startswith("photo skipped in training: w/2/0: image_unreadable: ") for line in lines)


# --- It stops training, with one line ------------------------------------------------------------------------------


@pytest.mark.parametrize("readers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_folder_of_photos_that_goes_while_training_runs_is_one_line(readers: int, tmp_path: Path) -> None:
    data = data_of(tmp_path / "w")

    def lose(report: StepReport) -> None:
        if report.step == 1:
            shutil.rmtree(photo(data, 1).parent)

    plan = settings(16, readers=readers, checkpoint_every=1)
    with pytest.raises(MissingError, match=r"^4 photos in a row cannot be used; photo skipped in training: ") as raised:
        train(plan, MODEL, data, tmp_path / "out", on_step=lose)
    assert "\n" not in str(raised.value)
    assert list((tmp_path / "out").glob("step-*"))  # the same command goes on from here


def run_of(data: TrainData, out: Path) -> TrainResult:
    return train(settings(1), MODEL, data, out)


@pytest.mark.slow
def test_a_model_whose_weights_are_not_those_of_its_configuration_is_one_line(tmp_path: Path) -> None:
    data = data_of(tmp_path / "w")
    run_of(data, tmp_path / "first")
    place = tmp_path / "first" / "config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"num_queries": 10}))
    with pytest.raises(FormatError, match=r"query_position_embeddings\.weight is \(30, 64\), \(10, 64\) is") as raised:
        train(settings(1), ModelSettings(start=str(tmp_path / "first")), data, tmp_path / "second")
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_a_checkpoint_of_another_shape_is_one_line(tmp_path: Path) -> None:
    data, out = data_of(tmp_path / "w"), tmp_path / "out"
    run_of(data, out)
    place = out / "step-000001"
    name = "model.query_position_embeddings.weight"
    weights = load_file(place / "model.safetensors")
    save_file(weights | {name: weights[name][:10].contiguous()}, place / "model.safetensors", {"format": "pt"})
    with pytest.raises(FormatError, match=r"cannot go on from .*step-000001: .*Remove it to go on from the one before"):
        run_of(data, out)
    place = place / "config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"num_queries": 10}))
    with pytest.raises(FormatError, match=r"another shape than this run begins with \(.*; choose another --out$"):
        run_of(data, out)


def test_a_language_model_that_reads_too_little_is_one_line(tmp_path: Path) -> None:
    short = GPT2Config(vocab_size=len(tokenizer()), n_embd=32, n_layer=1, n_head=2, n_positions=64, bos_token_id=0)
    GPT2LMHeadModel(short).save_pretrained(tmp_path / "gpt")
    tokenizer().save_pretrained(tmp_path / "gpt")
    chosen = spoken(1, str(tmp_path / "gpt"), {"looks": "off"})
    with pytest.raises(SettingError, match=r"captions\.image_tokens 1600 is more than the 64 tokens .*at most 64"):
        train(chosen, MODEL, data_of(tmp_path / "w"), tmp_path / "out")


def test_no_records_at_all_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"training needs records in .*none are there\. Run merge first\.$"):
        run_of(data_of(tmp_path / "w", lambda rows: []), tmp_path / "out")


def test_fewer_images_than_processes_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_of(tmp_path / "w")
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 4)
    with pytest.raises(LlmdetError, match=r"train\.batch_size 2 must be a multiple of the 4 processes"):
        run_of(data, tmp_path / "out")
