"""Sentences from a scene graph: what the objects of a photo are, and how they stand to each other.

    "brown dog to the left of a red car. tall window."

An object is called by its attributes and its name. It opens a sentence with one of its relations, where it has one that
was not told from the other side. Objects of the same words without a relation share one bare sentence. The order is
the file's and nothing is drawn, so the same graph always gives the same text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from llmdet.record import Span

# Every pair of objects that stand side by side has these two; other relations say more about the scene.
_BESIDE = ("to the left of", "to the right of")
# Names without a plural, which "a" does not fit: the ones of the thousand most frequent names of GQA.
_MASS = frozenset(
    "bread broccoli bacon butter cheese clothing dirt fabric fire food foliage fruit furniture grass gravel "
    "ground hair ice jewelry lettuce luggage mail meat men metal mud paper people pepper plastic rice rock salad sand "
    "sky smoke snow soap soup steam traffic underwear vegetation water wheat women wood children cattle sheep".split()
)


@dataclass(frozen=True, slots=True)
class Thing:
    """An object of a scene graph: what it is called, and its relations as (name, key of the other object)."""

    phrase: str
    name: str
    relations: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class SceneText:
    """A text, and where it names each object; objects of one bare sentence share a span."""

    text: str = ""
    spans: dict[str, list[Span]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Sentence:
    """Pieces of text, each with the keys of the objects that it names (none for words between)."""

    pieces: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.pieces)


def scene_texts(
    things: Mapping[str, Thing], relations: int, count: Callable[[str], int], limit: int
) -> list[SceneText]:
    """Texts that name every object, each of at most `limit` as `count` counts; at most `relations` for an object.

    A sentence that is longer than the limit by itself stands alone.
    """
    texts: list[SceneText] = []
    overhead, length = count(""), limit
    for sentence in _sentences(things, relations):
        # Sentences end in a dot and a blank, where no token spans two of them: lengths add up.
        own = count(sentence.text) - overhead
        if not texts or length + own > limit:
            texts.append(SceneText())
            length = overhead
        length += own
        for text, keys in sentence.pieces:
            start = len(texts[-1].text)
            texts[-1].text += text
            for key in keys:
                texts[-1].spans.setdefault(key, []).append((start, start + len(text)))
    for scene in texts:
        scene.text = scene.text.rstrip()
    return texts


def _sentences(things: Mapping[str, Thing], relations: int) -> Iterable[_Sentence]:
    told: set[frozenset[str]] = set()
    named: set[str] = set()
    bare: dict[str, list[str]] = {}
    for key, thing in things.items():
        chosen = _choose(key, thing, things, told, relations)
        for name, other in chosen:
            told.add(frozenset((key, other)))
            named.update((key, other))
            between = f" {name} {_article(things[other])}"
            yield _Sentence(((thing.phrase, (key,)), (between, ()), (things[other].phrase, (other,)), (". ", ())))
        if not chosen:
            bare.setdefault(thing.phrase, []).append(key)
    for phrase, keys in bare.items():
        rest = tuple(key for key in keys if key not in named)
        if rest:
            yield _Sentence(((phrase, rest), (". ", ())))


def _choose(
    key: str, thing: Thing, things: Mapping[str, Thing], told: set[frozenset[str]], relations: int
) -> Sequence[tuple[str, str]]:
    """The first relations that say something new; those of place to the left and right come last."""
    chosen: dict[str, str] = {}
    for name, other in sorted(thing.relations, key=lambda relation: relation[0] in _BESIDE):
        if other in things and other != key and other not in chosen and frozenset((key, other)) not in told:
            chosen[other] = name
    return [(name, other) for other, name in list(chosen.items())[:relations]]


def _article(thing: Thing) -> str:
    last = thing.name.split()[-1].lower()
    plural = last.endswith("s") and not last.endswith(("ss", "us", "is"))
    if plural or last in _MASS:
        return ""
    return "an " if thing.phrase[0].lower() in "aeiou" else "a "
