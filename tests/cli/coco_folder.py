"""A COCO folder of four drawn photos, written by hand for the tests of the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

Change = Callable[[dict[str, Any]], None]

CATEGORIES = [{"id": 3, "name": "red square"}, {"id": 7, "name": "blue disc"}, {"id": 8, "name": "green bar"}]
# Per photo: (annotation id, category id, box xywh, iscrowd). In all 6 boxes and 1 crowd.
PHOTOS: dict[str, list[tuple[int, int, list[int], int]]] = {
    "a.jpg": [(1, 3, [10, 10, 40, 40], 0), (2, 7, [60, 20, 30, 30], 0)],
    "b.jpg": [(3, 7, [5, 5, 50, 50], 0)],
    "c.jpg": [(4, 3, [20, 30, 30, 30], 0), (5, 8, [60, 5, 20, 80], 0), (6, 3, [0, 0, 90, 60], 1)],
    "d.jpg": [(7, 8, [40, 10, 20, 70], 0)],
}
BOXES = 6
COLOURS = {3: "red", 7: "blue", 8: "green"}
SIZE = (120, 96)


def write_coco(folder: Path, change: Change | None = None) -> tuple[str, str]:
    """Photos and `annotations.json`; `change` edits the document first. Returns both addresses."""
    photos = folder / "photos"
    photos.mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (name, boxes) in enumerate(PHOTOS.items(), start=1):
        images.append({"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
        photo = Image.new("RGB", SIZE, "white")
        for identity, category, (x, y, w, h), crowd in boxes:
            ImageDraw.Draw(photo).rectangle((x, y, x + w, y + h), fill=COLOURS[category])
            annotations.append(
                {
                    "id": identity,
                    "image_id": number,
                    "category_id": category,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": crowd,
                }
            )
        photo.save(photos / name, quality=95)
    document = {"images": images, "annotations": annotations, "categories": list(CATEGORIES)}
    if change:
        change(document)
    path = folder / "annotations.json"
    path.write_text(json.dumps(document))
    return str(path), str(photos)
