"""Rules that check captions against boxes. They flag by default, and leave figures in `Record.extra["checks"]`.

    extra["checks"]["counts"] = {"claims": 3, "wrong": 1, "found": ["image_caption 0: 'three dogs' says 3: 2 boxes"]}

`claims` is what could be checked, `wrong` what was contradicted. With `action: drop` a contradicted caption is taken
out, with `retry` it is asked again where a language model wrote it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from llmdet.checks import colours, counts, objects, positions
from llmdet.checks.finding import Checked
from llmdet.checks.grounds import Ground, ground_of_box, grounds
from llmdet.checks.reading import Known, Noun, Reading, known, read
from llmdet.checks.regions import off_phrase
from llmdet.errors import ImageError, SettingError
from llmdet.files import safe_join
from llmdet.images import open_image
from llmdet.record import Box, Caption, Record, Region
from llmdet.rules.captions import lost
from llmdet.rules.outcome import Drop, Kept, Loss, Retry, Target
from llmdet.tagging import ParserChoice, ParserName, resolve_parser, tagger

Action = Literal["flag", "drop", "retry"]
ImageCheck = Callable[[Caption, Reading], Checked]
BoxCheck = Callable[[Box, Caption], Checked]

_CLEANERS = ("CleanDebris", "RemoveSpeculation", "RejectRepetition", "RequireEnd", "LinkPhrases")
_MOST_FOUND = 16  # findings of a check that are kept in words


@dataclass(frozen=True, kw_only=True)
class _Reads:
    """A check that reads captions with a parser."""

    after: ClassVar[tuple[str, ...]] = _CLEANERS
    parser: ParserChoice = "auto"  # nltk, pattern, or auto: nltk where its data is there

    def resolved(self) -> Self:
        """This rule with the parser that a run uses. Raises MissingError for nltk without its data."""
        return replace(self, parser=resolve_parser(self.parser))

    def prepare(self) -> None:
        """Load the parser. Raises MissingError on a machine that lacks it."""
        tagger(self.reader)

    @property
    def reader(self) -> ParserName:
        if self.parser == "auto":
            name = type(self).__name__
            raise SettingError(f"{name}(parser='auto') must be resolved before it runs: use {name}().resolved()")
        return self.parser


@dataclass(frozen=True, kw_only=True)
class CheckObjects(_Reads):
    """Flag `ungrounded_object`: a caption claims a thing that the record knows to be absent."""

    action: Action = "flag"

    def __call__(self, record: Record) -> Record | Kept:
        here = known(record)
        if not here.absent:
            return record
        found = _image_findings(record, here, self.reader, lambda _, reading: objects.ungrounded(reading, here))
        return _told(record, "objects", self.action, found)


@dataclass(frozen=True, kw_only=True)
class CheckCounts(_Reads):
    """Flag `count_contradiction`: a number of things that is not the number of their boxes, all of which are known."""

    action: Action = "flag"
    small: float = 0.01  # boxes under this share of the largest one's area need not be counted

    def __call__(self, record: Record) -> Record | Kept:
        here = known(record)
        if not here.exhaustive:
            return record

        def check(caption: Caption, reading: Reading) -> Checked:
            def placed() -> list[Noun]:
                found = positions.attached(reading, grounds(reading, here, record.regions, caption.links))
                return [ground.noun for _, said_of in found for ground in said_of]

            return counts.contradicted(reading, here, placed, self.small)

        return _told(record, "counts", self.action, _image_findings(record, here, self.reader, check))


@dataclass(frozen=True, kw_only=True)
class CheckPositions(_Reads):
    """Flag `position_contradiction`: a thing is said to be on a side where none of its boxes is."""

    action: Action = "flag"
    margin: float = 0.05  # share of the picture that a centre must be past the middle

    def __call__(self, record: Record) -> Record | Kept:
        here, size = known(record), (record.width, record.height)
        if min(size) < 1:
            return record

        def check(caption: Caption, reading: Reading) -> Checked:
            return positions.contradicted(
                reading, grounds(reading, here, record.regions, caption.links), size, self.margin
            )

        return _told(record, "positions", self.action, _image_findings(record, here, self.reader, check))


@dataclass(frozen=True, kw_only=True)
class CheckMentions(_Reads):
    """Flag `box_not_mentioned`: no image caption speaks of a box. Never takes a caption out."""

    small: float = 0.02  # boxes under this share of the picture need no mention

    def __call__(self, record: Record) -> Record | Kept:
        here = known(record)
        if not here.present or not record.captions:
            return record
        readings = [read(caption.text, here.names, self.reader) for caption in record.captions]
        checked = objects.unmentioned(readings, here, self.small * record.width * record.height)
        return _told(record, "mentions", "flag", [_Found("record", 0, None, checked)])


@dataclass(frozen=True, kw_only=True)
class CheckRegionNouns(_Reads):
    """Flag `region_caption_off_phrase`: a box's caption has no word for what the box is named."""

    action: Action = "flag"

    def __call__(self, record: Record) -> Record | Kept:
        names = record.kind == "detection"
        phrases = {id(box): region.phrases for region in record.regions for box in region.boxes}

        def check(box: Box, caption: Caption) -> Checked:
            finding = off_phrase(caption.text, phrases[id(box)], names, self.reader)
            return Checked(1, (finding,) if finding else ())

        return _told(record, "region_nouns", self.action, _box_findings(record, check))


@dataclass(frozen=True, kw_only=True)
class CheckColours(_Reads):
    """Flag `colour_contradiction`: a colour word that the pixels of its box do not show. Opens every photo with one."""

    action: Action = "flag"
    images: str = ""  # address of the photos; refine fills it in

    def with_images(self, images: str) -> CheckColours:
        """This rule with the address of a source's photos."""
        return replace(self, images=self.images or images)

    def __call__(self, record: Record) -> Record | Kept:
        if not self.images:
            raise SettingError("the rule colours needs `images`, the address of the photos that records name")
        here, photo = known(record), _Photo(self.images, record)
        names = {id(box): region.phrases for region in record.regions for box in region.boxes}

        def of_image(caption: Caption, reading: Reading) -> Checked:
            return photo.checked(reading, grounds(reading, here, record.regions, caption.links))

        def of_box(box: Box, caption: Caption) -> Checked:
            reading = read(caption.text, names[id(box)], self.reader)
            return photo.checked(reading, ground_of_box(reading, box))

        found = _image_findings(record, here, self.reader, of_image)
        return _told(record, "colours", self.action, [*found, *_box_findings(record, of_box)], photo.unread)


class _Photo:
    """The pixels of a record's photo, opened when a colour is first asked for."""

    def __init__(self, images: str, record: Record) -> None:
        self.unread = ""  # why the photo cannot be opened
        self._images = images
        self._record = record
        self._pixels: NDArray[np.uint8] | None = None

    def checked(self, reading: Reading, said: Sequence[Ground]) -> Checked:
        nouns = colours.checkable(reading, said)
        if not nouns or not self._opened():
            return Checked(0)
        assert self._pixels is not None
        found = [colours.contradiction(reading, noun, self._record, self._pixels) for noun in nouns]
        return Checked(len(nouns), tuple([finding for finding in found if finding]))

    def _opened(self) -> bool:
        if self._pixels is None and not self.unread:
            try:
                url = safe_join(self._images, self._record.image)
                self._pixels = np.asarray(open_image(url, self._record.orientation))
            except ImageError as error:
                self.unread = str(error)
        return self._pixels is not None


# --- what becomes of findings --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    """What a check says of one caption."""

    target: Target
    index: int  # of the caption, or the order of the box
    caption: Caption | None
    checked: Checked


def _image_findings(record: Record, here: Known, parser: ParserName, check: ImageCheck) -> list[_Found]:
    return [
        _Found("image_caption", index, caption, check(caption, read(caption.text, here.names, parser)))
        for index, caption in enumerate(record.captions)
    ]


def _box_findings(record: Record, check: BoxCheck) -> list[_Found]:
    boxes = [box for region in record.regions for box in region.boxes]
    return [_Found("region_caption", box.order, box.caption, check(box, box.caption)) for box in boxes if box.caption]


def _told(record: Record, name: str, action: Action, found: Sequence[_Found], unread: str = "") -> Record | Kept:
    """The record with flags and figures, without the captions that `action` takes out."""
    claims = sum(one.checked.claims for one in found)
    wrong = [one for one in found if one.checked.findings]
    if not claims and not unread:
        return record
    figures: dict[str, Any] = {"claims": claims, "wrong": sum(len(one.checked.findings) for one in wrong)}
    if wrong:
        figures["found"] = [
            f"{one.target} {one.index}: {finding.detail}" for one in wrong for finding in one.checked.findings
        ][:_MOST_FOUND]
    if unread:
        figures["unread"] = unread
    record = replace(record, extra={**record.extra, "checks": {**record.extra.get("checks", {}), name: figures}})
    if action == "flag":
        flags = [finding.reason for one in wrong for finding in one.checked.findings]
        return replace(record, flags=tuple(dict.fromkeys((*record.flags, *flags)))) if flags else record
    return Kept(_without(record, wrong), tuple([_loss(record, one, action) for one in wrong])) if wrong else record


def _loss(record: Record, one: _Found, action: Action) -> Loss:
    finding, caption = one.checked.findings[0], one.caption
    assert caption is not None
    verdict: Drop | Retry = Drop(finding.reason, finding.detail)
    if action == "retry":
        verdict = lost(caption, finding.reason, finding.detail)
    return Loss(record.id, one.target, verdict, "", "policy", one.index, caption.request_id, caption.attempt)


def _without(record: Record, wrong: Sequence[_Found]) -> Record:
    """The record without the captions that were contradicted."""
    images = {one.index for one in wrong if one.target == "image_caption"}
    boxes = {one.index for one in wrong if one.target == "region_caption"}
    captions = tuple([caption for index, caption in enumerate(record.captions) if index not in images])
    regions = tuple([_without_caption(region, boxes) for region in record.regions]) if boxes else record.regions
    return replace(record, captions=captions, regions=regions)


def _without_caption(region: Region, orders: set[int]) -> Region:
    boxes = [replace(box, caption=None) if box.order in orders else box for box in region.boxes]
    return replace(region, boxes=tuple(boxes))
