"""The report of a large workspace: how long it takes, how much memory, how large the page is, and how it feels.

    python benchmarks/report_size.py [--records 200000] [--gallery 24]

Records of two sources with seven boxes, two captions of about 115 words (a third of them changed by a rule), four
links, flags and figures of checks; a reject for every tenth record; 200 different photos of 640x640. `report` runs as a
command of its own; its memory is the peak of its resident set. Then headless Chromium opens the page from disk: until
it can be used, until a filter has been applied, until a click has lit a box.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from caption_overhead import synthetic
from PIL import Image

from llmdet.record import Caption, Link, Provenance, Record, to_batch
from llmdet.rejects import Reject
from llmdet.rejects import to_batch as rejects_to_batch
from llmdet.sources.source import SourceInfo
from llmdet.workspace import Manifest, Workspace

HERE = Path(__file__).parent
SOURCES = ("first", "second")
DISTINCT = 4096
PART_ROWS = 8192
PHOTOS = 200
FLAGS = ("count_contradiction", "position_contradiction", "ungrounded_object", "box_not_mentioned")
HOW = Provenance("lmm", "image@1", model="some/model", engine="vllm")


def main() -> None:
    """Make the workspace, write its report, open it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--gallery", type=int, default=24)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.at(f"{folder}/workspace")
        photos(Path(folder) / "photos")
        write(workspace, args.records, f"{folder}/photos")
        started = time.monotonic()
        command = [sys.executable, "-m", "cli", "report", "--workspace", workspace.url, "--json"]
        subprocess.run([*command, "--gallery", str(args.gallery)], check=True, cwd=HERE.parent)
        page = Path(workspace.path("report", "index.html"))
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        told = {
            "records": args.records,
            "seconds": round(time.monotonic() - started, 2),
            "cpu_s": round(used.ru_utime + used.ru_stime, 2),
            "peak_memory_bytes": used.ru_maxrss * 1024,
            "page_bytes": page.stat().st_size,
            **opened(page),
        }
        print(json.dumps(told), flush=True)


def opened(page: Path) -> dict[str, float]:
    """Milliseconds in a browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        view = browser.new_page(viewport={"width": 1300, "height": 900})
        found = {"cards": 0.0}
        started = time.perf_counter()
        view.goto(page.as_uri())
        found["open_ms"] = 1000 * (time.perf_counter() - started)
        found["cards"] = view.locator(".card").count()
        view.locator("#gallery").scroll_into_view_if_needed()
        started = time.perf_counter()
        view.get_by_role("combobox", name="Flag").select_option(FLAGS[0])
        found["filter_ms"] = 1000 * (time.perf_counter() - started)
        mark = view.locator(".card:visible blockquote mark").first
        started = time.perf_counter()
        mark.click()
        view.wait_for_selector(".card.lit .hole.on", state="attached")
        found["click_ms"] = 1000 * (time.perf_counter() - started)
        browser.close()
    return {key: round(value, 1) for key, value in found.items()}


def photos(folder: Path) -> None:
    """Noise that compresses about as photos do."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(PHOTOS):
        small = Image.fromarray(rng.integers(0, 256, (80, 80, 3), np.uint8))
        small.resize((640, 640), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=85)


def write(workspace: Workspace, count: int, images: str) -> None:
    """Finished tables of records and of merged records, and rejects."""
    base = [with_captions(record, number) for number, record in enumerate(synthetic(DISTINCT))]
    merged, left_out = [], []
    for at, source in enumerate(SOURCES):
        numbers = range(at * count // 2, (at + 1) * count // 2)
        records = workspace.records(source)
        parts = []
        for index, first in enumerate(range(numbers.start, numbers.stop, PART_ROWS)):
            here = range(first, min(first + PART_ROWS, numbers.stop))
            batch = to_batch([numbered(base[n % DISTINCT], source, n) for n in here])
            parts.append(records.write_part(index, "benchmark", batch))
            merged.append(workspace.groundingcap().write_part(len(merged), "benchmark", batch))
            left_out.append(workspace.rejects("refine", source).write_part(index, "benchmark", rejects(source, here)))
        info = SourceInfo(source, "synthetic", "CC0", "", images).to_dict()
        records.commit(Manifest("ingest", "benchmark", tuple(parts), {"seconds": 0}, info=info))
        kept, left_out = tuple(left_out), []
        workspace.rejects("refine", source).commit(Manifest("refine", "benchmark", kept, {"seconds": 0}))
    inputs = dict.fromkeys(SOURCES, "benchmark")
    workspace.groundingcap().commit(Manifest("merge", "benchmark", tuple(merged), {"seconds": 0}, inputs=inputs))


def rejects(source: str, numbers: range):  # type: ignore[no-untyped-def]
    """A caption left out of every tenth record."""
    reasons = ("refusal", "repetition", "truncated", "not_english", "caption_short")
    rows = [
        Reject(
            f"{source}/{n}/0#image_caption-0", "request", "policy", "refine", reasons[n // 10 % 5], "the rule says why"
        )
        for n in numbers
        if n % 10 == 0
    ]
    return rejects_to_batch(rows)


def with_captions(record: Record, number: int) -> Record:
    """Two captions with links, sometimes flagged."""
    rng = np.random.default_rng(number)
    words = np.array(["a", "dog", "stands", "beside", "the", "red", "car", "on", "wet", "grass", "near", "people"])
    links = tuple(Link((at * 10, at * 10 + 5), at % len(record.regions)) for at in range(4))
    captions = []
    for index in range(2):
        text = " ".join(rng.choice(words, 115)) + "."
        raw = text + " It may be a calm afternoon, which suggests that they are happy." if number % 3 == index else text
        captions.append(Caption(text, raw, HOW, links=links))
    flags = (FLAGS[number // 20 % len(FLAGS)],) if number % 20 == 0 else ()
    extra = {"checks": {"counts": {"claims": 3, "wrong": int(bool(flags))}}}
    return replace(record, captions=tuple(captions), flags=flags, extra=extra)


def numbered(record: Record, source: str, n: int) -> Record:
    """One of the records under its own id."""
    return replace(record, id=f"{source}/{n}/0", source=source, image_id=str(n), image=f"{n % PHOTOS}.jpg", root=source)


if __name__ == "__main__":
    main()
