"""A million records opened for training, beside mmdet's `ODVGDataset` on the same records as jsonl, in one run.

    .ci/mmdet_env .venv-mmdet
    python benchmarks/open_records.py --mmdet .venv-mmdet/bin/python [--records 100000 1120000]

Records have seven boxes, an image caption of 115 words and a short caption of each box. Ours are the parquet parts of
`groundingcap/`; the peer's the lines of LLMDet's jsonl (no captions of boxes, which it cannot read). Every reader is a
process of its own, started before the clock; imports are not counted on either side.

- `open_s`: from nothing to the length of the data set; `first_s`: to a record in the middle. `open_cpu_s` is the time
  of the processor alone, which says more where others use the machine too.
- `read_ms`: processor time of one record at a random place, mean of 2,000; ours while parts are still being decoded,
  and again once they all are (`read_ms_warm`). The peer's is `get_data_info`, which unpickles a record of its list.
- `own_mb`: memory of the process that is its own (USS) and `pss_mb` with its share of what it shares, both above what
  the process had before opening, after opening and again after reading.

Without --mmdet the peer is `json`: each line to a dict in a list, which is the least that any reader of the whole file
does. Prints one JSON line a reader, and one with the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sized
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PART_ROWS = 8192
READS = 2000


def main() -> None:
    """Measure each size, or be one of the readers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, nargs="+", default=[100_000, 1_120_000])
    parser.add_argument("--mmdet", help="Python of an environment that has mmdet")
    parser.add_argument("--reader", nargs=2, metavar=("NAME", "PATH"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.reader:
        name, path = args.reader
        print(json.dumps(READERS[name](path)), flush=True)
        return
    base = example_records()
    for count in args.records:
        with tempfile.TemporaryDirectory() as folder:
            compare(Path(folder), base, count, args.mmdet)


def compare(folder: Path, base: list[Any], count: int, mmdet: str | None) -> None:
    """One line for ours, one for the peer, one for the ratios."""
    environment = os.environ | {
        "PYTHONPATH": f"{HERE.parent}:{HERE}:{HERE.parent / 'tests' / 'consumers'}",
        "LLMDET_CACHE": str(folder / "cache"),
    }
    write(folder, base, count)
    peer = "mmdet" if mmdet else "json"
    jobs = {
        "ours": (sys.executable, folder / "groundingcap"),
        peer: (mmdet or sys.executable, folder / "records.jsonl"),
    }
    found = {}
    for name, (python, path) in jobs.items():
        command = [python, __file__, "--reader", name, str(path)]
        answer = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout
        found[name] = json.loads(answer.splitlines()[-1])
        assert found[name].pop("length") == count
        line = {"records": count, "reader": name, "bytes_on_disk": bytes_of(path), **found[name]}
        print(json.dumps(line | {"load": round(os.getloadavg()[0], 1)}), flush=True)
    print(json.dumps({"records": count, "cache_bytes": bytes_of(folder / "cache"), **ratios(found, peer)}), flush=True)


def ratios(found: dict[str, Any], peer: str) -> dict[str, Any]:
    """The peer's figures over ours; less than 1 MB counts as 1 MB."""
    keys = {
        "open_s": "open_s",
        "open_cpu_s": "open_cpu_s",
        "first_s": "first_s",
        "own_mb": "own_mb_opened",
        "own_mb_after_reading": "own_mb_read",
        "pss_mb_after_reading": "pss_mb_read",
    }
    return {
        f"{peer} / ours": {
            name: round(found[peer][key] / max(found["ours"][key], 1 if "mb" in key else 1e-9), 1)
            for name, key in keys.items()
        }
    }


def bytes_of(place: Path) -> int:
    """Size of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in ([place] if place.is_file() else place.rglob("*")) if file.is_file())


# --- What is read --------------------------------------------------------------------------------------------------


def example_records() -> list[Any]:
    """As many different records as a part has."""
    from caption_overhead import synthetic

    from detector.checkpoint import VOCABULARY
    from llmdet.record import Caption, Provenance

    words = [word for word in VOCABULARY.read_text().split() if word.isalpha() and len(word) > 2]
    rng = random.Random(0)
    by = Provenance("lmm", "image_detailed@1", "0" * 16, "Qwen/Qwen2-VL-72B-Instruct", "main", "vllm", "0.11", "{}")

    def caption(length: int) -> Caption:
        text = " ".join(rng.choice(words) for _ in range(length)) + "."
        return Caption(text, text, by, rng.randbytes(16).hex(), 1, 900, length)

    def told(record: Any) -> Any:
        regions = tuple(
            replace(region, boxes=tuple(replace(box, caption=caption(8)) for box in region.boxes))
            for region in record.regions
        )
        return replace(record, regions=regions, captions=(caption(115),))

    return [told(record) for record in synthetic(PART_ROWS)]


def write(folder: Path, base: list[Any], count: int) -> None:
    """The same records as `groundingcap/` and as one file of jsonl; each part has those of `base` under other names."""
    import pyarrow as pa

    from llmdet.record import to_batch
    from llmdet.workspace import Manifest, Table

    table, parts = Table(str(folder / "groundingcap")), []
    batch, told = pa.Table.from_batches([to_batch(base)]), [json.dumps(line(record)) for record in base]
    with open(folder / "records.jsonl", "w", encoding="utf-8") as lines:
        for index, start in enumerate(range(0, count, PART_ROWS)):
            numbers = range(start, min(start + PART_ROWS, count))
            part = batch.slice(0, len(numbers))
            for name, form in {"id": "synthetic/{}/0", "image_id": "{}", "image": "{}.jpg"}.items():
                column = pa.array([form.format(n) for n in numbers])
                part = part.set_column(part.schema.get_field_index(name), name, column)
            parts.append(table.write_part(index, "benchmark", part))
            lines.writelines(
                text.replace('"filename": "', f'"filename": "{n}', 1) + "\n"
                for n, text in zip(numbers, told, strict=False)
            )
    table.commit(Manifest("merge", "benchmark", tuple(parts)))


def line(record: Any) -> dict[str, Any]:
    """A record as LLMDet's jsonl has it, but for the name of its photo."""
    regions = [
        {
            "bbox": [box.xyxy for box in region.boxes],
            "phrase": region.phrases[0],
            "tokens_positive": region.spans,
        }
        for region in record.regions
    ]
    said = [{"from": "human", "value": "<image>\nDescribe."}, {"from": "gpt", "value": record.captions[0].text}]
    return {
        "filename": ".jpg",
        "height": record.height,
        "width": record.width,
        "grounding": {"caption": record.text, "regions": regions},
        "conversations": said,
    }


# --- Who reads -----------------------------------------------------------------------------------------------------


def ours(path: str) -> dict[str, Any]:
    """`detector.records`, read cold and warm."""
    from detector.records import RecordTable

    figures = measured(lambda: RecordTable(path), lambda table, row: table[row], path)
    table = RecordTable(path)
    for row in range(0, len(table), PART_ROWS):
        _ = table[row]
    return figures | {"read_ms_warm": timed_reads(lambda row: table[row], len(table))}


def mmdet(path: str) -> dict[str, Any]:
    """`ODVGDataset` of mmdet, as a worker of its own runner would open it."""
    import mmdet_shims

    mmdet_shims.put_in_place()
    from mmdet.datasets import ODVGDataset

    def open_it() -> Any:
        return ODVGDataset(
            ann_file=path,
            data_prefix={"img": ""},
            filter_cfg={"filter_empty_gt": False},
            pipeline=[],
            return_classes=True,
        )

    return measured(open_it, lambda dataset, row: dataset.get_data_info(row), path)


def plain_json(path: str) -> dict[str, Any]:
    """Every line as a dict in one list."""

    def open_it() -> list[Any]:
        with open(path, encoding="utf-8") as lines:
            return [json.loads(text) for text in lines]

    return measured(open_it, lambda rows, row: rows[row], path)


READERS: dict[str, Callable[[str], dict[str, Any]]] = {"ours": ours, "mmdet": mmdet, "json": plain_json}


def measured(open_it: Callable[[], Sized], read: Callable[[Any, int], Any], path: str) -> dict[str, Any]:
    """Seconds and memory of opening, and of reading at random places."""
    if Path(path).is_file():  # the file is in the page cache on both sides
        with open(path, "rb") as file:
            shutil.copyfileobj(file, open(os.devnull, "wb"))  # noqa: SIM115
    before = memory()
    started, cpu = time.perf_counter(), time.process_time()
    opened = open_it()
    length = len(opened)
    open_s, open_cpu_s = time.perf_counter() - started, time.process_time() - cpu
    after = memory()
    started = time.perf_counter()
    read(opened, length // 3)
    first_s = open_s + time.perf_counter() - started
    read_ms = timed_reads(lambda row: read(opened, row), length)
    names = (("opened", after), ("read", memory()))
    grown = {f"{kind}_mb_{name}": (now[k] - before[k]) >> 10 for name, now in names for k, kind in enumerate(KINDS)}
    times = {"open_s": round(open_s, 3), "open_cpu_s": round(open_cpu_s, 3), "first_s": round(first_s, 3)}
    return {"length": length, **times, "read_ms": read_ms} | grown


KINDS = ("own", "pss")


def memory() -> tuple[int, int]:
    """Kilobytes of this process alone, and its proportional set size (Linux; mmdet's environment has no psutil)."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name: int(rest.split()[0]) for name, rest in (text.split(":") for text in lines)}
    return sizes["Private_Clean"] + sizes["Private_Dirty"], sizes["Pss"]


def timed_reads(read: Callable[[int], Any], length: int) -> float:
    """Milliseconds of the processor for one record."""
    rows = list(drawn(length))
    started = time.process_time()
    for row in rows:
        read(row)
    return round((time.process_time() - started) / len(rows) * 1000, 3)


def drawn(length: int) -> Iterator[int]:
    """Random rows."""
    rng = random.Random(1)
    yield from (rng.randrange(length) for _ in range(READS))


if __name__ == "__main__":
    main()
