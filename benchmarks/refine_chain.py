"""How fast the default chain cleans captions of about 115 words, beside LLMDet's expression alone on the same texts.

    python benchmarks/refine_chain.py [--captions 4000] [--memory 1120000]

Captions are drawn from the image sentences of `data/caption_sentences.jsonl`: sentences without a fault, and one in
`--guess-every` that guesses (as models write them). Times are CPU seconds of this process, so that other work on the
machine counts little; the best of three rounds. The peer is the substitution that LLMDet runs when it loads its data,
written anew from its description, on the bare strings; the chain runs on records, and includes what it costs to make
new ones. `--memory N` sends N captions through the chain and prints the peak memory after each tenth.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from llmdet.record import Caption, Provenance, Record
from llmdet.rules import DEFAULT_CHAIN, Outcome, run_chain
from llmdet.rules.chain import Rule
from llmdet.rules.speculation import KEYWORDS, PREPOSITIONS

SENTENCES = Path(__file__).parent / "data" / "caption_sentences.jsonl"
MODEL = Provenance(origin="lmm", model="any")
WORDS = 115


def captions(count: int, guess_every: int, seed: int = 0) -> Iterator[str]:
    """Texts of about 115 words, all different."""
    rows = [json.loads(line) for line in SENTENCES.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["level"] == "image" and row["text"].endswith((".", '"'))]
    plain = [row["text"] for row in rows if not row["labels"]]
    guesses = [row["text"] for row in rows if row["labels"] in (["speculation"], ["negation"])]
    draw = random.Random(seed)
    for _ in range(count):
        order = draw.sample(plain, 20)
        chosen: list[str] = []
        while sum(len(sentence.split()) for sentence in chosen) < WORDS - 8:
            chosen.append(draw.choice(guesses) if draw.randrange(guess_every) == 0 else order.pop())
        yield " ".join(chosen)


def record(text: str, number: int) -> Record:
    """A record whose only caption is the text."""
    key = str(number)
    return Record(
        f"s/{key}/0", "s", key, "0", "grounding", f"{key}.jpg", "s", 640, 480, "a", captions=(Caption(text, "", MODEL),)
    )


def as_upstream() -> Callable[[str], str]:
    """LLMDet's cleaning of one caption: substring search, then one substitution a sentence."""
    pattern = re.compile(r",?[^,]*\b(" + "|".join(map(re.escape, KEYWORDS)) + r")\b[^,]*,?")

    def clean(text: str) -> str:
        kept = []
        for sentence in re.split(r"(?<=\.)\s+", text):
            if not any(word in sentence for word in KEYWORDS):
                kept.append(sentence.strip())
                continue
            left = pattern.sub("", sentence).strip()
            left = left if left.endswith(".") else left + "."
            if left != "." and left.split()[0].lower() not in PREPOSITIONS:
                kept.append(left)
        return " ".join(kept)

    return clean


def rate(work: Callable[[], object], count: int) -> float:
    """Captions a CPU second, best of three rounds."""
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return count / best


def alone_on(rule: Rule, records: list[Record]) -> list[Outcome]:
    """One rule on all records, as they came."""
    return [rule(one) for one in records]


def memory(count: int, guess_every: int) -> None:
    """Print the peak memory while many captions go through the chain."""
    for tenth in range(10):
        for number, text in enumerate(captions(count // 10, guess_every, seed=tenth)):
            run_chain(DEFAULT_CHAIN, record(text, number))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{(tenth + 1) * (count // 10):>10,} captions: peak {peak:.1f} MiB", flush=True)


def main() -> None:
    """Print rates, or memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=4000)
    parser.add_argument("--guess-every", type=int, default=6, help="one sentence in so many guesses or negates")
    parser.add_argument("--memory", type=int, default=0, help="captions of the memory run")
    options = parser.parse_args()
    if options.memory:
        return memory(options.memory, options.guess_every)
    texts = list(captions(options.captions, options.guess_every))
    records = [record(text, number) for number, text in enumerate(texts)]
    mean = sum(len(text.split()) for text in texts) / len(texts)
    print(f"{len(texts)} captions, {mean:.0f} words each, one sentence in {options.guess_every} guesses")

    def whole() -> None:
        for one in records:
            run_chain(DEFAULT_CHAIN, one)

    ours = rate(whole, len(texts))
    clean = as_upstream()
    peer = rate(lambda: [clean(text) for text in texts], len(texts))
    print(f"default chain             {ours:8.0f} captions/s of one core")
    print(f"LLMDet's expression alone {peer:8.0f} captions/s of one core   ({peer / ours:.2f} times ours)")
    for rule in DEFAULT_CHAIN:
        alone = rate(partial(alone_on, rule, records), len(texts))
        print(f"  {type(rule).__name__:20} {1e6 / alone:6.0f} us a caption")
    return None


if __name__ == "__main__":
    main()
