"""How far the perceptual hash of the leak check can be trusted: pairs of different photos, and changed copies.

    LLMDET_SAMPLES=... python benchmarks/perceptual_hash.py [FOLDER ...]

Reads all photos below the folders (default: those of the samples), each photo once, and prints one JSON line each for

1. every pair of different photos: smallest distance, spread, and how many pairs are within the limit;
2. copies, by kind of change: how many are within the limit, and their distances;
3. the same two for imagehash's default of 64 bits, at a limit of the same share of bits and at half of it;
4. what the hash costs beside opening the photo without it.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image, ImageEnhance

from llmdet.attaching import photo_key
from llmdet.images import inspect
from llmdet.leaks import MAX_DISTANCE

FOLDERS = (
    "coco/coco_tiny_val/val2017",
    "coco/val2014_100/images",
    "flickr30k/flickr30k_images",
    "gqa_vg/images",
    "lvis/val2017",
    "llava",
)
PHOTOS_OF_A_RUN, EVALUATION_PHOTOS = 1_100_000, 40_000


def photos(folders: list[Path]) -> list[Path]:
    """Every different photo: COCO's are in several folders under one id."""
    found = {photo_key(path.name): path for folder in folders for path in sorted(folder.glob("*.jpg"))}
    by_content = {inspect(str(path)).sha256: path for path in found.values()}
    return list(by_content.values())


def copies(path: Path) -> Iterator[tuple[str, bytes]]:
    """The photo as others might have stored it."""
    image = Image.open(path).convert("RGB")
    width, height = image.size
    yield "JPEG quality 50", jpeg(image, 50)
    yield "JPEG quality 20", jpeg(image, 20)
    yield "half size", jpeg(image.resize((width // 2, height // 2)), 85)
    yield "336 px long", jpeg(image.resize((336 * width // max(image.size), 336 * height // max(image.size))), 85)
    yield "one and a half times as large", jpeg(image.resize((width * 3 // 2, height * 3 // 2)), 85)
    yield "stretched to 512x512", jpeg(image.resize((512, 512)), 90)
    yield "grey", jpeg(image.convert("L"), 90)
    yield "20 % brighter", jpeg(ImageEnhance.Brightness(image).enhance(1.2), 90)
    for pixels in (2, 4, 8):
        cut = image.crop((pixels, pixels, width - pixels, height - pixels))
        yield f"{pixels} px cropped on each side", jpeg(cut, 90)
    yield (
        "5 % cropped on each side",
        jpeg(image.crop((width // 20, height // 20, width - width // 20, height - height // 20)), 90),
    )
    sink = io.BytesIO()
    image.save(sink, "PNG")
    yield "PNG", sink.getvalue()


def jpeg(image: Image.Image, quality: int) -> bytes:
    """The bytes of a JPEG file."""
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=quality)
    return sink.getvalue()


def bits_256(path: Path) -> np.ndarray | None:
    """As ingest computes it, (256,)."""
    looks = inspect(str(path), looks=True).looks
    return None if looks is None else np.unpackbits(np.frombuffer(looks, np.uint8))


def bits_64(path: Path) -> np.ndarray:
    """imagehash's default, (64,)."""
    return imagehash.phash(Image.open(path).convert("RGB")).hash.ravel().astype(np.uint8)


def pairs(hashes: np.ndarray) -> np.ndarray:
    """Distances of all pairs, (n * (n - 1) / 2,)."""
    rows, columns = np.triu_indices(len(hashes), 1)
    return (hashes[rows] != hashes[columns]).sum(1)


def tell_pairs(name: str, hashes: np.ndarray, limit: int) -> None:
    """Distances of different photos, and what they would mean for a run of a million."""
    found = pairs(hashes)
    mean, spread = float(found.mean()), float(found.std())
    beyond = (mean - limit) / spread
    chance = math.erfc(beyond / math.sqrt(2)) / 2  # were distances normal: an order of magnitude, no more
    tell(
        measured=f"{name}: pairs of different photos",
        photos=len(hashes),
        pairs=len(found),
        limit=limit,
        within_limit=int((found <= limit).sum()),
        smallest=int(found.min()),
        mean=round(mean, 1),
        standard_deviation=round(spread, 2),
        limit_is_below_the_mean_by_deviations=round(beyond, 1),
        expected_false_matches_of_a_run=float(f"{chance * PHOTOS_OF_A_RUN * EVALUATION_PHOTOS:.1e}"),
    )


def tell_copies(name: str, distances: dict[str, list[int]], limits: tuple[int, ...]) -> None:
    """The share of copies within each limit, by kind."""
    for kind, found in distances.items():
        shares = {f"found_at_{limit}": round(float(np.mean([d <= limit for d in found])), 4) for limit in limits}
        middle, high = np.quantile(found, (0.5, 0.95))
        tell(measured=f"{name}: {kind}", **shares, median=int(middle), p95=int(high), largest=max(found))


def tell(**row: object) -> None:
    """Print a measurement as one JSON line."""
    print(json.dumps(row), flush=True)


def main() -> None:
    """Measure everything in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folders", nargs="*", type=Path)
    given = parser.parse_args().folders
    chosen = photos(given or [Path(os.environ["LLMDET_SAMPLES"]) / folder for folder in FOLDERS])
    own = [(path, bits) for path in chosen if (bits := bits_256(path)) is not None]
    small = np.stack([bits_64(path) for path, _ in own])
    tell_pairs("256 bits", np.stack([bits for _, bits in own]), MAX_DISTANCE)
    quarter = MAX_DISTANCE // 4
    for limit in (quarter, quarter // 2):
        tell_pairs("64 bits", small, limit)
    far: dict[str, list[int]] = {}
    near: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for (path, bits), less in zip(own, small, strict=True):
            for kind, data in copies(path):
                copy = Path(folder) / "copy"
                copy.write_bytes(data)
                other = bits_256(copy)
                far.setdefault(kind, []).append(256 if other is None else int((other != bits).sum()))
                near.setdefault(kind, []).append(int((bits_64(copy) != less).sum()))
    tell_copies("256 bits", far, (MAX_DISTANCE,))
    tell_copies("64 bits", near, (quarter, quarter // 2))
    for looks in (False, True):
        started = time.process_time()
        for path, _ in own:
            inspect(str(path), looks=looks)
        tell(measured=f"opening a photo, hash {looks}", ms=round((time.process_time() - started) / len(own) * 1e3, 2))


if __name__ == "__main__":
    main()
