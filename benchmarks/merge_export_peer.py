"""The peers of merge_export.py: the same work with `json` and dicts, one record at a time.

    python merge_export_peer.py IN [IN ...] OUT

IN are files of whole records in their order, OUT is a folder. Each record gets every check of `llmdet.validate`; sound
ones go to `merged` and, as ODVG VG lines, to `odvg.jsonl`, the others to `rejects.jsonl` with the reason.

With `.jsonl` inputs only the standard library is used; what a line does not say is null, empty or false, and a sound
line is passed on as it is. With `.parquet` inputs the files are those of our workspace: pyarrow reads them to dicts and
writes dicts to `merged-*.parquet`, since the standard library has no parquet.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def fault(row: Row) -> str:
    """Why a record is not what a record promises to be, empty where it is."""
    width, height, text = row["width"], row["height"], row["text"]
    if width < 1 or height < 1:
        return "size_not_positive"
    for region in row.get("regions") or ():
        spans, phrases = region.get("spans") or (), region.get("phrases") or ()
        if not phrases or len(phrases) != len(spans):
            return "phrases_and_spans_differ"
        for phrase, (start, end) in zip(phrases, spans, strict=True):
            if not 0 <= start < end <= len(text):
                return "span_outside_text"
            if text[start:end].casefold() != phrase.casefold():
                return "phrase_not_at_span"
        for box in region.get("boxes") or ():
            x1, y1, x2, y2 = box["xyxy"]
            if not (math.isfinite(x1) and math.isfinite(y1) and math.isfinite(x2) and math.isfinite(y2)):
                return "box_not_finite"
            if x2 - x1 < 1 or y2 - y1 < 1:
                return "box_below_one_pixel"
            if min(x2, width) - max(x1, 0) <= 0 or min(y2, height) - max(y1, 0) <= 0:
                return "box_outside_image"
    for start, end in row.get("negatives") or ():
        if not 0 <= start < end <= len(text):
            return "span_outside_text"
    return ""


def odvg(row: Row) -> Row:
    """The ODVG VG line of a record: crowd boxes are left out, and regions without boxes."""
    regions = []
    for region in row.get("regions") or ():
        boxes = [box["xyxy"] for box in region.get("boxes") or () if not box.get("crowd")]
        if boxes:
            phrases = region["phrases"]
            regions.append(
                {
                    "bbox": boxes if len(boxes) > 1 else boxes[0],
                    "phrase": phrases if len(phrases) > 1 else phrases[0],
                    "tokens_positive": region["spans"],
                }
            )
    grounding = {"caption": row["text"], "regions": regions}
    return {"filename": row["image"], "height": row["height"], "width": row["width"], "grounding": grounding}


class Outputs:
    """The files of jsonl that are written, and how many records went where."""

    def __init__(self, out: Path) -> None:
        self._lines = open(out / "odvg.jsonl", "w", encoding="utf-8", newline="\n")  # noqa: SIM115
        self._rejects = open(out / "rejects.jsonl", "w", encoding="utf-8", newline="\n")  # noqa: SIM115
        self.kept = self.left_out = self.boxes = 0

    def take(self, row: Row) -> bool:
        """Check a record and write its line. False where it was rejected."""
        reason = fault(row)
        if reason:
            self._rejects.write(json.dumps({"id": row["id"], "stage": "merge", "reason": reason}) + "\n")
            self.left_out += 1
            return False
        self._lines.write(json.dumps(odvg(row), ensure_ascii=False, separators=(",", ":")) + "\n")
        self.boxes += sum(len(region.get("boxes") or ()) for region in row.get("regions") or ())
        self.kept += 1
        return True

    def close(self) -> None:
        self._lines.close()
        self._rejects.close()


def merge_lines(sources: list[Path], out: Path, take: Callable[[Row], bool]) -> None:
    """jsonl in, jsonl out."""
    with open(out / "merged.jsonl", "w", encoding="utf-8", newline="\n") as merged:
        for source in sources:
            with open(source, encoding="utf-8") as lines:
                merged.writelines(line for line in lines if take(json.loads(line)))


def merge_parquet(sources: list[Path], out: Path, take: Callable[[Row], bool]) -> None:
    """Parquet in, parquet out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for number, source in enumerate(sources):
        table = pq.ParquetFile(source).read()
        merged = pa.Table.from_pylist([row for row in table.to_pylist() if take(row)], schema=table.schema)
        pq.write_table(merged, out / f"merged-{number:05d}.parquet", compression="zstd")


def main(sources: list[Path], out: Path) -> None:
    """Merge the sources in order."""
    outputs = Outputs(out)
    (merge_parquet if sources[0].suffix == ".parquet" else merge_lines)(sources, out, outputs.take)
    outputs.close()
    print(json.dumps({"records": outputs.kept, "rejects": outputs.left_out, "boxes": outputs.boxes}))


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:-1]], Path(sys.argv[-1]))
