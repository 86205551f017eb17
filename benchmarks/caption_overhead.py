"""What our own code costs: the caption stage with the template engine beside bare Ray Data, in one run.

    python benchmarks/caption_overhead.py [--records 100000] [--photos 5000]

1. Colours off (no photo is opened): `pipelines.caption` over records, beside Ray Data reading the same parquet files,
   mapping the same caption function over them and writing parquet ("same work"), and beside an identity map ("copy").
2. Colours on: the caption stage over jpgs, beside Ray Data reading and decoding the same jpgs.

Prints one JSON line per measurement and the ratios. Ray is started once, and warmed up, before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from llmdet.detection_text import detection_text
from llmdet.record import Box, Record, Region, from_batch, to_batch
from llmdet.sources.coco import Coco
from llmdet.template import facts_of, image_caption, region_captions
from llmdet.workspace import Manifest, Workspace
from llmdet.world import write_world
from pipelines.caption import CaptionSettings, caption
from pipelines.cluster import cluster
from pipelines.engines.template import TemplateEngine
from pipelines.ingest import IngestSettings, ingest

NAMES = [
    f"{colour} {thing}"
    for colour in ("red", "blue", "old", "wooden")
    for thing in ("car", "dog", "chair", "cup", "boat")
]
BOXES_PER_RECORD = 7


def synthetic(count: int, seed: int = 0) -> list[Record]:
    """Records of a detection source with about seven boxes each; no photos."""
    rng = np.random.default_rng(seed)
    records = []
    for number in range(count):
        boxes = rng.uniform(0, 300, (BOXES_PER_RECORD, 2))
        sizes = rng.uniform(20, 300, (BOXES_PER_RECORD, 2))
        chosen = sorted(set(rng.choice(NAMES, 4).tolist()))
        text, spans = detection_text(chosen, NAMES, "all", str(number))
        regions: list[Region] = []
        for index, name in enumerate(chosen):
            own = range(index, BOXES_PER_RECORD, len(chosen))
            mine = tuple(Box((*map(float, boxes[i]), *map(float, boxes[i] + sizes[i])), order=i) for i in own)
            regions.append(Region((name,), (spans[name],), mine, index))
        identity = f"synthetic/{number}/0"
        records.append(
            Record(
                identity,
                "synthetic",
                str(number),
                "0",
                "detection",
                f"{number}.jpg",
                "synthetic",
                640,
                640,
                text,
                tuple(regions),
            )
        )
    return records


def write_records(workspace: Workspace, count: int, part_rows: int = 2048) -> None:
    """A finished `records/synthetic/` table without photos."""
    table = workspace.records("synthetic")
    parts = []
    for index, start in enumerate(range(0, count, part_rows)):
        batch = synthetic(min(part_rows, count - start), start)
        records = [
            replace(r, id=f"synthetic/{start + i}/0", image_id=str(start + i), image=f"{start + i}.jpg")
            for i, r in enumerate(batch)
        ]
        parts.append(table.write_part(index, "benchmark", to_batch(records)))
    info = {
        "name": "synthetic",
        "format": "synthetic",
        "licence": "",
        "address": "",
        "images": "/nowhere",
        "categories": (),
    }
    table.commit(Manifest("ingest", "benchmark", tuple(parts), info=info))


def same_work(batch: pa.Table) -> pa.Table:
    """What the template engine does, without plan, ledger and commits."""
    records = from_batch(batch)
    facts = [facts_of(record) for record in records]
    return pa.table(
        {
            "id": [record.id for record in records],
            "image": [image_caption(fact) for fact in facts],
            "region": [region_captions(fact) for fact in facts],
        }
    )


def timed(name: str, work: Callable[[], Any], **facts: Any) -> float:
    """Run, and print how long it took."""
    started = time.monotonic()
    work()
    seconds = time.monotonic() - started
    print(json.dumps({"measurement": name, "seconds": round(seconds, 2), **facts}), flush=True)
    return seconds


def bare(records: str, out: Path, function: Callable[[pa.Table], pa.Table]) -> None:
    """Plain Ray Data: read parquet, map, write parquet."""
    import ray

    shutil.rmtree(out, ignore_errors=True)
    ray.data.read_parquet(records, file_extensions=["parquet"]).map_batches(
        function, batch_format="pyarrow", batch_size=None
    ).write_parquet(str(out))


def colours_off(folder: Path, count: int) -> None:
    """The stage without photos beside Ray Data."""
    workspace = Workspace.at(str(folder / "off"))
    write_records(workspace, count)
    records = workspace.records("synthetic").url
    copy = timed(
        "ray data: read, copy, write", lambda: bare(records, folder / "copy", lambda batch: batch), records=count
    )
    peer = timed("ray data: read, caption, write", lambda: bare(records, folder / "peer", same_work), records=count)
    ours = timed(
        "caption stage, template, colours off", lambda: caption(workspace, "synthetic", TemplateEngine()), records=count
    )
    print(json.dumps({"ratio to same work": round(ours / peer, 2), "ratio to copy": round(ours / copy, 2)}), flush=True)


def colours_on(folder: Path, count: int) -> None:
    """The stage over photos beside Ray Data's own decoding."""
    import ray

    world = folder / "world"
    write_world(world, count, 0)
    workspace = Workspace.at(str(folder / "on"))
    ingest(workspace, Coco(annotations=str(world / "annotations.json"), images=str(world / "images")), IngestSettings())
    peer = timed(
        "ray data: read and decode",
        lambda: [0 for _ in ray.data.read_images(str(world / "images")).iter_batches()],
        photos=count,
    )
    ours = timed(
        "caption stage, template, colours on",
        lambda: caption(workspace, "coco", TemplateEngine(colours=True), CaptionSettings()),
        photos=count,
    )
    print(json.dumps({"ratio to read and decode": round(ours / peer, 2)}), flush=True)


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--photos", type=int, default=5_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, cluster():
        warm = Workspace.at(f"{folder}/warm")
        write_records(warm, 2000)
        caption(warm, "synthetic", TemplateEngine())
        colours_off(Path(folder), args.records)
        colours_on(Path(folder), args.photos)


if __name__ == "__main__":
    main()
