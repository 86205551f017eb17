from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdet.joining import JoinReport, SameImage, by_image, join_items, join_same_image, unite
from llmdet.record import Box, Caption, Link, Record, Region, record_id
from llmdet.rejects import Reject
from llmdet.sources.flickr30k import Flickr30k
from llmdet.validate import faults

Sides = tuple[float, float, float, float]
LEFT, RIGHT, LEFT_HALF = (0.0, 0.0, 40.0, 60.0), (60.0, 0.0, 100.0, 60.0), (0.0, 0.0, 40.0, 40.0)
RULE = SameImage()


def record(text_id: str, text: str, *named: tuple[str, list[Sides]], image: str = "5", **more: Any) -> Record:
    """A record whose regions have one phrase each, at its first place in the text."""
    orders = iter(range(99))
    regions = tuple(
        Region(
            (phrase,),
            ((text.index(phrase), text.index(phrase) + len(phrase)),),
            tuple(Box(xyxy=sides, order=next(orders), annotation_id=f"{text_id}{phrase}") for sides in found),
        )
        for phrase, found in named
    )
    fields: dict[str, Any] = {
        "id": record_id("s", image, text_id),
        "source": "s",
        "image_id": image,
        "text_id": text_id,
        "kind": "grounding",
        "image": f"{image}.jpg",
        "root": "s",
        "width": 100,
        "height": 60,
        "text": text,
        "regions": regions,
        "extra": {"n": text_id},
    }
    return Record(**fields | more)


def shape(joined: Record) -> list[tuple[tuple[str, ...], list[Sides]]]:
    assert faults(joined) == []
    return [(region.phrases, [box.xyxy for box in region.boxes]) for region in joined.regions]


def test_two_texts_become_one_with_their_spans_moved() -> None:
    first = record("0", "A man stands", ("A man", [LEFT]))
    second = record("1", "A bus waits .", ("A bus", [RIGHT]))
    report = JoinReport()
    (joined,) = join_same_image([first, second], RULE, report)
    assert joined.text == "A man stands. A bus waits ."
    assert (joined.id, joined.text_id) == ("s/5/0+1", "0+1")
    assert [region.spans for region in joined.regions] == [((0, 5),), ((14, 19),)]
    assert shape(joined) == [(("A man",), [LEFT]), (("A bus",), [RIGHT])]
    assert [box.order for box in joined.boxes] == [0, 1]
    assert joined.extra == {
        "joined": [
            {"text_id": "0", "start": 0, "extra": {"n": "0"}},
            {"text_id": "1", "start": 14, "extra": {"n": "1"}},
        ]
    }
    assert str(report) == "2 records of 1 images became 1 (50%)"


@pytest.mark.parametrize(
    ("first", "text"),
    [
        ("Red bus", "Red bus. A cat"),
        ("Red bus.", "Red bus. A cat"),
        ("Red bus ? ", "Red bus ? A cat"),
        ("Red bus. ", "Red bus. A cat"),
        ("Red bus ", "Red bus . A cat"),
        ("Red bus!", "Red bus! A cat"),
    ],
)
def test_a_full_stop_stands_between_texts(first: str, text: str) -> None:
    (joined,) = join_same_image([record("0", first), record("1", "A cat", ("A cat", [LEFT]))], RULE)
    assert joined.text == text
    assert shape(joined) == [(("A cat",), [LEFT])]


def test_the_same_boxes_in_both_texts_are_one_region_with_all_phrases() -> None:
    first = record("0", "Two men run .", ("Two men", [LEFT, RIGHT]))
    second = record("1", "Workers run .", ("Workers", [RIGHT, LEFT]))
    third = record("2", "Two men work", ("Two men", [LEFT, RIGHT]))
    (joined,) = join_same_image([first, second, third], RULE)
    assert shape(joined) == [(("Two men", "Workers", "Two men"), [LEFT, RIGHT])]
    assert joined.regions[0].spans == ((0, 7), (14, 21), (28, 35))
    assert [(part["start"], part.get("united")) for part in joined.extra["joined"]] == [
        (0, None),
        (14, ["1Workers", "1Workers"]),
        (28, ["2Two men", "2Two men"]),
    ]


@pytest.mark.parametrize(
    ("first", "second", "settings", "reason"),
    [
        # Another phrase for the same box.
        (("a man", [LEFT]), ("a worker", [LEFT]), {}, None),
        (("a man", [LEFT]), ("a worker", [LEFT]), {"same_box": "conflict"}, "same_box"),
        (("a man", [LEFT]), ("A man", [LEFT]), {"same_box": "conflict"}, None),
        # IoU 2/3: neither the same nor apart.
        (("a man", [LEFT]), ("a worker", [LEFT_HALF]), {}, "overlap"),
        (("a man", [LEFT]), ("a man", [LEFT_HALF]), {}, "overlap"),
        (("a man", [LEFT]), ("a worker", [LEFT_HALF]), {"max_overlap": 0.7}, None),
        (("a man", [LEFT]), ("a worker", [LEFT_HALF]), {"same_iou": 0.6}, None),
        # One box of several is the same: the sets of boxes contradict each other.
        (("two men", [LEFT, RIGHT]), ("a man", [LEFT]), {}, "overlap"),
        # The same words for another thing.
        (("a man", [LEFT]), ("a man", [RIGHT]), {}, "same_phrase"),
        (("a man", [LEFT]), ("A MAN", [RIGHT]), {}, "same_phrase"),
        (("a man", [LEFT]), ("a man", [RIGHT]), {"same_phrase": "keep"}, None),
        (("a man", [LEFT]), ("a bus", [RIGHT]), {}, None),
    ],
)
def test_conflicts_of_boxes_keep_texts_apart(
    first: tuple[str, list[Sides]], second: tuple[str, list[Sides]], settings: dict[str, Any], reason: str | None
) -> None:
    one, two = record("0", first[0], first), record("1", second[0], second)
    report = JoinReport()
    joined = join_same_image([one, two], SameImage(**settings), report)
    assert joined == [one, two] if reason else len(joined) == 1
    assert dict(report.conflicts) == ({reason: 1} if reason else {})


def test_a_word_that_two_regions_share_is_checked_against_both() -> None:
    first = record("0", "a man and a man .", ("a man", [LEFT]))
    again = Region(("a man",), ((10, 15),), (Box(xyxy=RIGHT, order=1),))
    first = replace(first, regions=(*first.regions, again))
    assert unite(first, record("1", "a man", ("a man", [RIGHT])), RULE) == "same_phrase"


def test_a_text_that_fits_nowhere_begins_a_new_one_and_later_texts_try_all() -> None:
    texts = [
        record("0", "a man", ("a man", [LEFT])),
        record("1", "his coat", ("his coat", [LEFT_HALF])),
        record("2", "a bus", ("a bus", [RIGHT])),
    ]
    assert [joined.text_id for joined in join_same_image(texts, RULE)] == ["0+2", "1"]
    assert [joined.text_id for joined in join_same_image(texts, SameImage(order="next_fit"))] == ["0", "1+2"]


def test_limits_of_regions_and_tokens_hold() -> None:
    texts = [record(str(i), f"thing{i}", (f"thing{i}", [(i * 5.0, 0.0, i * 5.0 + 5, 60.0)])) for i in range(9)]
    by_regions = join_same_image(texts, SameImage(max_regions=4))
    assert [len(joined.regions) for joined in by_regions] == [4, 4, 1]
    report = JoinReport()
    by_tokens = join_same_image(texts, SameImage(max_tokens=5, count_tokens=lambda text: len(text.split())), report)
    assert [joined.text_id for joined in by_tokens] == ["0+1+2+3+4", "5+6+7+8"]
    assert set(report.conflicts) == {"too_long"}
    assert by_tokens[0].text == "thing0. thing1. thing2. thing3. thing4"


def test_united_regions_do_not_count_twice() -> None:
    texts = [record(str(i), "a man", ("a man", [LEFT])) for i in range(3)]
    assert len(join_same_image(texts, SameImage(max_regions=1))) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "detection"}, "detection"),
        ({"width": 101}, "not_alike"),
        ({"split": "val"}, "not_alike"),
        ({"orientation": "applied"}, "not_alike"),
        ({"licence": "other"}, "not_alike"),
        ({"negatives": ((0, 5),)}, "negative_named"),
    ],
)
def test_records_of_other_kinds_stay_alone(change: dict[str, Any], reason: str) -> None:
    first = record("0", "a man", ("a man", [LEFT]))
    second = replace(record("1", "a man"), **change)
    assert unite(first, second, RULE) == reason
    assert unite(second, first, RULE) == reason
    assert join_same_image([first, second], RULE) == [first, second]


def test_captions_tags_flags_and_negatives_come_along() -> None:
    caption = Caption("Men wait.", links=(Link((0, 3), 0, 0),))
    other = Caption("A bus and men.", links=(Link((0, 5), 1, 0), Link((10, 13), 0, 0)))
    first = record("0", "A man .", ("A man", [LEFT]), captions=(caption,), tags=("a",), flags=("f",), exhaustive=True)
    second = record("1", "A worker, a bus, no cat", ("A worker", [LEFT]), ("a bus", [RIGHT]), captions=(caption, other))
    second = replace(second, negatives=((20, 23),), tags=("b", "a"), flags=("f", "g"))
    (joined,) = join_same_image([first, second], RULE)
    assert joined.captions == (caption, Caption("A bus and men.", links=(Link((0, 5), 1, 0), Link((10, 13), 0, None))))
    assert (joined.tags, joined.flags, joined.exhaustive) == (("a", "b"), ("f", "g"), False)
    assert [joined.text[start:end] for start, end in joined.negatives] == ["cat"]


def test_a_lone_record_comes_back_as_it_was() -> None:
    alone = record("0", "a man ", ("a man", [LEFT]))
    assert join_same_image([alone], RULE) == [alone]
    report = JoinReport()
    assert join_same_image([], RULE, report) == []
    assert (report.images, report.before, report.after) == (0, 0, 0)


REJECT = Reject("s/6/0#1", "annotation", "fault", "ingest", "box_malformed")


def stream() -> Iterator[Record | Reject]:
    yield record("0", "a man", ("a man", [LEFT]))
    yield record("1", "a bus", ("a bus", [RIGHT]))
    yield REJECT
    yield record("0", "a cat", ("a cat", [LEFT]), image="6")
    yield record("2", "a dog", ("a dog", [RIGHT]))
    yield REJECT


def test_neighbours_of_one_image_are_joined_in_the_order_of_the_source() -> None:
    report = JoinReport()
    items = list(join_items(stream(), RULE, report))
    assert [item.id for item in items] == ["s/5/0+1", "s/6/0#1", "s/6/0", "s/5/2", "s/6/0#1"]
    assert (report.images, report.before, report.after) == (3, 4, 3)


def test_gather_finds_the_texts_of_an_image_wherever_they_stand() -> None:
    report = JoinReport()
    items = list(join_items(stream(), replace(RULE, same_phrase="keep", max_overlap=1.0), report, gather=True))
    assert [item.id for item in items] == ["s/5/0+1+2", "s/6/0#1", "s/6/0", "s/6/0#1"]
    assert (report.images, report.before, report.after) == (2, 4, 2)


def test_grouping_holds_one_image_at_a_time() -> None:
    taken = []

    def watched() -> Iterator[Record | Reject]:
        for item in stream():
            taken.append(item)
            yield item

    groups = by_image(watched())
    assert [item.id for item in next(groups)] == ["s/5/0", "s/5/1"]
    assert len(taken) == 4  # up to the first record of the next image


BOXES = st.tuples(st.integers(0, 8), st.integers(0, 4), st.integers(1, 4), st.integers(1, 3)).map(
    lambda b: (b[0] * 10.0, b[1] * 10.0, (b[0] + b[2]) * 10.0, (b[1] + b[3]) * 10.0)
)
NAMED = st.dictionaries(
    st.sampled_from("man bus cat dog hat".split()), st.lists(BOXES, min_size=1, max_size=2), max_size=3
)


@settings(max_examples=200, deadline=None)
@given(st.lists(NAMED, max_size=6), st.sampled_from(["unite", "conflict"]), st.sampled_from(["first_fit", "next_fit"]))
def test_joining_loses_no_phrase_and_no_box(texts: list[dict[str, list[Sides]]], same_box: Any, order: Any) -> None:
    records = [record(str(i), " and ".join(named) or "nothing", *named.items()) for i, named in enumerate(texts)]
    joined = join_same_image(records, SameImage(same_box=same_box, order=order))
    assert all(faults(one) == [] for one in joined)
    parts = [part["text_id"] for one in joined for part in one.extra.get("joined", [{"text_id": one.text_id}])]
    assert sorted(parts) == sorted(one.text_id for one in records)

    def phrases(some: list[Record]) -> list[str]:
        return sorted(phrase for one in some for region in one.regions for phrase in region.phrases)

    def places(some: list[Record]) -> set[Sides]:
        return {box.xyxy for one in some for box in one.boxes}

    assert phrases(joined) == phrases(records)
    assert places(joined) <= places(records)
    if same_box == "conflict":
        assert {box.xyxy for one in joined for box in one.boxes} >= {
            box.xyxy for one in records for box in one.boxes if sum(box.xyxy in places([r]) for r in records) == 1
        }


def test_real_sentences_join_without_a_fault(samples: Path) -> None:
    report = JoinReport()
    items = Flickr30k(annotations=str(samples / "flickr30k"), images="").read()
    records = [item for item in join_items(items, RULE, report) if isinstance(item, Record)]
    assert (report.images, report.before, report.after) == (22, 110, len(records))
    assert len(records) < 110
    assert [fault for joined in records for fault in faults(joined)] == []
    parts = [(r.image_id, p["text_id"]) for r in records for p in r.extra.get("joined", [{"text_id": r.text_id}])]
    assert len(set(parts)) == 110
