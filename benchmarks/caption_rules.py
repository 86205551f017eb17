"""Precision and recall of the caption rules on labelled sentences, beside LLMDet's own remover.

    python benchmarks/caption_rules.py [--errors RULE] [--development] [--flickr30k ARCHIVE]

Reads `data/caption_sentences.jsonl` and the held-out third beside it; how they were made and what the labels mean is in
`data/caption_sentences.md`. Every rule judges every row alone, after debris is cleaned as the default chain does.

- found: a row with the rule's label that the rule changed or took out. Recall is their share.
- wrong: a row without the label that should live, and that the rule took out or changed to a text that the row does
  not accept. Precision is found / (found + wrong). Rows of which nothing should be left harm nobody when another rule
  is first; they count neither way.
- as labelled: share of the rows with the label that end as one of the texts that the label accepts.
- words: of the words that speculation took out, the share that had to go; of those that had to go, the share that went.

`--errors RULE` prints the development rows that a rule judges wrongly, never the held-out ones. `--flickr30k` reads the
sentences of a Flickr30k Entities archive instead, which people wrote, and prints how many each rule acts on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from llmdet.record import Box, Caption, Provenance, Record, Region
from llmdet.rules import DEFAULT_CHAIN, Drop, Retry, run_chain
from llmdet.rules.captions import Level
from llmdet.rules.debris import CleanDebris
from llmdet.rules.language import RequireEnglish
from llmdet.rules.length import RequireLength
from llmdet.rules.refusal import RejectRefusal
from llmdet.rules.repetition import RejectRepetition
from llmdet.rules.speculation import RemoveSpeculation, remove_as_upstream
from llmdet.rules.truncation import RequireEnd

DATA = Path(__file__).parent / "data"
MODEL = Provenance(origin="lmm", model="any")
Judged = str | None  # the text that is left, None where the caption was taken out


@dataclass(frozen=True)
class Row:
    """One labelled caption."""

    text: str
    level: Level
    labels: frozenset[str]
    expected: tuple[Judged, ...]
    note: str


@dataclass(frozen=True)
class Measured:
    """A way to clean captions, and the labels it is meant for."""

    name: str
    labels: frozenset[str]
    clean: Callable[[str, Level], tuple[Judged, str]]  # what is left, and the reason where nothing is
    reasons: frozenset[str] = frozenset()  # only these count as wrong; empty: all


def rows(name: str, held_out: bool) -> list[Row]:
    """The rows of a file; each is on the side of the split that its text says."""
    read = [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]
    for row in read:
        side = int(hashlib.sha256(row["text"].encode()).hexdigest()[:8], 16) % 3 == 0
        if side != held_out:
            raise SystemExit(f"{name}: {row['text']!r} belongs to the other file")
    return [
        Row(row["text"], row["level"], frozenset(row["labels"]), tuple(row["expected"]), row["note"]) for row in read
    ]


def judged(rule: Any, text: str, level: Level) -> tuple[Judged, str]:
    """What one rule leaves of a caption by a language model."""
    verdict = rule.judge(Caption(text, provenance=MODEL), level)
    if isinstance(verdict, Drop | Retry):
        return ("" if verdict.reason == "caption_empty" else None), verdict.reason
    return verdict.text, ""


def by(rule: Any) -> Callable[[str, Level], tuple[Judged, str]]:
    """A rule behind the cleaning of debris."""

    def clean(text: str, level: Level) -> tuple[Judged, str]:
        plain, _ = judged(CleanDebris(), text, level)
        return judged(rule, plain, level) if plain else (plain, "")

    return clean


def through_chain(text: str, level: Level) -> tuple[Judged, str]:
    """What the default chain without the floor for length leaves: these captions are single sentences."""
    caption = Caption(text, provenance=MODEL)
    box = Box((1.0, 1.0, 9.0, 9.0), caption=caption if level == "region" else None)
    record = Record(
        *("s/1/0", "s", "1", "0", "grounding", "1.jpg", "s", 640, 480, "a thing"),
        regions=(Region(("a thing",), ((0, 7),), (box,)),),
        captions=(caption,) if level == "image" else (),
    )
    chain = [rule for rule in DEFAULT_CHAIN if not isinstance(rule, RequireLength)]
    left, losses = run_chain(chain, record)
    if not losses and left is not None:
        now = left.captions[0] if level == "image" else left.regions[0].boxes[0].caption
        return (now.text if now else None), ""
    return ("" if losses[-1].verdict.reason == "caption_empty" else None), losses[-1].verdict.reason


def measured() -> list[Measured]:
    """Everything in the table."""
    guess, refusal = frozenset({"speculation", "negation"}), RejectRefusal()
    return [
        Measured("speculation", guess, by(RemoveSpeculation())),
        Measured("  LLMDet's remover", guess, lambda text, level: (remove_as_upstream(text), "")),
        Measured("repetition", frozenset({"repetition"}), by(RejectRepetition())),
        Measured("truncation", frozenset({"truncation"}), by(RequireEnd())),
        *(
            Measured(reason, frozenset({reason}), by(refusal), frozenset({reason}))
            for reason in ("refusal", "prompt_echo", "about_itself")
        ),
        Measured("debris", frozenset({"debris"}), lambda text, level: judged(CleanDebris(), text, level)),
        Measured("language", frozenset({"language"}), by(RequireEnglish())),
    ]


def start(measure: Measured, row: Row) -> str:
    """The text that the rule itself sees."""
    if measure.name in ("debris", "  LLMDet's remover"):
        return row.text
    return judged(CleanDebris(), row.text, row.level)[0] or ""


def outcome(measure: Measured, row: Row) -> str:
    """found, missed, wrong or passed; "" where the row does not count."""
    left, reason = measure.clean(row.text, row.level)
    acted = left != start(measure, row)
    if row.labels & measure.labels:
        return "found" if acted or left in row.expected else "missed"
    if row.labels and (None in row.expected or "" in row.expected):
        return ""
    return (
        "wrong"
        if acted and left not in row.expected and (not measure.reasons or reason in measure.reasons)
        else "passed"
    )


def as_labelled(measure: Measured, row: Row) -> bool:
    """Whether what is left is one of the accepted texts."""
    return measure.clean(row.text, row.level)[0] in row.expected


def words(text: str) -> Counter[str]:
    """Words with how often each is there."""
    return Counter(re.findall(r"\w+", text.lower()))


def word_figures(measure: Measured, labelled: Iterable[Row]) -> tuple[float, float]:
    """Of the words taken out, the share that had to go; of those that had to go, the share that went."""
    right = taken = due = 0
    for row in labelled:
        before, after = words(row.text), words(measure.clean(row.text, row.level)[0] or "")
        went = before - after
        best = max((before - words(text or "") for text in row.expected), key=lambda must: (must & went).total())
        right, taken, due = right + (best & went).total(), taken + went.total(), due + best.total()
    return right / max(taken, 1), right / max(due, 1)


def line(measure: Measured, all_rows: list[Row]) -> str:
    """One row of the table."""
    counts = Counter(outcome(measure, row) for row in all_rows)
    mine = [row for row in all_rows if row.labels & measure.labels]
    only = [row for row in mine if row.labels <= measure.labels]
    found, wrong = counts["found"], counts["wrong"]
    exact = sum(as_labelled(measure, row) for row in only) / len(only)
    shown = f"{measure.name:20} {len(mine):5} {found / max(found + wrong, 1):10.3f} {found / len(mine):7.3f} "
    shown += f"{wrong:4} of {wrong + counts['passed']:3} {exact:12.3f}"
    if "speculation" in measure.labels:
        shown += "   {:.3f} / {:.3f}".format(*word_figures(measure, only))
    return shown


def table(title: str, all_rows: list[Row]) -> None:
    """Print the figures of one file."""
    print(f"\n{title}: {len(all_rows)} rows, {sum(not row.labels for row in all_rows)} without a fault")
    print("rule                  rows  precision  recall      wrong  as labelled   words")
    for measure in measured():
        print(line(measure, all_rows))
    chain = Measured("chain", frozenset(), through_chain)
    live = [row for row in all_rows if not row.labels]
    bad = [row for row in all_rows if row.labels]
    print(
        f"default chain: {sum(as_labelled(chain, row) for row in live)} of {len(live)} faultless rows untouched, ",
        end="",
    )
    print(f"{sum(as_labelled(chain, row) for row in bad)} of {len(bad)} faulty rows end as labelled")


def sentences(archive: Path) -> Iterator[str]:
    """The sentences of a Flickr30k Entities archive (tar.gz or tar), without their marks of entities."""
    with tarfile.open(archive) as files:
        for file in files:
            if "Sentences" in file.name and file.name.endswith(".txt") and (opened := files.extractfile(file)):
                for said in opened.read().decode().splitlines():
                    yield re.sub(r" (?=[.,;:!?])", "", re.sub(r"\[/\S+ ([^\]]*)\]", r"\1", said)).strip()


def people(archive: Path) -> None:
    """Print how many of every eighth sentence each rule acts on; ends are not judged, since people leave out stops."""
    read = 0
    counts: Counter[str] = Counter()
    shown = [measure for measure in measured() if measure.name != "truncation"]
    for said in islice(sentences(archive), 0, None, 8):
        read += 1
        row = Row(said, "image", frozenset(), (said,), "")
        for measure in shown:
            counts[measure.name] += outcome(measure, row) == "wrong"
    print(f"{read} sentences by people")
    for measure in shown:
        print(f"{measure.name:20} {counts[measure.name]:6}  {counts[measure.name] / read:.3%}")


def errors(name: str, all_rows: list[Row]) -> None:
    """Print what a rule gets wrong, for work on it."""
    for measure in [*measured(), Measured("chain", frozenset(), through_chain)]:
        if measure.name.strip() != name:
            continue
        for row in all_rows:
            result = outcome(measure, row) if name != "chain" else ""
            exact = as_labelled(measure, row)
            mine = row.labels & measure.labels if name != "chain" else True
            if result in ("missed", "wrong") or (mine and row.labels <= measure.labels | {""} and not exact):
                print(f"{result:7} {row.level:6} {sorted(row.labels)}\n   {row.text!r}\n   left     ", end="")
                print(f"{measure.clean(row.text, row.level)}\n   expected {row.expected}")


def main() -> None:
    """Print the tables, or the errors of one rule on the development rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--errors", metavar="RULE", help="a rule of the table, or chain")
    parser.add_argument("--flickr30k", type=Path, metavar="ARCHIVE", help="count what rules do to sentences by people")
    parser.add_argument("--development", action="store_true", help="leave the held-out file unread")
    options = parser.parse_args()
    if options.flickr30k:
        return people(options.flickr30k)
    development = rows("caption_sentences.jsonl", held_out=False)
    if options.errors:
        return errors(options.errors, development)
    table("development", development)
    if not options.development:
        table("held out", rows("caption_sentences_held_out.jsonl", held_out=True))
    return None


if __name__ == "__main__":
    main()
