"""How many planted faults the checks flag, with which reason, and how often they flag what is true.

    LLMDET_SAMPLES=... PYTHONPATH=.:benchmarks python benchmarks/planted_faults.py [--parser nltk] [--each 250]

True captions are made of `caption_forms` from drawn scenes (objects, counts, positions), rendered scenes (colours) and
real boxes of COCO; people's captions are those of LLaVA's rows of captions with boxes (COCO's, all 80 names known) and
of Flickr30k Entities (phrases linked by its annotators). Each planted fault changes one sentence of a caption. Without
LLMDET_SAMPLES only the first two are measured.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import caption_forms as forms
import orjson
from caption_forms import Fact

from llmdet.checks.reading import read
from llmdet.detection_text import detection_text
from llmdet.nouns import COLOURS, class_noun, count_word
from llmdet.record import Box, Caption, Link, Record, Region
from llmdet.rules import Kept
from llmdet.rules.checks import CheckColours, CheckCounts, CheckObjects, CheckPositions
from llmdet.sources.coco import Coco
from llmdet.sources.flickr30k import Flickr30k
from llmdet.tagging import ParserName, resolve_parser
from llmdet.world import write_world

REASONS = {
    "wrong object": "ungrounded_object",
    "wrong count": "count_contradiction",
    "mirrored position": "position_contradiction",
    "wrong colour": "colour_contradiction",
}
CONTRADICTIONS = frozenset(REASONS.values())
COCO_NAMES = (
    "person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant stop_sign "
    "parking_meter bench bird cat dog horse sheep cow elephant bear zebra giraffe backpack umbrella handbag tie "
    "suitcase frisbee skis snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard "
    "tennis_racket bottle wine_glass cup fork knife spoon bowl banana apple sandwich orange broccoli carrot "
    "hot_dog pizza donut cake chair couch potted_plant bed dining_table toilet tv laptop mouse remote keyboard "
    "cell_phone microwave oven toaster sink refrigerator book clock vase scissors teddy_bear hair_drier "
    "toothbrush"
)
NAMES = [name.replace("_", " ") for name in COCO_NAMES.split()]


@dataclass(frozen=True)
class Case:
    """A record with a caption; `kind` is the fault that was planted, or nothing."""

    record: Record
    kind: str
    text: str
    form: str = ""


# --- true captions and faults in them -------------------------------------------------------------------------------

Facts = Callable[[Record, random.Random], list[Fact]]
Plant = Callable[[Fact, random.Random], Fact]
KINDS: dict[str, tuple[Facts, Plant]] = {
    "wrong object": (forms.object_facts, forms.wrong_object),
    "wrong count": (forms.count_facts, forms.wrong_count),
    "mirrored position": (forms.place_facts, forms.mirrored),
}


def cases(records: Sequence[Record], kind: str, each: int, rng: random.Random, later: bool = False) -> Iterator[Case]:
    """`each` captions with a fault of a kind, and the same captions without it; the fault in a later form if asked."""
    facts_of, plant = KINDS[kind]
    made = 0
    while made < each:
        record = rng.choice(records)
        facts = facts_of(record, rng)
        if not facts:
            continue
        fact = rng.choice(facts)
        if later and (other := forms.in_later_form(fact, rng)):
            fact = other
        elif later:
            continue
        beside = [f for make, _ in KINDS.values() for f in make(record, rng) if f.name != fact.name]
        beside = [f for f in beside if fact.name not in (f.name, f.other) and fact.other not in (f.name, f.other)]
        others = [f.text() for f in rng.sample(beside, min(len(beside), rng.randrange(3)))]
        others += rng.sample(forms.FILLERS, rng.randrange(3))
        place = rng.randrange(len(others) + 1)
        for name, one in (("", fact), (kind, plant(fact, rng))):
            text = " ".join([*others[:place], one.text(), *others[place:]])
            yield Case(replace(record, captions=(Caption(text),)), name, text, fact.form)
        made += 1


def colour_cases(
    scenes: list[tuple[Record, dict[str, str]]], each: int, rng: random.Random, later: bool = False
) -> Iterator[Case]:
    """The same for colours: half in captions of the image, half in captions of the box (later forms: of the image)."""
    for number in range(each):
        record, tints = rng.choice(scenes)
        while not tints:
            record, tints = rng.choice(scenes)
        name = rng.choice(sorted(tints))
        number = 1 if later else number
        form = rng.choice(forms.LATER_COLOURS if later else forms.COLOURS if number % 2 else forms.REGION_COLOURS)
        fact = Fact(form, name, colour=tints[name])
        others = rng.sample(forms.FILLERS, rng.randrange(3)) if number % 2 else []
        for kind, one in (("", fact), ("wrong colour", forms.wrong_colour(fact, rng))):
            text = " ".join([one.text(), *others])
            if number % 2:
                yield Case(replace(record, captions=(Caption(text),)), kind, text, form)
            else:
                yield Case(_with_box_caption(record, name, text), kind, text, form)


def _with_box_caption(record: Record, name: str, text: str) -> Record:
    regions = [
        replace(r, boxes=(replace(r.boxes[0], caption=Caption(text)),)) if r.phrases == (name,) else r
        for r in record.regions
    ]
    return replace(record, regions=tuple(regions))


def drawn_scenes(count: int, rng: random.Random) -> list[Record]:
    """Records with up to six of COCO's names, one to five boxes each, all the others known to be absent."""
    return [_drawn(number, rng) for number in range(count)]


def _drawn(number: int, rng: random.Random) -> Record:
    width, height = rng.choice([(640, 480), (480, 640), (500, 375), (1024, 683)])
    names = rng.sample(NAMES, rng.randrange(2, 7))
    boxes: dict[str, tuple[Box, ...]] = {}
    for name in names:
        size = rng.uniform(0.08, 0.3)
        boxes[name] = tuple(
            _box(width, height, size * rng.uniform(0.6, 1), rng) for _ in range(rng.choice([1, 1, 1, 2, 3, 5]))
        )
    return _record(f"drawn/{number}", width, height, boxes)


def _box(width: int, height: int, size: float, rng: random.Random) -> Box:
    x, y = rng.random() * (1 - size), rng.random() * (1 - size)
    return Box((x * width, y * height, (x + size) * width, (y + size) * height))


def _record(key: str, width: int, height: int, boxes: dict[str, tuple[Box, ...]]) -> Record:
    text, spans = detection_text(boxes, NAMES, "all", key)
    regions = tuple(Region((name,), (spans[name],), boxes[name]) for name in boxes)
    negatives = tuple(span for name, span in spans.items() if name not in boxes)
    source, image = key.split("/")
    return Record(
        f"{key}/0",
        source,
        image,
        "0",
        "detection",
        f"{image}.jpg",
        source,
        width,
        height,
        text,
        regions,
        negatives,
        True,
    )


def rendered_scenes(folder: Path, count: int, names: Sequence[str] = ()) -> list[tuple[Record, dict[str, str]]]:
    """Records of rendered scenes whose names are shapes (or `names`, one for each shape in alphabetical order), and the
    colour of each shape that is there once.
    """
    path = write_world(folder, count, seed=5)
    document = orjson.loads(path.read_bytes())
    pairs = {row["id"]: row["name"].split() for row in document["categories"]}
    shapes = sorted({shape for _, shape in pairs.values()})
    called = dict(zip(shapes, names or shapes, strict=True))
    tints: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in document["annotations"]:
        colour, shape = pairs[row["category_id"]]
        tints[str(row["image_id"])][called[shape]].append(colour)
        row["category_id"] = shapes.index(shape) + 1
    document["categories"] = [{"id": number, "name": called[shape]} for number, shape in enumerate(shapes, 1)]
    path.write_bytes(orjson.dumps(document))
    records = [
        item for item in Coco(annotations=str(path), images=str(folder / "images")).read() if isinstance(item, Record)
    ]
    once = [{s: c[0] for s, c in tints[r.image_id].items() if len(c) == 1 and c[0] in COLOURS} for r in records]
    return list(zip(records, once, strict=True))


# --- people's captions ----------------------------------------------------------------------------------------------


def human_coco(samples: Path) -> list[Record]:
    """One record per human caption of LLaVA's rows, with all of COCO's other names as absent."""
    path = samples / "llava" / "caps_boxes_coco2014_val_80.jsonl"
    found = []
    for line in path.read_text().splitlines():
        row = orjson.loads(line)
        boxes: dict[str, list[Box]] = defaultdict(list)
        for one in row["instances"]:
            x1, y1, x2, y2 = one["bbox"]
            boxes[one["category"]].append(Box((x1 * 640, y1 * 480, x2 * 640, y2 * 480)))
        record = _record(f"coco/{row['id']}", 640, 480, {name: tuple(some) for name, some in boxes.items()})
        found += [replace(record, captions=(Caption(text),)) for text in row["captions"]]
    return found


def human_flickr(archive: Path, images: Path, photos: frozenset[str] = frozenset()) -> Iterator[Record]:
    """Sentences of Flickr30k as captions, linked by the annotators' own spans."""
    for item in Flickr30k(annotations=str(archive), images=str(images)).read():
        if (
            isinstance(item, Record)
            and "unrelated_caption" not in item.flags
            and (not photos or item.image_id in photos)
        ):
            links = tuple(Link(span, i) for i, region in enumerate(item.regions) for span in region.spans)
            yield replace(item, captions=(Caption(item.text, links=links),))


_NUMBERS = {count_word(n): n for n in range(2, 10)}
_SIDE = re.compile(
    r" ,? ?(?:is |are |sitting |standing )?(?:on|to|at) the (?:far )?(left|right)\b(?! of| side| hand| cheek)"
)
_MIRROR = re.compile(r"\b(left|right)\b")
_COLOUR = re.compile(rf"\b({'|'.join(COLOURS)})\b")


def planted_objects(record: Record, parser: ParserName, rng: random.Random) -> Iterator[str]:
    """A caption with the word for a thing that is there replaced by the name of one that is not."""
    text = record.captions[0].text
    absent = [record.text[a:b] for a, b in record.negatives if class_noun(record.text[a:b]).plural]
    here = {region.phrases[0] for region in record.regions}
    names = tuple(sorted({record.text[a:b] for a, b in record.negatives} | here))
    for noun in read(text, names, parser).claims:
        if here & set(noun.meant) and "part" not in noun.meant.values():
            other = class_noun(rng.choice(absent))
            yield text[: noun.span[0]] + (other.plural if noun.plural else other.bare) + text[noun.span[1] :]


def planted_counts(record: Record) -> Iterator[str]:
    """A caption with a number that is that of the boxes replaced by others, up to three away."""
    text = record.captions[0].text
    for region in record.regions:
        noun = class_noun(region.phrases[0])
        for found in re.finditer(rf"\b(\w+) ({noun.plural}|people)\b", text, re.I):
            number = _NUMBERS.get(found[1].lower())
            if noun.plural and number == len(region.boxes) and (found[2] != "people" or noun.bare == "person"):
                for other in range(max(2, number - 3), number + 4):
                    if other != number:
                        yield text[: found.start(1)] + count_word(other) + text[found.end(1) :]


def planted_sides(record: Record) -> Iterator[str]:
    """A sentence with left and right exchanged, where the words "on the left" stand right behind a phrase of one box,
    and the box has its centre in that outer third.
    """
    for region in record.regions:
        for _, end in region.spans:
            found = _SIDE.match(record.text, end)
            if found and len(region.boxes) == 1:
                x1, _, x2, _ = region.boxes[0].xyxy
                centre = (x1 + x2) / 2 / record.width
                if centre < 1 / 3 if found[1] == "left" else centre > 2 / 3:
                    yield _MIRROR.sub(lambda side: forms.OPPOSITE[side[1]], record.text)
                    return


def recoloured(text: str, rng: random.Random) -> Iterator[str]:
    """The text with one colour word replaced by one that is far from it."""
    far = {"red": "green", "blue": "orange", "green": "pink", "yellow": "blue", "white": "red", "black": "yellow"}
    for found in _COLOUR.finditer(text):
        if found[1] in far:
            yield text[: found.start()] + far[found[1]] + text[found.end() :]


def with_text(record: Record, text: str) -> Record:
    """The record with another caption; links move with the words behind a replaced one."""
    old = record.captions[0].text
    shift = len(text) - len(old)
    same = next((i for i, (a, b) in enumerate(zip(old, text, strict=False)) if a != b), min(len(old), len(text)))
    links = []
    for link in record.captions[0].links:
        a, b = link.span
        links.append(replace(link, span=(a + shift * (a > same), b + shift * (b > same))))
    return replace(record, captions=(Caption(text, links=tuple(links)),))


# --- figures --------------------------------------------------------------------------------------------------------


Check = Callable[[Record], Record | Kept]


def flags_of(record: Record, chain: Sequence[Check]) -> set[str]:
    """The contradictions that a chain finds."""
    for rule in chain:
        outcome = rule(record)
        record = outcome.record if isinstance(outcome, Kept) else outcome
    return set(record.flags) & CONTRADICTIONS


class Table:
    """Rows of the figures; `shown` of each kind of error are printed."""

    def __init__(self, shown: int) -> None:
        self.shown = shown
        self.rows: list[str] = []

    def add(self, title: str, kind: str, found: Sequence[tuple[Case, set[str]]]) -> None:
        """A row: flagged and rightly flagged of the planted ones, flagged of the others."""
        planted = [(case, flags) for case, flags in found if case.kind]
        true = [(case, flags) for case, flags in found if not case.kind]
        right = [REASONS[kind] in flags for _, flags in planted]
        cells = [_share(sum(bool(flags) for _, flags in planted), len(planted)), _share(sum(right), len(planted))]
        cells.append(_share(sum(bool(flags) for _, flags in true), len(true)))
        self.rows.append(f"| {title} | {kind} | {len(planted)} | {' | '.join(cells)} |")
        print(self.rows[-1], flush=True)
        missed = [case for (case, _), good in zip(planted, right, strict=True) if not good]
        for case in missed[: self.shown]:
            print("   missed:", case.text)
        for case, flags in [pair for pair in true if pair[1]][: self.shown]:
            print("   alarm:", sorted(flags), case.text)
        if self.shown:
            print("   by form:", Counter(case.form for case in missed).most_common(8))


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%} of {whole}" if whole else "-"


def main() -> None:
    """Measure and print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--parser", default="auto", choices=["auto", "nltk", "pattern"])
    options.add_argument("--each", type=int, default=250)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--show", type=int, default=0, help="errors of each kind to print")
    options.add_argument(
        "--archive", default="", help="Flickr30k Entities archive for positions; default: in the samples"
    )
    chosen = options.parse_args()
    parser = resolve_parser(chosen.parser)
    chain = (CheckObjects(parser=parser), CheckCounts(parser=parser), CheckPositions(parser=parser))
    table = Table(chosen.show)
    print(f"parser {parser}; {len(set(forms.ALL))} forms and {len(forms.LATER)} later ones")
    print("| captions | fault | planted | flagged | right reason | false alarms on the untouched |")
    print("|---|---|---|---|---|---|")
    drawn = drawn_scenes(300, random.Random(chosen.seed))
    for kind in KINDS:
        found = list(cases(drawn, kind, chosen.each, random.Random(chosen.seed + 1)))
        table.add("forms, drawn scenes", kind, [(case, flags_of(case.record, chain)) for case in found])
    for kind in KINDS:
        found = list(cases(drawn, kind, chosen.each, random.Random(chosen.seed + 6), later=True))
        table.add("later forms, drawn scenes", kind, [(case, flags_of(case.record, chain)) for case in found])
    with tempfile.TemporaryDirectory() as folder:
        scenes = rendered_scenes(Path(folder), 200)
        full = (*chain, CheckColours(parser=parser, images=str(Path(folder) / "images")))
        found = list(colour_cases(scenes, chosen.each, random.Random(chosen.seed + 2)))
        table.add("forms, rendered scenes", "wrong colour", [(case, flags_of(case.record, full)) for case in found])
        more = list(colour_cases(scenes, chosen.each, random.Random(chosen.seed + 7), later=True))
        table.add(
            "later forms, rendered scenes", "wrong colour", [(case, flags_of(case.record, full)) for case in more]
        )
        unmasked = [(replace(c, record=_without_masks(c.record)), c) for c in found]
        table.add("the same without masks", "wrong colour", [(c, flags_of(c.record, full)) for c, _ in unmasked])
    if samples := os.environ.get("LLMDET_SAMPLES"):
        _samples(Path(samples), chosen, parser, chain, table)
    _cost(drawn, chain, parser)


def _without_masks(record: Record) -> Record:
    regions = [replace(r, boxes=tuple(replace(b, mask=None) for b in r.boxes)) for r in record.regions]
    return replace(record, regions=tuple(regions))


def _samples(
    samples: Path, chosen: argparse.Namespace, parser: ParserName, chain: Sequence[Check], table: Table
) -> None:
    coco = samples / "coco"
    files = (
        Coco(annotations=str(coco / "coco_tiny_val/annotations/instances_val2017.json"), images=str(coco), masks=False),
        Coco(
            annotations=str(coco / "val2014_100/annotations/instances_val2014_100.json"), images=str(coco), masks=False
        ),
    )
    records = [item for file in files for item in file.read() if isinstance(item, Record) and item.regions]
    for kind in KINDS:
        found = list(cases(records, kind, chosen.each, random.Random(chosen.seed + 3)))
        table.add("forms, COCO photos", kind, [(case, flags_of(case.record, chain)) for case in found])
    rng = random.Random(chosen.seed + 4)
    human = human_coco(samples)
    untouched = [Case(r, "", r.captions[0].text) for r in human]
    objects = [Case(with_text(r, t), "wrong object", t) for r in human for t in planted_objects(r, parser, rng)]
    counts = [Case(with_text(r, t), "wrong count", t) for r in human for t in planted_counts(r)]
    for kind, planted in (("wrong object", objects), ("wrong count", counts)):
        planted = rng.sample(planted, min(len(planted), chosen.each))
        seen = [(case, flags_of(case.record, chain)) for case in (*planted, *untouched)]
        table.add("people's, COCO's boxes (LLaVA rows)", kind, seen)
    _flickr(samples, chosen, parser, chain, table)


def _flickr(
    samples: Path, chosen: argparse.Namespace, parser: ParserName, chain: Sequence[Check], table: Table
) -> None:
    folder = samples / "flickr30k"
    archive = Path(chosen.archive or folder / "flickr30k_entities_annotations_31783.tar.gz")
    rng = random.Random(chosen.seed + 5)
    sided = [r for r in human_flickr(archive, folder) if _MIRROR.search(r.text) and r.regions]
    chain = [rule for rule in chain if isinstance(rule, CheckPositions)]
    true = [Case(r, "", r.text) for r in sided]
    planted = [Case(with_text(r, t), "mirrored position", t) for r in sided for t in planted_sides(r)]
    planted = rng.sample(planted, min(len(planted), chosen.each))
    found = [(case, flags_of(case.record, chain)) for case in (*planted, *true)]
    table.add("people's, Flickr30k with left or right", "mirrored position", found)
    photos = frozenset(path.stem for path in (folder / "flickr30k_images").glob("*.jpg"))
    rule = CheckColours(parser=parser, images=str(folder))
    shown = list(human_flickr(folder, folder / "flickr30k_images", photos))
    rule = replace(rule, images=str(folder / "flickr30k_images"))
    tinted = [r for r in shown if _checked(rule(r))]
    planted = [Case(with_text(r, t), "wrong colour", t) for r in tinted for t in recoloured(r.text, rng)]
    true = [Case(r, "", r.text) for r in tinted]
    table.add(
        "people's, Flickr30k photos", "wrong colour", [(c, flags_of(c.record, [rule])) for c in (*planted, *true)]
    )


def _checked(outcome: Record | Kept) -> bool:
    record = outcome.record if isinstance(outcome, Kept) else outcome
    return any(figures["claims"] for figures in record.extra.get("checks", {}).values())


def _cost(records: Sequence[Record], chain: Sequence[Check], parser: ParserName) -> None:
    """Milliseconds for a caption of about 115 words, all checks without pixels."""
    rng = random.Random(9)
    long = []
    for record in records:
        texts = [f.text() for _ in range(4) for make, _ in KINDS.values() for f in make(record, rng)]
        text = " ".join([*texts, *forms.FILLERS])
        long.append(replace(record, captions=(Caption(" ".join(text.split()[:115])),)))
    for record in long[:20]:
        flags_of(record, chain)
    read.cache_clear()
    started = time.process_time()
    for record in long[20:]:
        flags_of(record, chain)
    spent = (time.process_time() - started) / len(long[20:])
    read.cache_clear()
    started = time.process_time()
    for record in long[20:]:
        names = tuple(
            sorted({n for r in record.regions for n in r.phrases} | {record.text[a:b] for a, b in record.negatives})
        )
        read(record.captions[0].text, names, parser)
    reading = (time.process_time() - started) / len(long[20:])
    print(f"{spent * 1e3:.2f} ms a caption of 115 words, {reading * 1e3:.2f} ms of it for reading it")


if __name__ == "__main__":
    main()
