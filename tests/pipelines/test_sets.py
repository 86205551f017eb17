"""What a detector is asked about each set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detector.asked import Asked
from detector.metrics import coco_o, odinw
from llmdet.errors import FormatError, MissingError, SettingError
from llmdet.phrases import Parser
from pipelines.sets import EvaluationSet, Member, lvis_photo, members, subject_spans

PHOTO = {"id": 7, "width": 40, "height": 30}


def written(path: Path, value: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return str(path)


def truth(*names: str, **image: Any) -> dict[str, Any]:
    categories = [{"id": 10 * (i + 1), "name": name, "frequency": "r"} for i, name in enumerate(names)]
    return {"images": [{**PHOTO, **image}], "annotations": [], "categories": categories}


def only(one: EvaluationSet) -> Member:
    (member,) = members(one)
    return member


def test_categories_of_coco_are_asked_by_their_names(tmp_path: Path) -> None:
    file = written(tmp_path / "a.json", truth("dog", "red_cup", file_name="a.jpg"))
    member = only(EvaluationSet(annotations=file, images=str(tmp_path)))
    assert member.names == (Asked("dog"), Asked("red_cup"))
    assert member.categories == (10, 20)
    assert (member.keys, member.questions[0].image, member.questions[0].size) == (
        [7],
        str(tmp_path / "a.jpg"),
        (40, 30),
    )


def test_names_and_photos_of_lvis(tmp_path: Path) -> None:
    url = "http://images.cocodataset.org/train2017/000000000007.jpg"
    names = ("bow_(decorative_ribbons)", "cup/mug_(drinkware)", "flip-flop_(sandal)", "aerosol_can")
    file = written(tmp_path / "a.json", truth(*names, coco_url=url))
    member = only(EvaluationSet(task="lvis", annotations=file, images="/coco"))
    assert [name.name for name in member.names] == ["bow", "cup/mug", "flip-flop", "aerosol can"]
    assert member.questions[0].image == "/coco/train2017/000000000007.jpg"
    assert lvis_photo({"file_name": "COCO_val2014_000000000007.jpg"}) == "000000000007.jpg"
    assert lvis_photo({"file_name": "mine/7.jpg"}) == "mine/7.jpg"
    asked = EvaluationSet(task="lvis-fixed", annotations="a", images="b").asked()
    assert (asked.names_per_prompt, asked.top_k, asked.top_k_per, asked.per_category) == (40, 300, "chunk", 10_000)


def test_photos_that_cannot_be_named_are_refused_or_told(tmp_path: Path) -> None:
    file = written(tmp_path / "a.json", truth("dog"))
    with pytest.raises(FormatError, match=r"a\.json: image 7 has no file_name"):
        members(EvaluationSet(annotations=file, images="/photos"))
    file = written(tmp_path / "b.json", truth("dog", file_name="../a.jpg"))
    member = only(EvaluationSet(annotations=file, images="/photos"))
    assert member.questions == []
    assert member.errors["7"].startswith("path_outside_root")
    with pytest.raises(SettingError, match="top_k must be at least 1"):
        EvaluationSet(annotations="a", images="b", top_k=0).asked()


def test_odinw_asks_in_other_words_and_needs_all_its_sets(tmp_path: Path) -> None:
    one = EvaluationSet(task="odinw", annotations=str(tmp_path), images=str(tmp_path))
    with pytest.raises(MissingError, match="odinw13 is the mean of 13 sets; 13 are not there"):
        members(one)
    for name, folder in odinw.ODINW13.items():
        names = {"pothole": ("pothole",), "pistols": ("x", " ")}.get(name, ("a_b",))
        written(tmp_path / folder / odinw.annotation_file(name), truth(*names, file_name="a.jpg"))
    found = {member.name: member for member in members(one)}
    assert list(found) == list(odinw.ODINW13)
    assert found["pothole"].names == (Asked("holes", "there are some ", " on the road"),)
    assert found["Aquarium"].names == (Asked("a b"),)
    assert (found["pistols"].names, found["pistols"].categories) == ((Asked("x"),), (10,))
    assert found["pistols"].notes == ("category 20 is called '': not asked",)
    folder = odinw.ODINW13["Raccoon"]
    assert found["Raccoon"].questions[0].image == str(tmp_path / folder / "valid" / "a.jpg")


def test_coco_o_has_six_domains(tmp_path: Path) -> None:
    for name in coco_o.DOMAINS:
        written(tmp_path / name / "annotations/instances_val2017.json", truth("dog", file_name="a.jpg"))
    found = members(EvaluationSet(task="coco-o", annotations=str(tmp_path), images=str(tmp_path)))
    assert [member.name for member in found] == list(coco_o.DOMAINS)
    assert found[0].questions[0].image == str(tmp_path / "cartoon/val2017/a.jpg")


def test_an_expression_is_asked_by_its_subject_or_as_a_whole(tmp_path: Path) -> None:
    row = {**PHOTO, "file_name": "COCO_train2014_000000000581_16.jpg", "caption": "dog left of a dog"}
    image = {**row, "dataset_name": "refcoco", "width": "40"}
    boxes = [{"id": 1, "image_id": 7, "bbox": [0, 0, 4, 4]}]
    file = written(tmp_path / "a.json", {"images": [image], "annotations": boxes})
    member = only(EvaluationSet(task="refcoco", annotations=file, images="/p"))
    assert member.questions[0].image == "/p/COCO_train2014_000000000581.jpg"
    assert member.questions[0].size == (40, 30)
    assert member.questions[0].phrases == (((0, 3), (14, 17)),)
    plain = only(EvaluationSet(task="refcoco", annotations=file, images="/p", protocol="mm_grounding_dino"))
    assert (plain.questions[0].text, plain.questions[0].phrases) == ("dog left of a dog", ())


def test_a_subject_may_have_any_characters() -> None:
    parser = Parser("pattern")
    assert subject_spans("the", parser) == ((0, 3),)
    assert subject_spans("", parser) == ((0, 0),)
    for text in ("(brown dog", "dog.* dog", "naïve Älg"):
        for start, stop in subject_spans(text, parser):
            assert 0 <= start < stop <= len(text)


def test_phrases_of_flickr30k_are_those_with_boxes(samples: Path) -> None:
    folder = samples / "flickr30k"
    images = folder / "flickr30k_images"
    member = only(EvaluationSet(task="flickr30k", annotations=str(folder), images=str(images), split="val"))
    predicted = json.loads((samples / "eval/flickr30k/val_preds.json").read_text())
    phrases = {(row["image_id"], row["sentence_id"]): len(row["boxes"]) for row in predicted}
    assert {key: len(q.phrases) for key, q in zip(member.keys, member.questions, strict=True)} == phrases
    first = dict(zip(member.keys, member.questions, strict=True))["36979", 0]
    assert [first.text[a:b] for ((a, b),) in first.phrases] == ["A group of friends", "cards"]
    assert first.size == (500, 375)
