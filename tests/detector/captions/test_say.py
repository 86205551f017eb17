"""What caption heads say: the likeliest words, of the right queries, and after training what they were taught."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import orjson
import pytest
import torch
from PIL import Image

from detector import checkpoint
from detector.captions import heads as module
from detector.captions import say, start, tiny
from detector.captions.heads import CaptionHeads
from detector.captions.packing import Tail, pack
from detector.captions.scripts import Piece
from detector.config import CaptionSettings, quickstart_model
from detector.data import TrainData
from detector.looks import find
from detector.model import Features
from detector.predict import Detections, Detector
from detector.train import train
from llmdet.errors import FormatError, MissingError
from llmdet.questions import ask
from llmdet.record import Caption, to_batch
from llmdet.workspace import to_parquet
from pipelines.predict import PredictSettings, predict
from tests.detector import example_run
from tests.detector.captions.example_llm import features, heads, shake

MOST = 9


def whole(made: CaptionHeads, seen: Features, query: int | None, most: int) -> list[int]:
    """The likeliest words one by one, each from the whole sequence anew; of a query, or of the image."""
    script = made.image_script if query is None else made.region_script
    said: list[int] = []
    while len(said) < most:
        text = script.after + script.opening + Piece(tuple(said), (False,) * len(said))
        if query is None:
            tokens, glance = made.image_tokens(seen, 0), None
            rows = pack(script.before, [Tail(len(tokens), text)], 0)
        else:
            rows = pack(script.before, [Tail(1, text)], 0)
            tokens, glance = made.region_tokens(seen, torch.tensor([0]), torch.tensor([query]), rows)
        hidden = made.llm(made.embed(tokens, rows), rows, glance)
        token = int(made.llm.head(hidden[0, -1]).argmax())
        if token in script.ends:
            break
        said.append(token)
    return said


def text_of(made: CaptionHeads, ids: list[int]) -> str:
    return str(made.llm.tokenizer.decode(ids, skip_special_tokens=True)).strip()


@pytest.mark.parametrize("looks", ["off", "added", "normed"])
def test_what_is_said_are_the_likeliest_words_of_each_query_alone(looks: str) -> None:
    made, seen = heads(looks=looks), features().of_image(1)
    made.settings = replace(
        made.settings,
        image_tokens=len(made.image_script.before + made.image_script.after + made.image_script.opening) + 14 + MOST,
        region_tokens=len(made.region_script.before + made.region_script.after + made.region_script.opening) + 1 + MOST,
    )
    shake(made)
    with torch.no_grad():
        expected = [text_of(made, whole(made, seen, query, MOST)) for query in range(5)]
        image = text_of(made, whole(made, seen, None, MOST))
    assert len(set(expected)) > 1
    assert say.say_image(made, seen) == image
    queries = [(0, 3), (0, 0), (0, 4), (0, 3), (0, 1)]
    assert say.say_boxes(made, [seen], queries) == [expected[query] for _, query in queries]
    assert say.say_boxes(made, [seen], []) == []


def test_batches_and_prompts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made, (one, other) = heads(), (features().of_image(0), features().of_image(2))
    shake(made)
    queries = [(1, 2), (0, 2), (0, 4), (1, 0), (0, 1)]
    alone = [say.say_boxes(made, [one, other], [query])[0] for query in queries]
    monkeypatch.setattr(say, "BATCH", 2)
    assert say.say_boxes(made, [one, other], queries) == alone


def test_a_row_ends_where_the_model_ends_it() -> None:
    made = heads(looks="off")
    shake(made)
    embeds = made.llm.embed(torch.tensor([[5, 6, 7], [40, 41, 42]]))
    free = say.greedy(made.llm, embeds, (), MOST)
    end = free[0][3]
    cut = [row[: row.index(end)] if end in row else row for row in free]
    assert say.greedy(made.llm, embeds, {end}, MOST) == cut
    assert [len(row) for row in free] == [MOST, MOST]


def test_what_was_not_learned_is_not_said() -> None:
    aligned, seen = heads(stage="align"), features().of_image(0)
    assert say.say_boxes(aligned, [seen], [(0, 1), (0, 2)]) == ["", ""]
    assert say.say_image(heads(image_weight=0.0), seen) == ""


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.set_num_threads(1)
    parts = checkpoint.start(quickstart_model(), seed=0)
    parts.model.eval()
    return Detector(parts)


def photo(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 80, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("text", "mode", "protocol"),
    [("dog. red cup. cat.", "detection", "llmdet"), ("A dog and a red cup.", "grounding", "llmdet"),
     ("A red cup on the left", "referring", "mm_grounding_dino")],
)  # fmt: skip
def test_boxes_know_their_queries(detector: Detector, text: str, mode: str, protocol: str) -> None:
    question = ask(text, mode, parser="pattern")  # type: ignore[arg-type]
    options = {"top_k": 20, "names_per_prompt": 2, "protocol": protocol}
    found = find(detector, [photo(0), photo(1)], question, keep=True, **options)  # type: ignore[arg-type]
    for one in found:
        assert one.queries.shape == (20, 2)
        assert len(one.features) == (2 if mode == "detection" else 1)
        for box, (prompt, query) in zip(one.boxes, one.queries, strict=True):
            cx, cy, w, h = one.features[prompt].boxes_BQ4[0, query].double().tolist()
            corners = np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]).clip(0, 1) * [80, 64, 80, 64]
            assert box == pytest.approx(corners, abs=1e-4)
    plain = find(detector, [photo(0), photo(1)], question, **options)  # type: ignore[arg-type]
    assert plain[0].features == ()
    assert np.array_equal(plain[1].take(np.array([4, 2])).queries, found[1].queries[[4, 2]])


def test_missing_heads_and_models_are_one_line(detector: Detector, tmp_path: Path) -> None:
    checkpoint.write_model(tmp_path, detector.parts)
    with pytest.raises(MissingError, match=r"has no caption heads \(captions\.safetensors\): train it with captions"):
        Detector.load(tmp_path, "cpu", captions=True)
    with pytest.raises(MissingError, match="has no caption heads"):
        predict(["any.jpg"], "dog", str(tmp_path), str(tmp_path / "out"), PredictSettings(captions=True, workers=1))
    with pytest.raises(MissingError, match="captions=True"):
        detector.say(Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64), ("dog",)))
    (tmp_path / module.WEIGHTS).write_bytes(b"")
    (tmp_path / module.FACTS).write_bytes(b'{"version": 1}')
    with pytest.raises(FormatError, match="holds no settings of caption heads"):
        start.settings_of(tmp_path)
    (tmp_path / module.FACTS).write_bytes(orjson.dumps({"settings": asdict(CaptionSettings())}))
    with pytest.raises(MissingError, match="copy llm/ beside them"):
        start.settings_of(tmp_path)
    facts = {"settings": asdict(CaptionSettings(llm=str(tmp_path / "gone")))}
    (tmp_path / module.FACTS).write_bytes(orjson.dumps(facts))
    with pytest.raises(MissingError, match="no language model can be read from"):
        Detector.load(tmp_path, "cpu", captions=True)


SENTENCES = ("Two shapes are on a wall.", "Nobody is at home here.")


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run that was taught a sentence for each of two photos, and what is in the boxes of these."""
    place = tmp_path_factory.mktemp("taught")
    data = example_run.data(place, 3)
    rows = [
        replace(row, captions=(Caption(said),)) for row, said in zip(example_run.records(3), SENTENCES, strict=False)
    ]
    for part in (place / "records").iterdir():
        part.unlink()
    (place / "records" / "part-00000.parquet").write_bytes(to_parquet(to_batch(rows)))
    size = tiny.TinySettings(layers=2, hidden=64, vocabulary=400, steps=60, batch=4, rounds=100)
    tiny.write(place / "model", *start.texts_of(rows), size)
    spoken = CaptionSettings(
        llm=str(place / "model"), levels=(-1,), grids=(4,), lora_rank=8, lora_alpha=16.0, look_layers=1,
        image_tokens=200, region_tokens=120, recompute=False,
    )  # fmt: skip
    train(
        example_run.settings(150, captions=spoken),
        example_run.MODEL,
        TrainData(data.records, data.roots),
        place / "run",
    )
    return place, [str(place / row.image) for row in rows]


@pytest.mark.slow
def test_what_was_taught_is_said_here_and_by_actors(
    ray_local: None, taught: tuple[Path, list[str]], tmp_path: Path
) -> None:
    place, pictures = taught
    for workers in (0, 1):
        settings = PredictSettings(captions=True, threshold=0.0, top_k=6, formats=(), workers=workers)
        out = tmp_path / str(workers)
        found = predict(pictures, "red square. blue circle.", str(place / "run"), str(out), settings).images
        assert [one.caption for one in found] == list(SENTENCES)
        assert all(len(one.captions) == len(one.boxes) == 6 for one in found)
        assert all(text for one in found for text in one.captions)
        written = orjson.loads((out / "predictions.json").read_bytes())["images"]
        assert [(one["caption"], one["captions"]) for one in written] == [(one.caption, one.captions) for one in found]
