"""The peer of merge_export.py: the same work with the standard library, one line and one dict at a time.

    python merge_export_peer.py SOURCE.jsonl [SOURCE.jsonl ...] OUT.jsonl

Reads ODVG VG lines, checks what `llmdet.validate` checks (size, boxes, spans, phrases), writes the sound ones.
"""

from __future__ import annotations

import json
import math
import sys
from typing import Any


def sound(row: dict[str, Any]) -> bool:
    """Whether a line holds what a record promises."""
    width, height, grounding = row["width"], row["height"], row["grounding"]
    if width < 1 or height < 1:
        return False
    text = grounding["caption"]
    for region in grounding["regions"]:
        phrases = [region["phrase"]] if isinstance(region["phrase"], str) else region["phrase"]
        spans = region["tokens_positive"]
        if not phrases or len(phrases) != len(spans):
            return False
        for phrase, (start, end) in zip(phrases, spans, strict=True):
            if not 0 <= start < end <= len(text) or text[start:end].casefold() != phrase.casefold():
                return False
        boxes = region["bbox"] if isinstance(region["bbox"][0], list) else [region["bbox"]]
        for x1, y1, x2, y2 in boxes:
            if not all(map(math.isfinite, (x1, y1, x2, y2))):
                return False
            if x2 - x1 < 1 or y2 - y1 < 1 or min(x2, width) - max(x1, 0) <= 0 or min(y2, height) - max(y1, 0) <= 0:
                return False
    return True


def main(sources: list[str], out: str) -> None:
    """Merge the sources in order."""
    kept = left_out = 0
    with open(out, "w", encoding="utf-8", newline="\n") as target:
        for source in sources:
            with open(source, encoding="utf-8") as lines:
                for line in lines:
                    row = json.loads(line)
                    if sound(row):
                        target.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
                        kept += 1
                    else:
                        left_out += 1
    print(json.dumps({"kept": kept, "left_out": left_out}))


if __name__ == "__main__":
    main(sys.argv[1:-1], sys.argv[-1])
