"""The template's sentences are read back by a checker of our own and held against the boxes."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdet.errors import FormatError
from llmdet.nouns import article
from llmdet.record import Box, Record, Region
from llmdet.template import facts_from_json, facts_json, facts_of, image_caption, region_captions

# --- an independent reading of the sentences ------------------------------------------------------------------------

# name -> (as one, as many): written by hand, so that the checker shares no grammar with the template
NAMES = {
    "person": ("a person", "people"),
    "dog": ("a dog", "dogs"),
    "sheep": ("a sheep", "sheep"),
    "umbrella": ("an umbrella", "umbrellas"),
    "knife": ("a knife", "knives"),
    "mouse": ("a mouse", "mice"),
    "skis": ("a pair of skis", "pairs of skis"),
    "scissors": ("a pair of scissors", "pairs of scissors"),
    "wine glass": ("a wine glass", "wine glasses"),
    "bus": ("a bus", "buses"),
    "teddy bear": ("a teddy bear", "teddy bears"),
    "hourglass": ("an hourglass", "hourglasses"),
    "berry": ("a berry", "berries"),
    "unicycle": ("a unicycle", "unicycles"),
}
WORDS = "one two three four five six seven eight nine ten eleven twelve".split()
COLOUR = r"(?:(red|blue|green|white|black|orange) )?"


def number(word: str) -> int:
    return int(word) if word.isdigit() else WORDS.index(word) + 1


class Reader:
    """Reads a caption of class names back into claims and checks each against the boxes."""

    def __init__(self, record: Record, colours: list[str | None] | None = None) -> None:
        self.w, self.h = record.width, record.height
        self.boxes: dict[tuple[str, bool], list[tuple[float, ...]]] = defaultdict(list)
        self.colours: dict[tuple[str, bool], set[str | None]] = defaultdict(set)
        at = 0
        for region in record.regions:
            for box in region.boxes:
                x1, y1, x2, y2 = box.xyxy
                cut = (max(x1, 0), max(y1, 0), min(x2, self.w), min(y2, self.h))
                self.boxes[region.phrases[0], box.crowd].append(cut)
                self.colours[region.phrases[0], box.crowd].add(colours[at] if colours else None)
                at += 1

    def name(self, text: str) -> tuple[tuple[str, bool], int]:
        """("the two dogs" or "a dog") -> ((name, crowd), count), and the colour is checked on the way."""
        text = text[0].lower() + text[1:]
        text = re.sub(r"^the ", "", text)
        crowd = re.match(r"(?:(?:a )?group|(\w+) groups) of (.+)$", text)
        if crowd:
            name = next(n for n, (_, many) in NAMES.items() if many == crowd[2])
            return (name, True), number(crowd[1]) if crowd[1] else 1
        for name, (one, many) in NAMES.items():
            bare = one.split(" ", 1)[1]
            if found := re.fullmatch(rf"(?:an? )?{COLOUR}{bare}", text):
                self.check_colour(found[1], name)
                return (name, False), 1
            if found := re.fullmatch(rf"(\w+) {COLOUR}{many}", text):
                if found[1] in ("a", "an"):
                    continue
                self.check_colour(found[2], name)
                return (name, False), number(found[1])
        raise AssertionError(f"not a known name: {text!r}")

    def check_colour(self, colour: str | None, name: str) -> None:
        if colour:
            assert self.colours[name, False] == {colour}

    def known(self, text: str) -> list[tuple[float, ...]]:
        key, count = self.name(text)
        assert len(self.boxes[key]) == count, f"{text!r}: {len(self.boxes[key])} boxes"
        return self.boxes[key]

    def one(self, text: str) -> tuple[float, ...]:
        (box,) = self.known(text)
        return box

    def column(self, box: tuple[float, ...]) -> str:
        return thirds((box[0] + box[2]) / 2, self.w, ("on the left", "in the middle", "on the right"))

    def place(self, box: tuple[float, ...]) -> str:
        row = thirds((box[1] + box[3]) / 2, self.h, ("top", "", "bottom"))
        column = thirds((box[0] + box[2]) / 2, self.w, ("left", "", "right"))
        if row:
            return f"at the {row} {column}".strip()
        return f"on the {column}" if column else "in the centre"

    def check(self, caption: str) -> None:
        first, *rest = re.split(r"(?<=\.) ", caption)
        self.check_overview(first)
        for sentence in rest:
            self.check_sentence(sentence)
        assert len(caption.split()) <= 150
        assert len(rest) <= 7

    def check_overview(self, sentence: str) -> None:
        listing = re.fullmatch(r"(?:The picture shows|This picture shows|The image shows|In view:) (.+)\.", sentence)
        assert listing, sentence
        items = re.split(r", | and ", listing[1])
        more = re.fullmatch(r"(\w+) more kinds? of things", items[-1])
        named = items[:-1] if more else items
        keys = [self.name(item)[0] for item in named]
        for item in named:
            self.known(item)
        assert len(set(keys)) == len(keys)
        assert len(keys) + (number(more[1]) if more else 0) == len(self.boxes)

    def check_sentence(self, s: str) -> None:
        place = r"(at the (?:top|bottom)(?: left| right)?|on the left|on the right|in the centre)"
        if m := re.fullmatch(r"Of (.+?), (\w+ can be seen .+)\.", s):
            columns = [self.column(box) for box in self.known(m[1])]
            parts = re.split(r", | and ", m[2])
            claims = [re.fullmatch(r"(\w+) can be seen (.+)", part) for part in parts]
            assert sum(number(c[1]) for c in claims if c) == len(columns)
            assert all(c and columns.count(c[2]) == number(c[1]) for c in claims), s
        elif m := re.fullmatch(rf"(.+?) (?:is|can be seen) {place}(?:, filling (.+) of the picture)?\.", s):
            box = self.one(m[1])
            assert self.place(box) == m[2], s
            if m[3]:
                ranges = {"about a quarter": (0.22, 0.28), "about a third": (0.29, 0.37), "about half": (0.44, 0.56)}
                ranges |= {"about two thirds": (0.61, 0.73), "nearly all": (0.9, 1.0)}
                low, high = ranges[m[3]]
                assert low - 1e-9 <= area(box) / (self.w * self.h) <= high + 1e-9, s
        elif m := re.fullmatch(r"(.+) can (both|all) be seen (on the left|in the middle|on the right)\.", s):
            boxes = self.known(m[1])
            assert {self.column(box) for box in boxes} == {m[3]}, s
            assert (len(boxes) == 2) == (m[2] == "both")
        elif m := re.fullmatch(r"(.+) can be seen (to the left of|to the right of|above|below) (.+)\.", s):
            a, b = self.one(m[1]), self.one(m[3])
            true = {"to the left of": a[2] <= b[0], "to the right of": a[0] >= b[2]}
            true |= {"above": a[3] <= b[1], "below": a[1] >= b[3]}
            assert true[m[2]], s
        elif m := re.fullmatch(r"(.+) and (.+) overlap in the picture\.", s):
            a, b = self.one(m[1]), self.one(m[2])
            assert min(a[2], b[2]) > max(a[0], b[0]), s
            assert min(a[3], b[3]) > max(a[1], b[1]), s
        elif m := re.fullmatch(r"(.+) takes up more of the picture than (.+)\.", s):
            assert area(self.one(m[1])) > 1.5 * area(self.one(m[2])), s
        else:
            raise AssertionError(f"the checker cannot read: {s}")


def thirds(at: float, side: float, names: tuple[str, str, str]) -> str:
    return names[0] if 3 * at < side else names[2] if 3 * at > 2 * side else names[1]


def area(box: tuple[float, ...]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def check_regions(record: Record, captions: list[str]) -> None:
    reader = Reader(record)
    boxes = [(region.phrases[0], box) for region in record.regions for box in region.boxes]
    assert len(captions) == len(boxes)
    for caption, (name, box) in zip(captions, boxes, strict=True):
        x1, y1, x2, y2 = box.xyxy
        cut = (max(x1, 0), max(y1, 0), min(x2, record.width), min(y2, record.height))
        one, many = NAMES[name]
        share = area(cut) / (record.width * record.height)
        place = reader.place(cut)
        if box.crowd:
            assert caption == f"a group of {many} {place}"
        elif "small" in caption:
            assert share < 0.02
            assert caption == f"a small {one.split(' ', 1)[1]} {place}"
        elif "large" in caption:
            assert share > 0.25
            assert caption == f"a large {one.split(' ', 1)[1]} {place}"
        else:
            assert 0.02 <= share <= 0.25
            assert caption == f"{one} {place}"


# --- records --------------------------------------------------------------------------------------------------------


def detection(regions: dict[str, list[Box]], key: str = "s/1/0", size: tuple[int, int] = (600, 300)) -> Record:
    made = tuple(Region((name,), ((0, len(name)),), tuple(boxes)) for name, boxes in regions.items())
    return Record(key, "s", "1", "0", "detection", "1.jpg", "root", *size, "text", made)


@st.composite
def records(draw: st.DrawFn) -> Record:
    width, height = draw(st.integers(20, 900)), draw(st.integers(20, 900))
    names = draw(st.lists(st.sampled_from(sorted(NAMES)), max_size=14, unique=True))
    regions: dict[str, list[Box]] = {}
    for name in names:
        boxes = []
        for _ in range(draw(st.integers(1, 4))):
            x1, y1 = draw(st.floats(-20, width - 2)), draw(st.floats(-20, height - 2))
            x2 = draw(st.floats(max(x1, 0) + 1, width + 20))
            y2 = draw(st.floats(max(y1, 0) + 1, height + 20))
            boxes.append(Box((x1, y1, x2, y2), crowd=draw(st.booleans()) and draw(st.booleans())))
        regions[name] = boxes
    return detection(regions, draw(st.text(min_size=1, max_size=5)), (width, height))


@settings(deadline=None, max_examples=300)
@given(records())
def test_every_sentence_about_generated_boxes_is_true(record: Record) -> None:
    caption = image_caption(facts_of(record))
    if record.boxes:
        Reader(record).check(caption)
    else:
        width, height = record.width, record.height
        form = "square" if width == height else "wider than it is high" if width > height else "higher than it is wide"
        assert caption == f"The picture is {form} and measures {width} by {height} pixels."
    check_regions(record, region_captions(facts_of(record)))


def coco_tiny(samples: Path) -> list[Record]:
    data = json.loads((samples / "coco/coco_tiny_val/annotations/instances_val2017.json").read_text())
    names = {category["id"]: category["name"] for category in data["categories"]}
    NAMES.update({name: (article(name) + " " + name, name + "s") for name in names.values() if name not in NAMES})
    NAMES.update({"sandwich": ("a sandwich", "sandwiches"), "couch": ("a couch", "couches")})
    NAMES.update({"bench": ("a bench", "benches"), "toothbrush": ("a toothbrush", "toothbrushes")})
    NAMES.update({"broccoli": ("a piece of broccoli", "pieces of broccoli")})
    regions: dict[int, dict[str, list[Box]]] = defaultdict(lambda: defaultdict(list))
    for note in data["annotations"]:
        x, y, w, h = note["bbox"]
        box = Box((x, y, x + w, y + h), crowd=bool(note["iscrowd"]))
        regions[note["image_id"]][names[note["category_id"]]].append(box)
    return [detection(regions[i["id"]], f"coco/{i['id']}/0", (i["width"], i["height"])) for i in data["images"]]


def test_every_sentence_about_real_coco_boxes_is_true(samples: Path) -> None:
    checked = 0
    for record in coco_tiny(samples):
        if record.boxes:
            Reader(record).check(image_caption(facts_of(record)))
            checked += 1
        check_regions(record, region_captions(facts_of(record)))
    assert checked == 80


def test_the_checker_itself_finds_each_kind_of_lie() -> None:
    record = detection({"dog": [Box((0, 100, 100, 200))], "bus": [Box((400, 100, 500, 290)), Box((450, 0, 600, 90))]})
    reader = Reader(record)
    reader.check("In view: a dog and two buses. The dog is on the left. The two buses can both be seen on the right.")
    lies = [
        "In view: two dogs and two buses.",
        "In view: a dog.",
        "In view: a dog and two buses. The dog is at the top left.",
        "In view: a dog and two buses. The two buses can both be seen on the left.",
        "In view: a dog and two buses. Of the two buses, one can be seen on the left and one can be seen on the right.",
        "In view: a dog and two buses. The dog is on the left, filling about half of the picture.",
        "In view: a red dog and two buses.",
    ]
    for lie in lies:
        with pytest.raises(AssertionError):
            Reader(record).check(lie)


# --- exact texts ----------------------------------------------------------------------------------------------------


def test_caption_of_one_large_object_says_place_and_share() -> None:
    record = detection({"bus": [Box((0, 0, 300, 300))]}, key="1")
    assert image_caption(facts_of(record)).endswith(
        " a bus. The bus is on the left, filling about half of the picture."
    ) or (
        image_caption(facts_of(record)).endswith("The bus can be seen on the left, filling about half of the picture.")
    )


def test_same_record_gives_same_text_and_ids_vary_the_wording() -> None:
    texts = {image_caption(facts_of(detection({"bus": [Box((0, 0, 300, 300))]}, key=str(n)))) for n in range(40)}
    assert 4 <= len(texts) <= 8
    record = detection({"bus": [Box((0, 0, 300, 300))]})
    assert image_caption(facts_of(record)) == image_caption(facts_of(record))


def test_colours_are_said_of_one_and_of_all_alike_but_never_twice() -> None:
    regions = {"bus": [Box((0, 0, 190, 190))], "dog": [Box((0, 0, 90, 90)), Box((300, 0, 390, 90))]}
    record = detection(regions)
    caption = image_caption(facts_of(record, ["red", "black", "black"]))
    assert "a red bus" in caption
    assert "two black dogs" in caption
    Reader(record, ["red", "black", "black"]).check(caption)
    assert "two dogs" in image_caption(facts_of(record, ["red", "black", None]))
    assert region_captions(facts_of(record, ["red", "black", None]))[:2] == [
        "a red bus at the top left",
        "a black dog at the top left",
    ]
    circle = detection({"red circle": [Box((0, 0, 50, 50))]})
    assert region_captions(facts_of(circle, ["red"])) == ["a small red circle at the top left"]


def test_colours_must_match_the_boxes() -> None:
    with pytest.raises(FormatError, match="1 boxes, 2 colours"):
        facts_of(detection({"bus": [Box((0, 0, 9, 9))]}), ["red", "red"])


def test_absent_names_are_not_mentioned() -> None:
    record = replace(detection({"bus": [Box((0, 0, 90, 90))]}), text="bus. zebra. ", negatives=((5, 10),))
    assert "zebra" not in image_caption(facts_of(record))
    assert "zebra" not in facts_json(record)


def grounding(*regions: tuple[str, list[tuple[float, float, float, float]]]) -> Record:
    made = tuple(Region((phrase,), ((0, 1),), tuple(Box(box) for box in boxes)) for phrase, boxes in regions)
    return Record("g/1/0", "g", "1", "0", "grounding", "1.jpg", "root", 500, 375, "text", made)


def test_free_phrases_keep_their_words_and_read_as_sentences() -> None:
    record = grounding(
        ("Two girls", [(101.0, 88.5, 190.0, 320.0), (230.0, 92.0, 318.0, 318.0)]),
        ("a puddle", [(60.0, 300.0, 400.0, 360.0)]),
        ("blue umbrella", [(20.0, 40.0, 50.0, 110.0)]),
    )
    caption = image_caption(facts_of(record))
    assert " two girls, a puddle and the blue umbrella. " in caption
    assert "The puddle can be seen at the bottom." in caption
    assert "The blue umbrella can be seen at the top left." in caption
    assert "The puddle can be seen below the blue umbrella." in caption
    assert region_captions(facts_of(record)) == [
        "one of the two girls on the left",
        "one of the two girls in the centre",
        "a puddle at the bottom",
        "the blue umbrella at the top left",
    ]


def test_two_things_of_the_same_phrase_are_never_told_apart_by_the() -> None:
    record = grounding(("a man", [(0, 0, 50, 50)]), ("a man", [(400, 0, 450, 50)]))
    caption = image_caption(facts_of(record))
    assert " a man and a man. " in caption
    assert "he man" not in caption
    assert "A man can be seen at the top left." in caption
    assert "A man can be seen at the top right." in caption


def test_many_long_phrases_stay_within_the_word_limit() -> None:
    phrase = "a very long description of one thing that goes on and on"
    record = grounding(*[(f"{phrase} {n}", [(float(n), float(n), n + 40.0, n + 40.0)]) for n in range(60)])
    caption = image_caption(facts_of(record))
    assert len(caption.split()) <= 150
    assert "other things" in caption


def test_a_sign_that_forbids_does_not_become_a_negation() -> None:
    assert " the no parking sign" in image_caption(facts_of(grounding(("no parking sign", [(0, 0, 50, 50)]))))
    assert " a no parking sign" in image_caption(facts_of(detection({"no parking sign": [Box((0, 0, 50, 50))]})))


# --- the request's text ---------------------------------------------------------------------------------------------


def test_facts_json_changes_with_boxes_phrases_and_crowds_only() -> None:
    record = detection({"bus": [Box((0, 0, 90, 90))]})
    base = facts_json(record)
    assert base == '["s/1/0","detection",600,300,[[["bus"],[[0,0,90,90]],[0]]]]'
    assert facts_json(detection({"bus": [Box((0, 0, 90, 90.5))]})) != base
    assert facts_json(detection({"car": [Box((0, 0, 90, 90))]})) != base
    assert facts_json(detection({"bus": [Box((0, 0, 90, 90), crowd=True)]})) != base
    assert facts_json(detection({"bus": [Box((0, 0, 90, 90))]}, size=(600, 301))) != base
    assert facts_json(replace(record, image_sha256="x", captions=(), tags=("a",))) == base


@settings(deadline=None, max_examples=50)
@given(records())
def test_facts_come_back_from_their_text(record: Record) -> None:
    assert facts_from_json(facts_json(record)) == facts_of(record)


@pytest.mark.parametrize("text", ["", "{}", "[1]", "null", '["a","detection",1,1,[[1,2,3]]]'])
def test_another_text_is_a_format_error(text: str) -> None:
    with pytest.raises(FormatError, match="facts_json"):
        facts_from_json(text)
