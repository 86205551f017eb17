"""How many planted faults the checks flag in sentence forms that were written before they were measured.

    NLTK_DATA=... PYTHONPATH=.:benchmarks python benchmarks/unseen_faults.py [--rounds 1 2] [--parser nltk]

The rounds are `unseen_forms_1`, `unseen_forms_2`, ...; scenes and figures are those of `planted_faults`, with names of
things for the rendered shapes.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import unseen_forms as unseen
from caption_forms import FILLERS
from planted_faults import Case, Table, drawn_scenes, flags_of, rendered_scenes

from llmdet.record import Caption, Record
from llmdet.rules.checks import CheckColours, CheckCounts, CheckObjects, CheckPositions
from llmdet.tagging import resolve_parser

THINGS = (  # what circle, cross, square, star and triangle are called, in that order
    ("dog", "car", "bus", "umbrella", "vase"),
    ("kite", "cat", "suitcase", "bird", "chair"),
    ("bowl", "bottle", "backpack", "horse", "boat"),
)


def cases(records: list[Record], forms: ModuleType, kind: str, each: int, rng: random.Random) -> Iterator[Case]:
    """`each` captions with a fault of a kind, and the same captions without it."""
    made = 0
    while made < each:
        record = rng.choice(records)
        for name, text, pair in unseen.captions(forms, record, kind, rng, FILLERS):
            yield Case(replace(record, captions=(Caption(text),)), name, text, pair.form)
            made += bool(name)


def colour_cases(
    scenes: list[tuple[Record, dict[str, str]]], forms: ModuleType, each: int, rng: random.Random
) -> Iterator[Case]:
    """The same for colours."""
    for _ in range(each):
        record, tints = rng.choice(scenes)
        name = rng.choice(sorted(tints))
        pair = unseen.colours(forms, name, tints[name], rng)
        others = rng.sample(FILLERS, rng.randrange(3))
        for kind, text in (("", pair.true), ("wrong colour", pair.planted)):
            text = " ".join([text, *others])
            yield Case(replace(record, captions=(Caption(text),)), kind, text, pair.form)


def main() -> None:
    """Measure and print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, nargs="+", default=[1, 2, 3])
    options.add_argument("--parser", default="auto", choices=["auto", "nltk", "pattern"])
    options.add_argument("--each", type=int, default=250)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--show", type=int, default=0, help="errors of each kind to print")
    chosen = options.parse_args()
    parser = resolve_parser(chosen.parser)
    chain = (CheckObjects(parser=parser), CheckCounts(parser=parser), CheckPositions(parser=parser))
    table = Table(chosen.show)
    print("| captions | fault | planted | flagged | right reason | false alarms on the untouched |")
    print("|---|---|---|---|---|---|")
    drawn = drawn_scenes(300, random.Random(chosen.seed + 20))
    with tempfile.TemporaryDirectory() as folder:
        scenes = [scene for names in THINGS for scene in rendered_scenes(Path(folder), 100, names) if scene[1]]
        full = (*chain, CheckColours(parser=parser, images=str(Path(folder) / "images")))
        for number in chosen.rounds:
            forms = unseen.forms_of(number)
            title = f"round {number}, {parser}"
            for kind in unseen.MAKERS:
                found = list(cases(drawn, forms, kind, chosen.each, random.Random(f"{chosen.seed} {number} {kind}")))
                table.add(title, kind, [(case, flags_of(case.record, chain)) for case in found])
            tinted = list(colour_cases(scenes, forms, chosen.each, random.Random(f"{chosen.seed} {number}")))
            table.add(title, "wrong colour", [(case, flags_of(case.record, full)) for case in tinted])


if __name__ == "__main__":
    main()
