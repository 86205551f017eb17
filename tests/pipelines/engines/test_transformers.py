from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson
import pytest

from llmdet.errors import LlmdetError, MissingError, SettingError
from llmdet.prompts.image import ImageShort
from llmdet.prompts.region import RegionBatch, RegionCrop
from llmdet.rejects import Reject
from llmdet.workspace import Table, Workspace
from pipelines.caption import CaptionSettings, caption
from pipelines.engines import ENGINES
from pipelines.engines.engine import Job
from pipelines.engines.lmm import Sampling
from pipelines.engines.transformers import TransformersEngine
from pipelines.recipe import engine_of
from tests.pipelines.engines.jobs import job, write_photos, write_shown_records
from tests.pipelines.engines.tiny_vlm import write_tiny_vlm

needs_torchvision = pytest.mark.skipif(
    find_spec("torchvision") is None, reason="torchvision is not installed: the processors of Qwen-VL need it"
)
SHORT = Sampling(max_tokens=12)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_vlm(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", 6)


def engine(model: str, **values: Any) -> TransformersEngine:
    given: dict[str, Any] = {"model": model, "device": "cpu", "image_prompt": "image-short", "sampling": SHORT}
    return TransformersEngine(**{**given, **values})


def jobs(folder: Path, count: int, most: int = 12) -> list[Job]:
    """Short questions: whole pictures and cut out boxes, each with an answer of at most `most` tokens."""
    asked = [job(folder, i, prompts=(ImageShort(), RegionCrop())) for i in range(count)]
    return [
        replace(one, requests=tuple(replace(r, ask=replace(r.ask, max_tokens=most)) for r in one.requests))
        for one in asked
    ]


@needs_torchvision
def test_answers_are_counted_and_end_at_their_own_limits(model: str, photos: Path, tmp_path: Path) -> None:
    # A processor that would make each picture smaller than our settings say.
    folder = shutil.copytree(model, tmp_path / "model")
    settings = orjson.loads((folder / "preprocessor_config.json").read_bytes())
    settings |= {"max_pixels": 40 * 28 * 28, "size": {"shortest_edge": 28 * 28, "longest_edge": 40 * 28 * 28}}
    (folder / "preprocessor_config.json").write_bytes(orjson.dumps(settings))
    answerer = engine(str(folder)).start()
    one = job(photos, 0, prompts=(ImageShort(), RegionCrop()))
    limits = [3, 9, 20]
    shown = zip(one.requests, limits, strict=True)
    limited = replace(one, requests=tuple(replace(r, ask=replace(r.ask, max_tokens=most)) for r, most in shown))
    (answers,) = answerer.answer([limited])
    assert [answer.error for answer in answers] == [""] * 3
    assert all(
        answer.answer_tokens == most if answer.finish == "length" else answer.answer_tokens <= most
        for answer, most in zip(answers, limits, strict=True)
    )
    assert "length" in {answer.finish for answer in answers}
    usage = answerer.usage()
    # The photo becomes 252 x 224 px, the crops (11 x 22 and 12 x 22 px) 168 x 336 and 168 x 308: at least 64 tokens
    assert usage.image_tokens == usage.image_tokens_predicted == 9 * 8 + 6 * 12 + 6 * 11
    assert all(answer.prompt_tokens > 66 for answer in answers)
    assert usage.running_s > usage.waiting_s >= 0


@needs_torchvision
def test_an_answer_does_not_depend_on_its_batch(model: str, photos: Path) -> None:
    asked = jobs(photos, 3)
    lively = Sampling(temperature=1.0, top_p=0.95)
    alone = engine(model, batch_size=1, sampling=lively).start().answer(asked)
    together = engine(model, batch_size=8, sampling=lively).start().answer(asked)
    assert together == alone
    texts = [answer.text for told in alone for answer in told]
    assert len(set(texts)) == len(texts) == 9
    other = [replace(one, requests=tuple(replace(r, seed=r.seed + 1) for r in one.requests)) for one in asked]
    assert all(
        mine.text != yours.text
        for told, now in zip(alone, engine(model, sampling=lively).start().answer(other), strict=True)
        for mine, yours in zip(told, now, strict=True)
    )


@needs_torchvision
def test_greedy_answers_are_those_of_plain_generate(model: str, photos: Path) -> None:
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    one = engine(model, sampling=Sampling(temperature=0.0))
    asked = jobs(photos, 2)
    told = one.start().answer(asked)
    processor = AutoProcessor.from_pretrained(model)
    plain = AutoModelForImageTextToText.from_pretrained(model)
    for job_, answers in zip(asked, told, strict=True):
        picture = one.frame().fit(Image.open(job_.image))
        content = [{"type": "image", "image": picture}, {"type": "text", "text": job_.requests[0].ask.text}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        out = plain.generate(**inputs, do_sample=False, max_new_tokens=12)
        expected = processor.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert answers[0].text == expected


@needs_torchvision
def test_what_cannot_be_answered_fails_alone(model: str, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (photos / "1.jpg").write_bytes(b"no picture")
    asked = jobs(photos, 4)
    first, *rest = asked[2].requests
    long = replace(first, ask=replace(first.ask, max_tokens=40_000))
    broken = replace(rest[0], ask=replace(rest[0].ask, text="<|image_pad|> twice"))
    asked[2] = replace(asked[2], requests=(long, broken, rest[1]))
    told = engine(model).start().answer(asked)
    assert [[answer.error for answer in answers] for answers in told] == [
        ["", "", ""],
        ["image_unreadable"] * 3,
        ["prompt_too_long", "engine_refused", ""],
        ["", "", ""],
    ]
    assert told[2][1].detail.startswith("ValueError: ")


@needs_torchvision
def test_a_batch_that_needs_too_much_memory_is_halved(
    model: str, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    answerer: Any = engine(model, batch_size=8).start()
    asked = jobs(photos, 3)
    whole = answerer.answer(asked)
    sizes: list[int] = []
    generate = answerer._model.generate

    def scarce(**inputs: Any) -> Any:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return generate(**inputs)

    monkeypatch.setattr(answerer._model, "generate", scarce)
    room = 2
    assert answerer.answer(asked) == whole
    assert sizes == [8, 4, 2, 2, 4, 2, 2, 1]
    sizes.clear()
    answerer.answer(asked)
    assert sizes == [2, 2, 2, 2, 1]  # it has learnt
    room = 0
    assert {answer.error for answers in answerer.answer(asked[:1]) for answer in answers} == {"out_of_memory"}


@needs_torchvision
def test_captions_of_a_source_go_through_ray(
    ray_local: None, model: str, workspace: Workspace, tmp_path: Path, left_out: Callable[[Table], list[Reject]]
) -> None:
    write_shown_records(workspace, tmp_path / "photos", 4)
    one = engine(model, prompt_settings={"region-batch": {"max_words": 5}})
    done = caption(workspace, "hand", one, CaptionSettings(chunk_images=2))
    assert (done.requests, done.answered) == (8, 8 - sum(done.faults.values()))
    assert set(done.faults) <= {"answer_empty"}  # which a model of noise may give
    assert done.prompt_tokens > 8 * 72
    assert len(left_out(workspace.rejects("caption", "hand"))) == sum(done.faults.values())


def test_the_family_and_the_revision_come_from_the_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(orjson.dumps({"model_type": "qwen2_5_vl"}))
    one = TransformersEngine(model=str(tmp_path))
    assert one.frame().unit == "pixel"
    before = one.identity()
    assert (before.engine, before.model) == ("transformers", str(tmp_path))
    assert before.revision.startswith("sha256:")
    assert before.preprocessing["max_pixels"] == 1280 * 28 * 28
    region = one.prompts()["region"]
    assert isinstance(region, RegionBatch)
    assert region.frame == one.frame()


def test_workers_ask_for_a_gpu_only_where_one_is_wanted() -> None:
    assert TransformersEngine(device="cpu").workers().num_gpus == 0
    assert TransformersEngine(device="cuda", replicas=3).workers().num_gpus == 1
    assert TransformersEngine(device="cuda", replicas=3).workers().count == 3
    assert TransformersEngine(device="cpu", cpus=4).workers().num_cpus == 4


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="--model"):
        engine("").identity()
    with pytest.raises(SettingError, match="batch_size"):
        engine_of("transformers", {"model": "m", "batch_size": 0})
    with pytest.raises(MissingError, match=r"no config\.json"):
        engine(str(tmp_path)).identity()
    (tmp_path / "config.json").write_bytes(orjson.dumps({"model_type": "qwen2_vl"}))
    if find_spec("torchvision") is None:
        with pytest.raises(LlmdetError, match=r"pip install 'llmdet-data\[transformers\]'"):
            engine(str(tmp_path)).start()
    else:
        with pytest.raises(LlmdetError, match="transformers cannot load"):
            engine(str(tmp_path)).start()


def test_it_is_an_engine_of_the_command_line() -> None:
    assert ENGINES["transformers"] is TransformersEngine
