"""Grounded captions: which words of an image caption name which region."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from llmdet.errors import SettingError
from llmdet.links import MIN_SCORE, link
from llmdet.phrases import Parser, ParserChoice, resolve_parser
from llmdet.record import Caption, Link, Record
from llmdet.tagging import ParserName, tagger


@dataclass(frozen=True, kw_only=True)
class LinkPhrases:
    """Link the noun phrases of image captions to regions where that is certain; earlier links are replaced.

    A caption that is the record's own text has the spans of the regions for links. `parser: auto` has to be resolved
    once, by the driver, so that all workers use the same: see `resolved`.
    """

    after: ClassVar[tuple[str, ...]] = (
        "LimitLength", "CleanDebris", "RejectRefusal", "RejectRepetition", "RequireEnd", "RemoveSpeculation",
    )  # fmt: skip
    parser: ParserChoice = "auto"  # nltk where its data is there, else pattern
    min_score: float = MIN_SCORE  # log odds; higher links fewer phrases, more of them rightly

    def __call__(self, record: Record) -> Record:
        name = self._name()
        captions = tuple([self._linked(caption, record, name) for caption in record.captions])
        return record if captions == record.captions else dataclasses.replace(record, captions=captions)

    def resolved(self) -> LinkPhrases:
        """The same rule with the parser chosen. Raises MissingError where nltk was asked for and lacks its data."""
        return dataclasses.replace(self, parser=resolve_parser(self.parser))

    def prepare(self) -> None:
        """Load the parser. Raises MissingError on a machine that lacks it."""
        tagger(self._name())

    def _name(self) -> ParserName:
        if self.parser == "auto":
            raise SettingError(
                "LinkPhrases(parser='auto') must be resolved before it runs: use LinkPhrases().resolved()"
            )
        return self.parser

    def _linked(self, caption: Caption, record: Record, name: ParserName) -> Caption:
        links = _own_links(record) if caption.text == record.text else self._found(caption.text, record, name)
        return caption if links == caption.links else dataclasses.replace(caption, links=links)

    def _found(self, text: str, record: Record, name: ParserName) -> tuple[Link, ...]:
        sentence = record.text if record.kind == "grounding" else ""
        return link(text, record.regions, record.width, record.height, Parser(name), sentence, self.min_score)


def _own_links(record: Record) -> tuple[Link, ...]:
    """A caption that the regions' spans are of."""
    links = [
        Link(span, index, 0 if len(region.boxes) == 1 and not region.boxes[0].crowd else None)
        for index, region in enumerate(record.regions)
        for span in region.spans
    ]
    return tuple(sorted(links, key=lambda one: (one.span, one.region)))
