"""COCO-like documents with what annotation files hold beyond the expected, for mmdet and for our readers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

SIZE = (100, 80)  # width, height
# COCO numbers 80 categories from 1 to 90; mmdet's converter knows just these ids.
COCO_IDS = [key for key in range(1, 91) if key not in {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}]
XYWH = Sequence[float]


def image(number: int, name: str | None = None, **others: Any) -> dict[str, Any]:
    return {"id": number, "file_name": name or f"{number}.jpg", "width": SIZE[0], "height": SIZE[1], **others}


def annotation(number: int, picture: int, bbox: XYWH, category: int = 1, **others: Any) -> dict[str, Any]:
    area = max(bbox[2] * bbox[3], 0.5)  # an area that says nothing of the box, unless `others` has one
    return {
        "id": number, "image_id": picture, "category_id": category, "bbox": list(bbox), "area": area, "iscrowd": 0,
        **others,
    }  # fmt: skip


def document(
    images: Iterable[dict[str, Any]], annotations: Iterable[dict[str, Any]], names: dict[int, str]
) -> dict[str, Any]:
    categories = [{"id": key, "name": name} for key, name in names.items()]
    return {"images": list(images), "annotations": list(annotations), "categories": categories}


def names_of(ids: Iterable[int]) -> dict[int, str]:
    return {key: f"thing {key}" for key in ids}


ODD_BOXES: dict[str, XYWH] = {
    "fractions": (0.1, 0.2, 0.2 + 1.1, 30.3),
    "whole numbers": (1, 2, 30, 40),
    "left and above": (-10.5, -3.25, 40.0, 20.0),
    "right and below": (90.0, 70.5, 40.0, 20.0),
    "on all sides": (-5, -5, 200, 200),
    "wholly outside": (120, 10, 20, 20),
    "touching the edge": (100, 10, 20, 20),
    "above": (10, -30, 20, 30),
    "no width": (10, 10, 0, 20),
    "no height": (10, 10, 20, 0),
    "negative width": (50, 10, -20, 20),
    "below a pixel": (10, 10, 0.999, 20),
    "one pixel": (10, 10, 1, 1),
    "a sliver inside": (99.999, 10, 30, 30),
    "large numbers": (3, 4, 1e9, 1e9),
    "many decimals": (12.345678901234567, 0.30000000000000004, 33.3, 44.4),
}
# Those without a side of a pixel or without a part inside the picture.
UNUSABLE = {
    "wholly outside", "touching the edge", "above", "no width", "no height", "negative width", "below a pixel"
}  # fmt: skip
# 1 wide in the file, and less than 1 as x2 - x1 in doubles.
ROUNDED_BELOW_ONE: XYWH = (0.4, 10.0, 1.0, 20.0)


def odd_boxes() -> dict[str, Any]:
    """One picture for each odd box, and one with all of them."""
    alone = [annotation(n, n, box) for n, box in enumerate(ODD_BOXES.values(), start=1)]
    together = [annotation(1000 + n, 500, box, category=3) for n, box in enumerate(ODD_BOXES.values())]
    return document([*(image(row["id"]) for row in alone), image(500)], alone + together, names_of(COCO_IDS))


def crowds() -> dict[str, Any]:
    runs = {"size": [80, 100], "counts": [0, 20, 7980]}
    rows = [
        annotation(1, 1, (1, 1, 50, 50), iscrowd=1, segmentation=runs),
        annotation(2, 1, (2, 2, 20, 20)),
        annotation(3, 1, (3, 3, 20, 20), ignore=1),
        annotation(4, 1, (4, 4, 20, 20), ignore=0),
        annotation(5, 2, (5, 5, 50, 50), iscrowd=1, segmentation=runs),
    ]
    return document([image(1), image(2), image(3)], rows, names_of(COCO_IDS))


def empty_areas() -> dict[str, Any]:
    rows = [
        annotation(1, 1, (1, 1, 20, 20), area=0),
        annotation(2, 1, (2, 2, 20, 20), area=400.0),
        annotation(3, 1, (3, 3, 20, 20), area=-1),
    ]
    return document([image(1)], rows, names_of(COCO_IDS))


def few_categories() -> dict[str, Any]:
    rows = [annotation(1, 1, (1, 1, 20, 20), 90), annotation(2, 1, (2, 2, 20, 20), 44)]
    return document([image(1)], rows, names_of([44, 1, 90]))


def foreign_names() -> dict[str, Any]:
    names = names_of(COCO_IDS) | {
        1: "Fußgänger",
        2: "自転車",
        3: 'a "quoted" \\ name',
        4: "мотоцикл 🏍",
        5: "naïve, or café",
    }
    rows = [annotation(n, 1, (n, n, 20, 20), n) for n in range(1, 6)]
    return document([image(1, "Straße/été 🖼.jpg")], rows, names)


def any_order() -> dict[str, Any]:
    """Categories from the last to the first, images and annotations mixed, ids of 64 bits, a picture without boxes."""
    far = 2**53
    images = [image(far + 1, "b.jpg"), image(7, "empty.jpg"), image(0, "zero.jpg"), image(far, "a.jpg")]
    pairs = [(far, 90), (0, 1), (far + 1, 2), (far, 3), (0, 90), (far + 1, 2)]
    rows = [annotation(far - n, picture, (n, n, 20, 20), category) for n, (picture, category) in enumerate(pairs)]
    return document(images, rows, names_of(reversed(COCO_IDS)))


def many(seed: int = 3, pictures: int = 60) -> dict[str, Any]:
    """Boxes at random in and around pictures of random sizes, with crowds."""
    rng = np.random.default_rng(seed)
    images = [
        {"id": n, "file_name": f"{n}.jpg", "width": int(rng.integers(1, 900)), "height": int(rng.integers(1, 900))}
        for n in range(1, pictures + 1)
    ]
    rows = []
    for number in range(pictures * 12):
        picture = images[int(rng.integers(pictures))]
        x, y = rng.uniform(-0.3, 1.2, 2) * (picture["width"], picture["height"])
        w, h = rng.exponential(0.2, 2) * (picture["width"], picture["height"])
        digits = int(rng.integers(0, 4))
        box = [round(float(value), digits) for value in (x, y, w, h)]
        crowd = int(rng.random() < 0.05)
        rows.append(annotation(number, picture["id"], box, int(rng.choice(COCO_IDS)), iscrowd=crowd))
    return document(images, rows, names_of(COCO_IDS))


def objects365() -> dict[str, Any]:
    """Names as Objects365 v2 has them, folders that its converter cuts, a photo that was never published."""
    images = [
        image(1, "images/v1/patch8/objects365_v1_1.jpg"),
        image(908726, "images/v2/patch9/objects365_v2_908726.jpg"),
        image(2, "images/v2/patch16/objects365_v2_2.jpg"),
    ]
    rows = [annotation(n, picture, (n, n, 20, 20), n) for n, picture in enumerate((1, 908726, 2, 1), start=1)]
    rows[0] |= {"isfake": 1, "isreflected": 0}
    return document(images, rows, {1: "Person", 2: "Cabinet/shelf", 3: "Bakset", 4: "Moniter/TV"})


def v3det() -> dict[str, Any]:
    names = {1: "Battery", 2: "battery", 3: "Cricket (insect)", 4: "Brown_Bear"}
    rows = [annotation(n, 1, (n, n, 20, 20), n) for n in (3, 1, 4, 2)]
    return document([image(1, "images/n07745046/21_371.jpg")], rows, names)


def lvis() -> dict[str, Any]:
    """LVIS v1: no file_name, names with brackets, what is known to be absent."""
    lists = {"neg_category_ids": [2], "not_exhaustive_category_ids": [1]}
    pictures = [
        image(n, coco_url=f"http://images.cocodataset.org/{('val', 'train')[n % 2]}2017/{n}.jpg", **lists)
        for n in (5, 4)
    ]
    for picture in pictures:
        del picture["file_name"]
    rows = [
        annotation(n, 4 + n % 2, box, 1 + n % 3, segmentation=[[1, 1, 9, 1, 9, 9]])
        for n, box in enumerate(ODD_BOXES.values())
    ]
    for row in rows:
        del row["iscrowd"]
    found = document(pictures, rows, {1: "aerosol_can", 2: "bow_(weapon)", 3: "baby_buggy"})
    for category in found["categories"]:
        category |= {"frequency": "r", "synset": "", "synonyms": [], "def": "", "image_count": 1, "instance_count": 1}
    return found


def caption(number: int, text: str, **others: Any) -> dict[str, Any]:
    return image(number, f"{number}.jpg", caption=text, original_id=str(number), **others)


def named(number: int, picture: int, bbox: XYWH, spans: list[list[int]], **others: Any) -> dict[str, Any]:
    return annotation(number, picture, bbox, tokens_positive=spans, **others)


def sentences() -> dict[str, Any]:
    """An MDETR file on whose every box and phrase all converters should agree."""
    images = [
        caption(1, "Ein Mädchen 👧 mit einem Ball."),
        caption(2, "a man and a man", height="80", width="100"),  # the Flickr files have strings
        caption(3, "two dogs run"),
    ]
    rows = [
        named(1, 1, (1.5, 2.25, 30, 40), [[0, 11]]),
        named(2, 1, (0, 0, 0.5, 40), [[0, 11]]),
        named(3, 1, (50, 50, 20, 20), [[18, 28]]),
        named(4, 2, (3, 3, 20, 20), [[10, 15], [0, 5]]),  # two spans, unsorted, not side by side
        named(5, 3, (5, 5, 20, 20), [[0, 8]]),
        named(6, 3, (-6, 6, 20, 20), [[0, 8]]),
        named(7, 3, (7, 7, 20, 20), [[9, 12]]),
        named(8, 3, (8, 8, 20, 20), [[0, 8]], iscrowd=1),
        named(9, 3, (200, 8, 20, 20), [[9, 12]]),
    ]
    return document(images, rows, {1: "object"})


def odd_sentences() -> dict[str, Any]:
    """An MDETR file with one matter a caption on which goldg2odvg and we differ; ids not ascending."""
    images = [
        caption(9, "over the edge"),
        caption(8, "a dog and a dog"),
        caption(7, "a red bus"),
        caption(6, "nothing large"),
        caption(5, "no boxes at all"),
        caption(4, "area zero"),
        caption(3, "a red ball, a red box, ball"),
    ]
    rows = [
        named(1, 9, (90, 70, 40, 20), [[0, 4]]),
        named(2, 8, (1, 1, 20, 20), [[0, 5]]),
        named(3, 8, (50, 1, 20, 20), [[10, 15]]),
        named(4, 7, (1, 1, 20, 20), [[0, 1], [2, 5], [6, 9]]),
        named(5, 6, (1, 1, 1, 20), [[0, 7]]),
        named(6, 4, (1, 1, 20, 20), [[0, 4]], area=0),
        named(7, 4, (2, 2, 20, 20), [[0, 4]]),
        named(8, 3, (1, 1, 20, 20), [[0, 10]]),
        named(9, 3, (50, 1, 20, 20), [[12, 17], [23, 27]]),
    ]
    return document(images, rows, {1: "object"})
