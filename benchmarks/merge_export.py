"""A million records merged, validated and exported, beside plain `json` and dicts, in one run.

    python benchmarks/merge_export.py [--records 100000 300000 1120000] [--peers json] [--part-rows 8192]

Ours: `pipelines.merge` (which validates) from `records/` tables to `groundingcap/`, then `pipelines.export` to ODVG
jsonl and to parquet, in one process without a cluster, as on any single machine. The peers (merge_export_peer.py) make
the same checks one dict at a time, and write the merged records and the same ODVG bytes (compared here):

- "json": the standard library only. It cannot read parquet, so the same whole records come as jsonl, a file a source.
- "json + pyarrow": the same parquet files in, and parquet files with the same rows out (compared here).

One record of 50,000 has a fault, which all must find. Each runs in a process of its own. `seconds` are those of the
whole process by the clock, so ours has the start and imports in them; `stages_s` has not. `cpu_s` is user
and system time of all processes, sampled, which says more than the clock where others use the machine too. Memory is
the peak of the sum of proportional set sizes.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import psutil
import pyarrow.parquet as pq
from caption_overhead import synthetic

from llmdet.exports.odvg import Odvg
from llmdet.exports.parquet import Parquet
from llmdet.record import Record, to_batch
from llmdet.sources.source import SourceInfo
from llmdet.workspace import Manifest, Workspace
from pipelines.export import export
from pipelines.merge import merge

HERE = Path(__file__).parent
SOURCES = ("first", "second")
PEERS = ["json", "json + pyarrow"]
DISTINCT = 16_384  # records that are made; more are these under other ids
FAULT_EVERY = 50_000


def main() -> None:
    """Measure each size, or run our side in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, nargs="+", default=[100_000, 300_000, 1_120_000])
    parser.add_argument("--part-rows", type=int, default=8192)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS)
    parser.add_argument("--inside", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        print(json.dumps(ours(args.inside)), flush=True)
        return
    base = [with_negatives(record) for record in synthetic(DISTINCT)]
    for count in args.records:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), base, count, args.part_rows)
            measure(Path(folder), count, args.peers)


def measure(folder: Path, count: int, peers: list[str]) -> None:
    """One line for ours, one for each peer, one for the ratios."""
    environment = dict(os.environ, PYTHONPATH=f"{HERE.parent}:{HERE}")
    load = os.getloadavg()[0]
    mine = run([sys.executable, __file__, "--inside", str(folder / "workspace")], environment)
    stages = sum(mine["out"][stage] for stage in ("merge_s", "odvg_s", "parquet_s"))
    print(json.dumps({"records": count, "load": load, "ours": mine, "stages_s": round(stages, 2)}), flush=True)
    tables = [Workspace.at(str(folder / "workspace")).records(name) for name in SOURCES]
    parts = [f"{table.url}/{part.name}" for table in tables for part in table.require("").parts]
    inputs = dict(zip(PEERS, ([str(folder / f"{name}.jsonl") for name in SOURCES], parts), strict=True))
    for name in peers:
        out = folder / name
        out.mkdir()
        peer = run([sys.executable, str(HERE / "merge_export_peer.py"), *inputs[name], str(out)], environment)
        check(folder / "workspace", out, mine["out"], peer["out"])
        ratios = {"whole": peer["seconds"] / mine["seconds"], "stages": peer["seconds"] / stages}
        ratios = {key: round(value, 2) for key, value in ratios.items()}
        print(json.dumps({"records": count, "peer": name, **peer, "peer / ours": ratios}), flush=True)


def check(workspace: Path, out: Path, mine: dict[str, float], peer: dict[str, int]) -> None:
    """Same records, same rejects, same ODVG bytes, same rows of parquet; else the figures mean nothing."""
    assert all(mine[key] == peer[key] for key in ("records", "rejects", "boxes")), (mine, peer)
    assert filecmp.cmp(workspace / "exports" / "odvg.jsonl", out / "odvg.jsonl", shallow=False)
    for theirs in sorted(out.glob("merged-*.parquet")):
        same = theirs.name.replace("merged", "records")
        assert pq.ParquetFile(workspace / "exports" / same).read().equals(pq.ParquetFile(theirs).read()), same


def with_negatives(record: Record) -> Record:
    """The names in the text that no region says are negatives, as sources of detection data have them."""
    said = {span for region in record.regions for span in region.spans}
    names = [match.span() for match in re.finditer(r"[^.]+(?=\. )", record.text)]
    spans = [(start + record.text[start:end].startswith(" "), end) for start, end in names]
    return replace(record, negatives=tuple(span for span in spans if span not in said))


def write(folder: Path, base: list[Record], count: int, part_rows: int) -> None:
    """The same records as tables of two sources and as two files of jsonl."""
    workspace = Workspace.at(str(folder / "workspace"))
    half = count // 2
    for source, start, stop in ((SOURCES[0], 0, half), (SOURCES[1], half, count)):
        table, parts = workspace.records(source), []
        with open(folder / f"{source}.jsonl", "wb") as lines:
            for index, first in enumerate(range(start, stop, part_rows)):
                records = [numbered(base, source, n) for n in range(first, min(first + part_rows, stop))]
                parts.append(table.write_part(index, "benchmark", to_batch(records)))
                lines.writelines(orjson.dumps(told(record)) + b"\n" for record in records)
        info = SourceInfo(source, "synthetic", "", "", "/nowhere").to_dict()
        table.commit(Manifest("ingest", "benchmark", tuple(parts), info=info))


def numbered(base: list[Record], source: str, n: int) -> Record:
    """One of the records under its own id; sometimes with a fault."""
    record = base[n % DISTINCT]
    height = 0 if n % FAULT_EVERY == FAULT_EVERY - 1 else record.height
    return replace(
        record, id=f"{source}/{n}/0", source=source, image_id=str(n), image=f"{n}.jpg", root=source, height=height
    )


def told(value: Any) -> Any:
    """A record as dicts, without what is null, empty or false."""
    if isinstance(value, (tuple, list)):
        return [told(item) for item in value]
    if not is_dataclass(value):
        return value
    there = {one.name: getattr(value, one.name) for one in fields(value)}
    return {name: told(item) for name, item in there.items() if item or (item == 0 and item is not False)}


def ours(url: str) -> dict[str, float]:
    """Seconds of each stage in this process, and what came out."""
    workspace = Workspace.at(url)
    times: dict[str, float] = {}
    started = time.monotonic()
    outcome = merge(workspace)
    times["merge_s"], started = time.monotonic() - started, time.monotonic()
    written = export(workspace, Odvg(), workspace.path("exports"))
    times["odvg_s"], started = time.monotonic() - started, time.monotonic()
    copied = export(workspace, Parquet(), workspace.path("exports"))
    times["parquet_s"] = time.monotonic() - started
    assert written.records == copied.records == outcome.records
    assert written.boxes == copied.boxes
    counts = {"records": outcome.records, "rejects": sum(outcome.rejects.values()), "boxes": written.boxes}
    return {name: round(value, 2) for name, value in times.items()} | counts


def run(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Seconds, CPU seconds, peak memory and last line of a command."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
    peak, stop = [0], threading.Event()
    cpu: dict[int, float] = {}  # by process

    def watch() -> None:
        while not stop.wait(0.5):
            alive = family(process.pid)
            peak[0] = max(peak[0], sum(pss(one) for one in alive))
            cpu.update({one.pid: spent(one) for one in alive})

    thread = threading.Thread(target=watch)
    thread.start()
    out, _ = process.communicate()
    stop.set()
    thread.join()
    if process.returncode:
        sys.exit(f"{command} ended with {process.returncode}")
    return {
        "seconds": round(time.monotonic() - started, 2),
        "cpu_s": round(sum(cpu.values()), 2),
        "peak_pss_mb": peak[0] >> 20,
        "out": json.loads(out.strip().splitlines()[-1]),
    }


def spent(process: psutil.Process) -> float:
    """Seconds of CPU that a process has used so far."""
    try:
        times = process.cpu_times()
        return float(times.user + times.system)
    except psutil.Error:
        return 0.0


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
