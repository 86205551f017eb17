import io
import json
import tarfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from llmdet.errors import FormatError, MissingError
from llmdet.record import Record
from llmdet.rejects import Reject
from llmdet.sources.entities import parse_sentence, parse_sheet
from llmdet.sources.flickr30k import Flickr30k
from llmdet.validate import faults

SENTENCES = (
    "[/EN#71/people Two boys] climb [/EN#72/other/scene a tall fence] .\n"
    "[/EN#71/people They] rest on [/EN#72/other it] and [/EN#72/other its top] in [/EN#73/scene the sun] \n"
    "[/EN#0/notvisual Nothing] to see .\n"
)


def thing(name: str, inner: str) -> str:
    names = "".join(f"<name>{one}</name>" for one in name.split(","))
    return f"<object>{names}{inner}</object>"


def box(*sides: object) -> str:
    tags = ("xmin", "ymin", "xmax", "ymax")
    return "<bndbox>" + "".join(f"<{tag}>{side}</{tag}>" for tag, side in zip(tags, sides, strict=True)) + "</bndbox>"


def sheet(*things: str, size: str = "<width>100</width><height>60</height>") -> str:
    return f"<annotation><filename>5.jpg</filename><size>{size}<depth>3</depth></size>{''.join(things)}</annotation>"


XML = sheet(
    thing("71", box(1, 2, 40, 60)),
    thing("72", box(30, 20, 100, 60)),
    thing("71", box(35, 5, 60, 50)),
    thing("71,72", box(1, 1, 100, 60)),
    thing("73", "<scene>1</scene><nobndbox>0</nobndbox>"),
    thing("99", box(1, 2, 3, 4)),
)


def put(root: Path, photo: str = "5", xml: str | bytes | None = XML, sentences: str | bytes | None = SENTENCES) -> Path:
    for folder, ending, content in (("Annotations", "xml", xml), ("Sentences", "txt", sentences)):
        (root / folder).mkdir(exist_ok=True)
        if content is not None:
            data = content if isinstance(content, bytes) else content.encode()
            (root / folder / f"{photo}.{ending}").write_bytes(data)
    return root


def read(path: Path, **settings: Any) -> tuple[list[Record], list[Reject]]:
    items = list(Flickr30k(annotations=str(path), images="photos", **settings).read())
    records = [item for item in items if isinstance(item, Record)]
    assert [fault for record in records for fault in faults(record)] == []
    return records, [item for item in items if isinstance(item, Reject)]


def shape(record: Record) -> list[tuple[tuple[str, ...], list[tuple[int, str | None]]]]:
    return [(region.phrases, [(b.order, b.annotation_id) for b in region.boxes]) for region in record.regions]


def test_a_sentence_becomes_a_record(tmp_path: Path) -> None:
    record = read(put(tmp_path))[0][0]
    assert (record.id, record.image_id, record.text_id) == ("flickr30k/5/0", "5", "0")
    assert (record.image, record.width, record.height, record.kind) == ("5.jpg", 100, 60, "grounding")
    assert record.text == "Two boys climb a tall fence ."
    assert [region.spans for region in record.regions] == [((0, 8),), ((0, 8), (15, 27)), ((15, 27),)]
    assert record.boxes[0].xyxy == (1.0, 2.0, 40.0, 60.0)  # 1-based, as the file has it
    assert record.extra == {
        "sentence_id": 0,
        "phrases": [
            {"span": [0, 8], "entity": "71", "types": ["people"]},
            {"span": [15, 27], "entity": "72", "types": ["other", "scene"]},
        ],
    }


def test_a_box_of_two_named_entities_has_the_phrases_of_both(tmp_path: Path) -> None:
    assert shape(read(put(tmp_path))[0][0]) == [
        (("Two boys",), [(0, "71"), (2, "71")]),
        (("Two boys", "a tall fence"), [(3, "71,72")]),
        (("a tall fence",), [(1, "72")]),
    ]


def test_an_entity_named_twice_has_both_phrases_and_a_scene_has_a_flag(tmp_path: Path) -> None:
    record = read(put(tmp_path))[0][1]
    assert record.text == "They rest on it and its top in the sun"
    assert shape(record)[-1] == (("it", "its top"), [(1, "72")])
    assert record.extra["phrases"][-1] == {"span": [31, 38], "entity": "73", "types": ["scene"], "scene": True}


def test_notvisual_is_kept_as_a_phrase_without_region(tmp_path: Path) -> None:
    record = read(put(tmp_path))[0][2]
    assert record.regions == ()
    assert record.extra["phrases"] == [{"span": [0, 7], "entity": "0", "types": ["notvisual"]}]


def test_a_box_that_no_sentence_names_is_a_policy_reject(tmp_path: Path) -> None:
    (reject,) = read(put(tmp_path))[1]
    assert (reject.id, reject.level, reject.kind, reject.reason) == (
        *("flickr30k/5/0#5", "annotation", "policy", "entity_not_named"),
    )


def test_lists_give_the_split_and_mark_unrelated_captions(tmp_path: Path) -> None:
    put(put(put(tmp_path), "6"), "70")
    (tmp_path / "train.txt").write_text("5\n")
    (tmp_path / "val.txt").write_text("6\n")
    (tmp_path / "UNRELATED_CAPTIONS").write_text("# format: <imageID> <sentence number>\n6 2\n5 3")
    records, _ = read(tmp_path)
    assert [(r.id, r.split) for r in records if r.text_id == "0"] == [
        ("flickr30k/5/0", "train"),
        ("flickr30k/6/0", "val"),
        ("flickr30k/70/0", ""),
    ]
    assert [r.id for r in records if r.flags == ("unrelated_caption",)] == ["flickr30k/5/2", "flickr30k/6/1"]
    chosen, rejects = read(tmp_path, split="val")
    assert {r.image_id for r in chosen} == {"6"}
    others = [(r.id, r.kind) for r in rejects if r.reason == "other_split"]
    assert others == [("flickr30k/5/0", "policy"), ("flickr30k/70/0", "policy")]


def test_a_photo_of_two_lists_counts_to_the_evaluated_one_and_the_other_list_is_not_missing(tmp_path: Path) -> None:
    put(tmp_path)
    (tmp_path / "train.txt").write_text("5\n")
    (tmp_path / "val.txt").write_text("5\n")
    records, (reject,) = read(tmp_path, split="train")
    assert (records, reject.reason) == ([], "other_split")


def test_a_split_without_its_list_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"no list test\.txt"):
        read(put(tmp_path), split="test")


@pytest.mark.parametrize("ending", ["tar.gz", "tar", "zip"])
def test_an_archive_gives_the_same_as_its_folder(tmp_path: Path, ending: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    put(put(put(folder, "100"), "20"), "3")
    archive = tmp_path / f"entities.{ending}"
    files = sorted(folder.rglob("*.*"), reverse=True)
    if ending == "zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for file in files:
                packed.write(file, f"Flickr30kEntities/{file.relative_to(folder)}")
            packed.writestr("__MACOSX/Annotations/._3.xml", "no annotation")
    else:
        with tarfile.open(archive, f"w:{'gz' if ending == 'tar.gz' else ''}") as tar:
            for file in files:
                tar.add(file, f"Flickr30kEntities/{file.relative_to(folder)}")
    assert read(archive) == read(folder)
    assert [r.image_id for r in read(archive)[0]] == ["3"] * 3 + ["20"] * 3 + ["100"] * 3


def test_a_file_of_absurd_size_is_not_unpacked(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, data in (("Annotations/1.xml", b" " * 5_000_000), ("Sentences/1.txt", b"x")):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    records, (reject,) = read(archive)
    assert records == []
    assert (reject.reason, reject.detail) == ("file_malformed", "1: its file in Annotations has over 4000000 bytes")


@pytest.mark.parametrize(
    ("xml", "detail"),
    [
        (None, "its file in Annotations is missing"),
        ("", "not XML"),
        ("<annotation>", "not XML"),
        (sheet(size="<width>100</width>"), "width and height"),
        (sheet(size="<width>1e2</width><height>6</height>"), "width and height"),
        (sheet(size="<width>0</width><height>6</height>"), "must be positive"),
        ('<!DOCTYPE a [<!ENTITY b "bb">]><annotation>&b;</annotation>', "document type"),
        (b"<annotation>\xff</annotation>", "not XML"),
    ],
)
def test_a_bad_xml_costs_that_photo_only(tmp_path: Path, xml: str | bytes | None, detail: str) -> None:
    put(put(tmp_path, "4", xml=xml), "5")
    records, rejects = read(tmp_path)
    assert {record.image_id for record in records} == {"5"}
    assert (rejects[0].id, rejects[0].level, rejects[0].kind, rejects[0].reason) == (
        *("flickr30k/4/0", "record", "fault", "file_malformed"),
    )
    assert detail in rejects[0].detail


@pytest.mark.parametrize("sentences", [None, b"\xff\xfe"])
def test_bad_sentences_cost_that_photo_only(tmp_path: Path, sentences: bytes | None) -> None:
    records, rejects = read(put(put(tmp_path, "4", sentences=sentences), "5"))
    assert {record.image_id for record in records} == {"5"}
    assert (rejects[0].id, rejects[0].reason) == ("flickr30k/4/0", "file_malformed")


@pytest.mark.parametrize(
    ("inner", "reason"),
    [
        (box(1, 2, 1, 60), "box_below_one_pixel"),
        (box(101, 2, 140, 60), "box_outside_image"),
        (box("nan", 2, 40, 60), "box_not_finite"),
        (box("left", 2, 40, 60), "row_malformed"),
        ("<bndbox><xmin>3</xmin></bndbox>", "row_malformed"),
    ],
)
def test_a_bad_object_costs_that_box_only(tmp_path: Path, inner: str, reason: str) -> None:
    xml = sheet(thing("72", inner), thing("71", box(1, 2, 40, 60)))
    records, (reject,) = read(put(tmp_path, xml=xml))
    assert shape(records[0]) == [(("Two boys",), [(1, "71")])]
    assert (reject.id, reject.level, reject.kind, reject.reason) == ("flickr30k/5/0#0", "annotation", "fault", reason)


def test_a_bad_line_costs_that_sentence_only(tmp_path: Path) -> None:
    records, rejects = read(put(tmp_path, sentences="[/EN#71/people Two boys climb .\n\n[/EN#71/people Boys] ."))
    assert [(record.id, record.text) for record in records] == [("flickr30k/5/2", "Boys .")]
    faulty = [(r.id, r.reason, r.detail) for r in rejects if r.kind == "fault"]
    assert faulty == [
        ("flickr30k/5/0", "sentence_malformed", "Sentences/5.txt line 1: the mark of entity 71 is not closed"),
        ("flickr30k/5/1", "text_empty", "Sentences/5.txt line 2 has no words"),
    ]


@pytest.mark.parametrize(
    "line",
    ["[/EN#1/people ]", "[/EN#x/people a]", "[/EN#1 a]", "[/EN#1/people a [/EN#2/other b]]", "[/EN#1//people a]"],
)
def test_malformed_marks_are_refused(line: str) -> None:
    with pytest.raises(FormatError):
        parse_sentence(line)


def test_brackets_and_blanks_of_the_sentence_itself_stay_out_of_the_marks() -> None:
    text, phrases = parse_sentence(" A [sic]  sign ]  by [/EN#4/other a  [ red ] ")
    assert text == "A [sic] sign ] by a [ red"
    assert [text[slice(*phrase.span)] for phrase in phrases] == ["a [ red"]


def test_an_object_without_names_says_so() -> None:
    (found,) = parse_sheet(sheet("<object><bndbox/></object>").encode()).things
    assert found == "an object without a name belongs to no entity"


def test_another_folder_or_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="is not Flickr30k Entities"):
        read(tmp_path)
    (tmp_path / "a.zip").write_text("no zip")
    with pytest.raises(FormatError, match="not a readable archive"):
        read(tmp_path / "a.zip")
    (tmp_path / "a.tar.gz").write_text("no tar")
    with pytest.raises(FormatError, match="not a readable archive"):
        read(tmp_path / "a.tar.gz")
    with pytest.raises(MissingError):
        read(tmp_path / "none.tar.gz")
    with pytest.raises(MissingError):
        Flickr30k(annotations=str(tmp_path / "none"), images="").info()


# --- real files ----------------------------------------------------------------------------------------------------


def as_odvg(record: Record) -> dict[str, Any]:
    """A record as a line of mmdet's VG jsonl, in the form of goldg2odvg."""
    regions = []
    for region in record.regions:
        found = [list(one.xyxy) for one in region.boxes]
        phrases = list(region.phrases)
        regions.append(
            {
                "bbox": found[0] if len(found) == 1 else found,
                "phrase": phrases[0] if len(phrases) == 1 else phrases,
                "tokens_positive": [list(span) for span in region.spans],
            }
        )
    grounding = {"caption": record.text, "regions": regions}
    return {"filename": record.image, "height": record.height, "width": record.width, "grounding": grounding}


def test_mdetr_json_equals_mmdets_conversion_line_by_line(samples: Path) -> None:
    reference = (samples / "odvg" / "flickr_separateGT_train_vg.jsonl").read_text().splitlines()
    records, rejects = read(samples / "goldg" / "final_flickr_separateGT_train.json")
    assert rejects == []
    assert [as_odvg(record) for record in records] == [json.loads(line) for line in reference]
    assert (len(records), sum(len(record.regions) for record in records)) == (40, 123)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_entities_give_the_boxes_and_spans_of_mdetrs_own_script(samples: Path, split: Any) -> None:
    entities = {record.id: record for record in read(samples / "flickr30k", split=split)[0]}
    combined, _ = read(samples / "goldg" / f"final_flickr_separateGT_{split}.json")
    assert len(combined) == len(entities) > 0

    def pairs(record: Record) -> set[tuple[Any, Any]]:
        return {(one.xyxy, region.spans) for region in record.regions for one in region.boxes}

    for record in combined:
        own = entities[record.id]
        assert (own.text, own.image, own.width, own.height) == (record.text, record.image, record.width, record.height)
        assert pairs(own) == pairs(record), record.id
        assert own.split == record.split == split


def test_merged_ground_truth_has_one_box_a_region(samples: Path) -> None:
    records, rejects = read(samples / "goldg" / "final_flickr_mergedGT_val.json")
    assert rejects == []
    assert {len(region.boxes) for record in records for region in record.regions} == {1}


def test_the_22_photos_have_five_sentences_each(samples: Path) -> None:
    records, _ = read(samples / "flickr30k")
    assert Counter(Counter(record.image_id for record in records).values()) == {5: 22}
    assert Counter(record.split for record in records) == {"train": 40, "val": 35, "test": 35}
