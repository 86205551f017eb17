"""A million records merged, validated and exported, beside plain `json` and dicts, in one run.

    python benchmarks/merge_export.py [--records 100000 300000 1120000]

Ours: `pipelines.merge` (which validates) from `records/` tables, then `pipelines.export` to ODVG jsonl and to parquet.
The peer, `merge_export_peer.py`, uses the standard library only: it reads the same records as ODVG jsonl, one file per
source, makes the same checks, and writes the same ODVG bytes (compared here), but no parquet. Each runs in a process of
its own; seconds are wall clock, memory is the peak of the sum of proportional set sizes. Ray's start is
counted by itself: a run of several stages pays it once.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from caption_overhead import synthetic

from llmdet.exports.odvg import Odvg
from llmdet.exports.parquet import Parquet
from llmdet.record import Record, to_batch
from llmdet.sources.source import SourceInfo
from llmdet.workspace import Manifest, Workspace
from pipelines.cluster import cluster
from pipelines.export import export
from pipelines.merge import merge

HERE = Path(__file__).parent
SOURCES = ("first", "second")
PART_ROWS = 8192
DISTINCT = 16_384  # records that are made; more are these under other ids


def main() -> None:
    """Measure each size, or run our side in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, nargs="+", default=[100_000, 300_000, 1_120_000])
    parser.add_argument("--inside", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        print(json.dumps(ours(args.inside)), flush=True)
        return
    base = synthetic(DISTINCT)
    for count in args.records:
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), base, count)


def measure(folder: Path, base: list[Record], count: int) -> None:
    """One line for ours, one for the peer, one for both."""
    write(folder, base, count)
    environment = dict(os.environ, PYTHONPATH=f"{HERE.parent}:{HERE}")
    mine = run([sys.executable, __file__, "--inside", str(folder / "workspace")], environment)
    lines = [str(folder / f"{name}.jsonl") for name in SOURCES]
    peer = run([sys.executable, str(HERE / "merge_export_peer.py"), *lines, str(folder / "peer.jsonl")], environment)
    same = filecmp.cmp(folder / "workspace" / "exports" / "odvg.jsonl", folder / "peer.jsonl", shallow=False)
    work = sum(mine["out"][stage] for stage in ("merge_s", "odvg_s", "parquet_s"))
    print(json.dumps({"records": count, "ours": mine, "work_s": round(work, 2)}), flush=True)
    print(json.dumps({"records": count, "peer": peer, "same bytes": same}), flush=True)
    without = sum(mine["out"][stage] for stage in ("merge_s", "odvg_s"))
    ratios = {
        "peer / (merge + odvg)": peer["seconds"] / without,
        "peer / (merge + odvg + parquet)": peer["seconds"] / work,
    }
    print(json.dumps({"records": count, **{name: round(value, 2) for name, value in ratios.items()}}), flush=True)


def write(folder: Path, base: list[Record], count: int) -> None:
    """The same records as tables of two sources and as two jsonl files."""
    workspace = Workspace.at(str(folder / "workspace"))
    half = count // 2
    for source, start, stop in ((SOURCES[0], 0, half), (SOURCES[1], half, count)):
        table, parts = workspace.records(source), []
        with open(folder / f"{source}.jsonl", "wb") as lines:
            for index, first in enumerate(range(start, stop, PART_ROWS)):
                records = [
                    replace(
                        base[n % DISTINCT],
                        id=f"{source}/{n}/0",
                        source=source,
                        image_id=str(n),
                        image=f"{n}.jpg",
                        root=source,
                    )
                    for n in range(first, min(first + PART_ROWS, stop))
                ]
                batch = to_batch(records)
                parts.append(table.write_part(index, "benchmark", batch))
                lines.write(Odvg().encode(batch))
        info = SourceInfo(source, "synthetic", "", "", "/nowhere").to_dict()
        table.commit(Manifest("ingest", "benchmark", tuple(parts), info=info))


def ours(url: str) -> dict[str, float]:
    """Seconds of each stage in this process."""
    workspace = Workspace.at(url)
    times: dict[str, float] = {}
    started = time.monotonic()
    with cluster():
        times["ray_start_s"] = time.monotonic() - started
        started = time.monotonic()
        outcome = merge(workspace)
        times["merge_s"] = time.monotonic() - started
    for name, exporter in (("odvg", Odvg()), ("parquet", Parquet())):
        started = time.monotonic()
        exported = export(workspace, exporter, workspace.path("exports"))
        times[f"{name}_s"] = time.monotonic() - started
        assert exported.records == outcome.records
    return {name: round(value, 2) for name, value in times.items()}


def run(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Seconds, peak memory and last line of a command."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
    peak, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.5):
            peak[0] = max(peak[0], sum(pss(p) for p in family(process.pid)))

    thread = threading.Thread(target=watch)
    thread.start()
    out, _ = process.communicate()
    stop.set()
    thread.join()
    if process.returncode:
        sys.exit(f"{command} ended with {process.returncode}")
    lines = out.strip().splitlines()
    return {
        "seconds": round(time.monotonic() - started, 2),
        "peak_pss_mb": peak[0] >> 20,
        "out": json.loads(lines[-1]) if lines else {},
    }


def family(pid: int) -> list[psutil.Process]:
    """A process and all below it."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def pss(process: psutil.Process) -> int:
    """Proportional set size in bytes."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0


if __name__ == "__main__":
    main()
