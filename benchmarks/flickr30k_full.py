"""All of Flickr30k Entities from its archive: time, peak memory and the published counts; one JSON line.

    PYTHONPATH=. python benchmarks/flickr30k_full.py flickr30k_entities_annotations_31783.tar.gz [--join]

Reads 31,783 photos and 158,915 sentences into Records on one core, checks every record with the validator, counts the
marked phrases by entity type, and with `--join` joins the sentences of a photo as well. The limits are 2 minutes and
2 GB; the counts are those of a scan of the raw files. Exit code 1 where one of them does not hold.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections import Counter

from llmdet.joining import JoinReport, SameImage, join_items
from llmdet.record import Record
from llmdet.sources.flickr30k import Flickr30k
from llmdet.validate import faults

IMAGES, SENTENCES = 31_783, 158_915
TYPES = {
    "people": 182_924,
    "other": 138_658,
    "scene": 86_317,
    "clothing": 71_538,
    "notvisual": 30_695,
    "bodyparts": 18_106,
    "animals": 17_372,
    "vehicles": 13_173,
    "instruments": 4_900,
}
MAX_SECONDS, MAX_BYTES = 120, 2_000_000_000


def main() -> int:
    """Read, count, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive")
    parser.add_argument("--join", action="store_true", help="join the sentences of each photo, too")
    options = parser.parse_args()
    images: set[str] = set()
    types: Counter[str] = Counter()
    rejects: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    start = time.perf_counter()
    for item in Flickr30k(annotations=options.archive, images="flickr30k_images").read():
        if not isinstance(item, Record):
            rejects[item.reason] += 1
            continue
        images.add(item.image_id)
        counts.update(
            records=1,
            regions=len(item.regions),
            boxes=sum(len(region.boxes) for region in item.regions),
            faults=len(faults(item)),
        )
        for phrase in item.extra["phrases"]:
            types.update(phrase["types"])
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    result = {
        "images": len(images),
        **counts,
        "types": dict(types.most_common()),
        "rejects": dict(rejects),
        "seconds": round(seconds, 1),
        "peak_bytes": peak,
    }
    if options.join:
        result |= join(options.archive)
    print(json.dumps(result))
    counted = (len(images), counts["records"], dict(types)) == (IMAGES, SENTENCES, TYPES)
    return 0 if counted and not counts["faults"] and seconds < MAX_SECONDS and peak < MAX_BYTES else 1


def join(archive: str) -> dict[str, object]:
    """How many records become how many under each rule for a box with two phrases."""
    result: dict[str, object] = {}
    for rule in (SameImage(), SameImage(same_box="conflict")):
        report = JoinReport()
        start = time.perf_counter()
        for _ in join_items(Flickr30k(annotations=archive, images="flickr30k_images").read(), rule, report):
            pass
        result[f"join_same_box_{rule.same_box}"] = {
            "before": report.before,
            "after": report.after,
            "conflicts": dict(report.conflicts.most_common()),
            "seconds_with_reading": round(time.perf_counter() - start, 1),
        }
    return result


if __name__ == "__main__":
    sys.exit(main())
