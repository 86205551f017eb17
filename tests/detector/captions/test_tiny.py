"""The tiny language model: fitted to what records say, and to names in the place of the image."""

from pathlib import Path

import pytest
import torch

from detector.captions import llm, tiny
from detector.captions.packing import Tail, pack
from detector.captions.scripts import IMAGE_PROMPT, REGION_PROMPT, Script
from detector.captions.tiny import Thing, Told
from llmdet.errors import MissingError
from tests.detector.captions.example_llm import TEXTS, tokenizer


def test_a_tiny_model_learns_how_the_records_talk(tmp_path: Path) -> None:
    fitting = tiny.TinySettings(layers=1, hidden=32, vocabulary=400, steps=40, rounds=40, batch=4)
    images, regions = [Told(text) for text in TEXTS[2:]], [Told(text) for text in TEXTS[:2]]
    losses = tiny.write(tmp_path / "llm", images, regions, fitting)
    assert losses[-1] < 0.6 * losses[0]
    made = llm.read(str(tmp_path / "llm"), torch.float32)
    assert made.hidden_size == 32
    assert not any(parameter.requires_grad for parameter in made.parameters())
    again = tmp_path / "again"
    tiny.write(again, images, regions, fitting)
    for name in ("model.safetensors", "tokenizer.json"):
        assert (again / name).read_bytes() == (tmp_path / "llm" / name).read_bytes()
    with pytest.raises(MissingError, match="the records have none"):
        tiny.write(tmp_path / "none", [], [])


def test_a_tiny_model_reads_the_names_in_the_place_of_the_image(tmp_path: Path) -> None:
    """Once it is frozen, what stands there decides what it says."""
    names = [f"{colour} {shape}" for colour in ("red", "green", "blue") for shape in ("cross", "star", "circle")]
    told = [Told(f"a small {name} in view", (Thing(name),)) for name in names]
    tiny.write(
        tmp_path / "llm", [], told, tiny.TinySettings(layers=1, hidden=64, vocabulary=400, steps=400, rounds=400)
    )
    model = llm.read(str(tmp_path / "llm"), torch.float32)
    script = Script(model.tokenizer, REGION_PROMPT, "answer")

    def loss(told: Told, seen: Told) -> float:
        rows = pack(script.before, [Tail(1, script.after + script.answer(told.text))], row_tokens=0)
        name = model.tokenizer(f" {seen.things[0].name}", add_special_tokens=False)["input_ids"]
        embeds = model.embed(rows.ids_RL)
        embeds[0, rows.images_N2[0, 1]] = model.embed(torch.tensor(name)).mean(0)
        return float(model.loss(model(embeds, rows), rows))

    with torch.no_grad():
        for number, one in enumerate(told):
            others = [loss(one, other) for other in told[:number] + told[number + 1 :]]
            assert loss(one, one) + 1 < min(others)


def test_a_thing_stands_in_the_cell_that_holds_its_centre() -> None:
    asked = tiny.Asked(tokenizer(), IMAGE_PROMPT, tiny.CELLS)
    first = len(asked.script.before)
    things = [Thing("car", -0.4, 0.0), Thing("dog", 0.99, 0.0), Thing("cat", 1.2, 1.0), Thing("cup", 0.5, 0.13)]
    assert [column - first for column, _ in asked.seen(things)] == [0, 7, 63, 12]
