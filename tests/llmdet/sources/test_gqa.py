import json
from pathlib import Path
from typing import Any

import pytest

from llmdet.errors import FormatError, MissingError
from llmdet.record import Record
from llmdet.rejects import Reject
from llmdet.sources.gqa import Gqa
from llmdet.sources.scene_text import Thing, scene_texts
from llmdet.tokens import estimate_bert_tokens
from llmdet.validate import faults

DEEP: list[Any] = []
for _ in range(400):  # deeper than json can be written
    DEEP = [DEEP]


def thing(name: Any, sides: Any = (20, 30, 40, 20), attributes: Any = (), relations: Any = ()) -> dict[str, Any]:
    x, y, w, h = sides
    attributes = list(attributes) if isinstance(attributes, tuple) else attributes
    rows = [{"name": n, "object": o} for n, o in relations] if isinstance(relations, tuple) else relations
    return {"name": name, "x": x, "y": y, "w": w, "h": h, "attributes": attributes, "relations": rows}


DOG = thing("dog", attributes=("brown",), relations=(("to the left of", "806"),))
CAR = thing("car", (70, 10, 25, 40), ("red",), (("to the right of", "805"),))
WINDOW = thing("window", (1, 1, 10, 10), ("tall",))


def graph(**objects: Any) -> dict[str, Any]:
    return {"width": 100, "height": 60, "objects": {key.strip("_"): value for key, value in objects.items()}}


def read(
    folder: Path, document: Any, name: str = "val_sceneGraphs.json", **settings: Any
) -> tuple[list[Any], list[Any]]:
    path = folder / name
    path.write_text(json.dumps(document))
    items = list(Gqa(annotations=str(path), images="photos", **settings).read())
    records = [item for item in items if isinstance(item, Record)]
    assert [fault for record in records for fault in faults(record)] == []
    return records, [item for item in items if isinstance(item, Reject)]


def shape(record: Record) -> list[tuple[tuple[str, ...], list[str | None]]]:
    return [(region.phrases, [box.annotation_id for box in region.boxes]) for region in record.regions]


def test_attributes_names_and_relations_make_the_text(tmp_path: Path) -> None:
    document = {"n2331": graph(_805=DOG, _806=CAR, _9=WINDOW) | {"location": "street", "weather": "sunny"}}
    (record,), rejects = read(tmp_path, document)
    assert rejects == []
    assert (record.id, record.image, record.width, record.height) == ("gqa/n2331/0", "n2331.jpg", 100, 60)
    assert (record.kind, record.split, record.licence) == ("grounding", "val", "CC-BY-4.0")
    assert record.text == "brown dog to the left of a red car. tall window."
    assert [region.spans for region in record.regions] == [((0, 9),), ((27, 34),), ((36, 47),)]
    assert shape(record) == [(("brown dog",), ["805"]), (("red car",), ["806"]), (("tall window",), ["9"])]
    assert record.regions[0].boxes[0].xyxy == (20.0, 30.0, 60.0, 50.0)
    assert record.regions[1].boxes[0].order == 1
    assert record.extra == {
        "location": "street",
        "weather": "sunny",
        "objects": {
            "805": {"name": "dog", "attributes": ["brown"], "relations": DOG["relations"]},
            "806": {"name": "car", "attributes": ["red"], "relations": CAR["relations"]},
            "9": {"name": "window", "attributes": ["tall"]},
        },
    }


def test_an_object_named_twice_is_one_region_with_both_spans(tmp_path: Path) -> None:
    dog = thing("dog", relations=(("near", "2"),))
    car = thing("car", (70, 10, 25, 40), relations=(("under", "3"),))
    (record,), _ = read(tmp_path, {"1": graph(_1=dog, _2=car, _3=thing("trees", (1, 1, 98, 9)))})
    assert record.text == "dog near a car. car under trees."
    assert shape(record) == [(("dog",), ["1"]), (("car", "car"), ["2"]), (("trees",), ["3"])]


def test_equal_objects_without_a_relation_share_one_sentence(tmp_path: Path) -> None:
    (record,), _ = read(tmp_path, {"1": graph(_1=thing("bird"), _2=thing("bird", (1, 1, 9, 9)), _3=thing("cat"))})
    assert record.text == "bird. cat."
    assert shape(record) == [(("bird",), ["1", "2"]), (("cat",), ["3"])]


def test_a_relation_that_says_more_than_left_and_right_comes_first(tmp_path: Path) -> None:
    man = thing("man", relations=(("to the left of", "2"), ("wearing", "3")))
    document = {"1": graph(_1=man, _2=thing("orange", (70, 5, 9, 9)), _3=thing("hat", (25, 20, 9, 9)))}
    assert read(tmp_path, document)[0][0].text == "man wearing a hat. orange."
    assert read(tmp_path, document, relations=2)[0][0].text == "man wearing a hat. man to the left of an orange."
    assert read(tmp_path, document, relations=0)[0][0].text == "man. orange. hat."


def test_a_long_graph_becomes_several_records_that_name_every_object(tmp_path: Path) -> None:
    objects = {f"_{i}": thing(f"thing{i}", (i, 1, 9, 9)) for i in range(80)}
    records, _ = read(tmp_path, {"1": graph(**objects)}, max_tokens=100)
    assert [record.id for record in records] == [f"gqa/1/{i}" for i in range(len(records))]
    assert all(estimate_bert_tokens(record.text) <= 100 for record in records)
    assert [box.annotation_id for record in records for box in record.boxes] == [str(i) for i in range(80)]


def test_the_same_graph_gives_the_same_text(tmp_path: Path) -> None:
    document = {"1": graph(_805=DOG, _806=CAR, _9=WINDOW)}
    assert read(tmp_path, document) == read(tmp_path, document)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (None, "row_malformed"),
        ([], "row_malformed"),
        (thing(None), "name_missing"),
        (thing("  "), "name_missing"),
        (thing("dog", ("1", 2, 3, 4)), "box_malformed"),
        (thing("dog", (1, 2, None, 4)), "box_malformed"),
        (thing("dog", (100, 2, 30, 4)), "box_outside_image"),
        (thing("dog", (1, 2, 0, 4)), "box_below_one_pixel"),
        (thing("dog", attributes=DEEP), "row_malformed"),
    ],
)
def test_a_bad_object_costs_that_object_only(tmp_path: Path, row: Any, reason: str) -> None:
    window = thing("window", relations=(("near", "1"),))
    (record,), (reject,) = read(tmp_path, {"1": graph(_1=row, _2=window)})
    assert record.text == "window."
    assert (reject.id, reject.level, reject.kind, reject.reason) == ("gqa/1/0#1", "annotation", "fault", reason)


@pytest.mark.parametrize(
    ("relations", "reason"),
    [
        ({"name": "near"}, "relations_malformed"),
        (None, "relations_malformed"),
        ([{"name": "near"}], "relation_malformed"),
        (["near"], "relation_malformed"),
        ([{"name": "near", "object": "77"}], "relation_unknown"),
    ],
)
def test_a_bad_relation_costs_that_relation_only(tmp_path: Path, relations: Any, reason: str) -> None:
    (record,), (reject,) = read(tmp_path, {"1": graph(_1=thing("dog", relations=relations), _2=thing("cat"))})
    assert record.text == "dog. cat."
    assert (reject.level, reject.reason) == ("annotation", reason)


@pytest.mark.parametrize(
    "bad", [None, {"objects": []}, {"objects": {}, "height": 3}, graph() | {"width": "x"}, graph() | {"location": DEEP}]
)
def test_a_bad_graph_costs_that_photo_only(tmp_path: Path, bad: Any) -> None:
    records, (reject,) = read(tmp_path, {"1": bad, "2": graph(_1=thing("dog"))})
    assert [record.id for record in records] == ["gqa/2/0"]
    assert (reject.id, reject.level, reject.kind, reject.reason) == ("gqa/1/0", "record", "fault", "row_malformed")


def test_a_graph_without_objects_is_left_out_with_a_reason(tmp_path: Path) -> None:
    records, (reject,) = read(tmp_path, {"1": graph()})
    assert (records, reject.kind, reject.reason) == ([], "policy", "text_empty")


def test_a_folder_gives_all_its_graphs_with_their_splits(tmp_path: Path) -> None:
    for split, photo in (("val", "2"), ("train", "1")):
        (tmp_path / f"{split}_sceneGraphs.json").write_text(json.dumps({photo: graph(_1=thing("dog"))}))
    (tmp_path / "other.json").write_text("[]")
    records = list(Gqa(annotations=str(tmp_path), images="").read())
    assert [(r.id, r.split) for r in records if isinstance(r, Record)] == [("gqa/1/0", "train"), ("gqa/2/0", "val")]


@pytest.mark.parametrize("document", [[], {"a": 1}, {"images": [], "categories": []}, 5])
def test_another_format_is_refused_in_one_line(tmp_path: Path, document: Any) -> None:
    with pytest.raises(FormatError, match=r"neither GQA scene graphs .* nor an MDETR json"):
        read(tmp_path, document)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no such file"):
        Gqa(annotations=str(tmp_path / "none.json"), images="").info()
    with pytest.raises(MissingError, match=r"no \*_sceneGraphs\.json"):
        list(Gqa(annotations=str(tmp_path), images="").read())


def test_the_mixed_file_of_mdetr_is_read_too(samples: Path) -> None:
    path = samples / "quoted_rows" / "mdetr_final_mixed_train_two_rows.json"
    items = list(Gqa(annotations=str(path), images="").read())
    assert [item.id for item in items] == ["gqa/581857/0", "gqa/2334951/1107630"]


def test_the_example_of_the_gqa_site_is_read(samples: Path) -> None:
    path = samples / "quoted_rows" / "gqa_scene_graph_site_example_DOC_ONLY.json"
    *rejects, record = Gqa(annotations=str(path), images="").read()
    assert isinstance(record, Record)
    assert (record.id, record.text) == ("gqa/2407890/0", "brown wooden small chair.")
    assert record.boxes[0].xyxy == (220.0, 310.0, 270.0, 390.0)
    assert [item.reason for item in rejects if isinstance(item, Reject)] == ["relation_unknown"] * 2


@pytest.mark.parametrize(
    ("name", "phrase", "expected"),
    [
        ("car", "red car", "x on a red car."),
        ("apple", "apple", "x on an apple."),
        ("car", "orange car", "x on an orange car."),
        ("grass", "green grass", "x on green grass."),
        ("glass", "glass", "x on a glass."),
        ("bus", "old bus", "x on an old bus."),
        ("tennis shoes", "tennis shoes", "x on tennis shoes."),
    ],
)
def test_articles_fit_their_noun(name: str, phrase: str, expected: str) -> None:
    things = {"1": Thing("x", "x", (("on", "2"),)), "2": Thing(phrase, name)}
    assert [scene.text for scene in scene_texts(things, 1, len, 999)] == [expected]
