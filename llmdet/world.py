"""A small procedural world: scenes of coloured shapes, written as real COCO files and jpgs.

It lets the whole loop run anywhere, without a download. A scene is a tinted, lightly textured canvas with one to five
objects; an object has a colour, a shape, a size, a texture and a place. Of the 30 colour-shape pairs five are held
out, so that a detector can be asked for compositions which its training data neither showed nor named.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from llmdet import boxes as bx

SIDE = 128  # pixels of a scene, both ways
SUPERSAMPLING = 3  # masks are drawn this much larger and reduced, which smooths their edges
MAX_OVERLAP = 0.25  # of the smaller of two boxes
COUNTS = (1, 2, 3, 3, 4, 4, 4, 5, 5, 5)  # objects of a scene, each as likely: full scenes teach more
SIZES = {"small": (26.0, 34.0), "large": (38.0, 54.0)}  # longest side in pixels
TEXTURES = ("plain", "plain", "striped", "dotted")  # plain is twice as frequent
COLOURS = {  # hue in degrees, saturation, value
    "red": (0.0, 0.90, 0.88),
    "yellow": (56.0, 0.90, 0.95),
    "green": (122.0, 0.85, 0.70),
    "cyan": (182.0, 0.85, 0.90),
    "blue": (228.0, 0.88, 0.90),
    "pink": (312.0, 0.62, 0.96),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")

Pair = tuple[str, str]
Points = NDArray[np.float64]  # (n, 2), x and y
PAIRS: tuple[Pair, ...] = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
HELD_OUT: tuple[Pair, ...] = (
    ("red", "circle"),
    ("yellow", "square"),
    ("green", "triangle"),
    ("blue", "star"),
    ("pink", "cross"),
)
SEEN: tuple[Pair, ...] = tuple(pair for pair in PAIRS if pair not in HELD_OUT)

# Larger than 32 bits: readers that squeeze annotation ids into an int32 are found out by the first file they see.
FIRST_ANNOTATION_ID = 900_100_000_000


@dataclass(frozen=True, slots=True)
class Thing:
    """One object of a scene. `outline` is its polygon in pixels of the scene."""

    pair: Pair
    size: str
    texture: str
    outline: Points

    @property
    def xyxy(self) -> bx.XYXY:
        (x1, y1), (x2, y2) = self.outline.min(0), self.outline.max(0)
        return float(x1), float(y1), float(x2), float(y2)

    @property
    def area(self) -> float:
        """Square pixels inside the outline (shoelace formula)."""
        x, y = self.outline.T
        return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def write_world(
    directory: str | Path, scenes: int, seed: int, pairs: Literal["seen", "unseen"] = "seen", quality: int = 92
) -> Path:
    """Render `scenes` scenes into `directory/images` and return the path of `directory/annotations.json`.

    `seen`: objects and categories are the 25 pairs of `SEEN`. `unseen`: every scene holds at least one object of
    `HELD_OUT`, next to objects of any pair; only the held-out pairs are categories, so the others stay unannotated.
    The same arguments give the same files: scene i depends on (seed, pairs, i) alone.
    """
    root = Path(directory)
    (root / "images").mkdir(parents=True, exist_ok=True)
    named = SEEN if pairs == "seen" else HELD_OUT
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(scenes):
        rng = np.random.default_rng((seed, int(pairs == "unseen"), index))
        things = compose(rng, pairs)
        name = f"{index + 1:012d}.jpg"
        Image.fromarray(render(rng, things)).save(root / "images" / name, quality=quality, subsampling=0)
        images.append(_image_row(index + 1, name))
        for thing in things:
            if thing.pair in named:
                annotations.append(_annotation_row(FIRST_ANNOTATION_ID + len(annotations), index + 1, thing))
    path = root / "annotations.json"
    path.write_bytes(orjson.dumps(_document(images, annotations, named, seed, pairs)))
    return path


def compose(rng: Generator, pairs: Literal["seen", "unseen"] = "seen") -> list[Thing]:
    """Draw one to five objects and their places; later ones lie in front. The first is held out where that is asked."""
    things: list[Thing] = []
    for number in range(int(rng.choice(COUNTS))):
        choices = SEEN if pairs == "seen" else (HELD_OUT if number == 0 else PAIRS)
        thing = _place(rng, choices[int(rng.integers(len(choices)))], [other.xyxy for other in things])
        if thing is not None:
            things.append(thing)
    return things


def render(rng: Generator, things: Sequence[Thing]) -> NDArray[np.uint8]:
    """The picture of a scene, (128, 128, 3) RGB: background, objects back to front, sensor noise."""
    canvas = _background(rng)
    for thing in things:
        _paint(canvas, thing, rng)
    canvas += rng.standard_normal(canvas.shape, dtype=np.float32) * np.float32(rng.uniform(2, 7))
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _place(rng: Generator, pair: Pair, taken: list[bx.XYXY]) -> Thing | None:
    """An object at a free place, or None after twelve attempts."""
    size = str(rng.choice(list(SIZES)))
    texture = TEXTURES[int(rng.integers(len(TEXTURES)))]
    shape = _outline(pair[1], float(rng.uniform(*SIZES[size])), float(rng.uniform(-12, 12)))
    extent = shape.max(0)
    for _ in range(12):
        outline = np.round(shape + rng.uniform(1, SIDE - 1 - extent), 2)
        thing = Thing(pair, size, texture, outline)
        if _overlap(thing.xyxy, taken) <= MAX_OVERLAP:
            return thing
    return None


def _overlap(box: bx.XYXY, others: list[bx.XYXY]) -> float:
    """Largest share of the smaller box that an intersection covers."""
    if not others:
        return 0.0
    mine, theirs = np.array(box), np.array(others)
    size = np.clip(np.minimum(mine[2:], theirs[:, 2:]) - np.maximum(mine[:2], theirs[:, :2]), 0, None)
    return float((size.prod(-1) / np.minimum(bx.areas(mine), bx.areas(theirs))).max())


def _outline(shape: str, side: float, degrees: float) -> Points:
    """The polygon of a shape whose longest side is `side`, turned, with its upper left corner at (0, 0)."""
    points = _UNIT_SHAPES[shape]
    angle = math.radians(degrees)
    turned = points @ np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    turned = turned - turned.min(0)
    return np.asarray(turned * (side / turned.max()))


def _ring(count: int, radii: Sequence[float] = (1.0,), start: float = -90.0) -> Points:
    angles = np.radians(start + np.arange(count) * 360.0 / count)
    radius = np.resize(np.array(radii), count)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=-1)


_CROSS = ((-1, 3), (1, 3), (1, 1), (3, 1), (3, -1), (1, -1), (1, -3), (-1, -3), (-1, -1), (-3, -1), (-3, 1), (-1, 1))
_UNIT_SHAPES: dict[str, Points] = {
    "circle": _ring(36),
    "square": _ring(4, start=-45.0),
    "triangle": _ring(3),
    "star": _ring(10, (1.0, 0.42)),
    "cross": np.array(_CROSS, dtype=np.float64),
}


def _background(rng: Generator) -> NDArray[np.float32]:
    """A pale or dark grey with a tint, a slope of light, and faint waves in half of the scenes."""
    tint = rng.uniform(60, 200) + rng.uniform(-22, 22, size=3)
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) / SIDE
    light = rng.uniform(-18, 18) * (x - 0.5) + rng.uniform(-18, 18) * (y - 0.5)
    if rng.random() < 0.5:
        light = light + rng.uniform(2, 8) * np.sin(rng.uniform(10, 60) * x + rng.uniform(10, 60) * y)
    return np.asarray(light[..., None] + tint, dtype=np.float32)


def _paint(canvas: NDArray[np.float32], thing: Thing, rng: Generator) -> None:
    """Blend one object into the canvas, in place."""
    left, top = (int(v) for v in np.floor(thing.outline.min(0)))
    right, bottom = (int(v) for v in np.ceil(thing.outline.max(0)))
    width, height = right - left, bottom - top
    large = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING))
    points = (thing.outline - (left, top)) * SUPERSAMPLING
    ImageDraw.Draw(large).polygon([(float(x), float(y)) for x, y in points], fill=255)
    alpha = np.asarray(large.resize((width, height), Image.Resampling.BOX), dtype=np.float32)[..., None] / 255
    colour = _rgb(thing.pair[0], rng) * _shade(thing.texture, width, height, rng)[..., None]
    patch = canvas[top:bottom, left:right]
    patch += alpha * (colour - patch)


def _rgb(colour: str, rng: Generator) -> NDArray[np.float32]:
    """A colour of that name in 0..255; hue, saturation and value vary a little."""
    hue, saturation, value = COLOURS[colour]
    hue = (hue + rng.uniform(-8, 8)) / 60
    saturation = min(1.0, saturation * rng.uniform(0.88, 1.1))
    value = min(1.0, value * rng.uniform(0.88, 1.05))
    shifted = (np.array([5.0, 3.0, 1.0]) + hue) % 6
    falloff = np.clip(np.minimum(shifted, 4 - shifted), 0, 1)
    return np.asarray(255 * (value - value * saturation * falloff), dtype=np.float32)


def _shade(texture: str, width: int, height: int, rng: Generator) -> NDArray[np.float32]:
    """Brightness factor of each pixel of an object, (height, width)."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    phase, period = rng.uniform(0, 2 * math.pi), rng.uniform(5, 9)
    if texture == "striped":
        angle = rng.uniform(0, math.pi)
        wave = np.sin(2 * math.pi / period * (x * math.cos(angle) + y * math.sin(angle)) + phase)
        return np.where(wave > 0, 1.0, 0.84).astype(np.float32)
    if texture == "dotted":
        wave = np.sin(2 * math.pi / period * x + phase) * np.sin(2 * math.pi / period * y + phase)
        return np.where(wave > 0.45, 0.78, 1.0).astype(np.float32)
    return np.ones((height, width), dtype=np.float32)


def _image_row(number: int, name: str) -> dict[str, Any]:
    return {"id": number, "file_name": name, "width": SIDE, "height": SIDE, "license": 1}


def _annotation_row(number: int, image: int, thing: Thing) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": image,
        "category_id": PAIRS.index(thing.pair) + 1,
        "bbox": [round(value, 2) for value in bx.to_xywh(thing.xyxy)],
        "area": round(thing.area, 4),
        "segmentation": [thing.outline.reshape(-1).tolist()],
        "iscrowd": 0,
    }


def _document(
    images: list[dict[str, Any]], annotations: list[dict[str, Any]], named: Sequence[Pair], seed: int, pairs: str
) -> dict[str, Any]:
    """The layout of COCO's instances files; ids of categories are those of all 30 pairs, hence with gaps."""
    categories = [
        {"id": PAIRS.index(pair) + 1, "name": " ".join(pair), "supercategory": pair[1]}
        for pair in PAIRS
        if pair in named
    ]
    return {
        "info": {"description": f"procedural scenes of llmdet-data, {pairs} pairs, seed {seed}", "version": "1"},
        "licenses": [{"id": 1, "name": "CC0-1.0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}],
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
