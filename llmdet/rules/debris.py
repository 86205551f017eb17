"""What a chat model leaves around a caption: markdown, bullets, preambles, control characters."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from llmdet.record import Caption, Record
from llmdet.rules.captions import Level, judge_captions, with_text
from llmdet.rules.outcome import Drop, Kept

_SPACES = frozenset("\t\n\x0b\x0c\r\x1c\x1d\x1e\x85\u2028\u2029")
_JOINERS = frozenset("\u200c\u200d")  # part of words in Persian and of emoji
_ENDINGS = re.compile(r"(?:(?:<\|(?:im_end|endoftext|eot_id|end|assistant)\|>|</s>|<eos>|\[/?EOS\]))+")
_FENCE = re.compile(r"^```\w*\s*$|^[ \t]*(?:[-*_=][ \t]*){3,}$", re.M)
_LINK = re.compile(r"!?\[([^\[\]\n]{0,200})\]\([^()\s]{0,500}\)")
_TAG = re.compile(
    r"</?(?:b|i|u|p|br|hr|em|strong|div|span|ul|ol|li|h[1-6]|a|code|pre|sub|sup|mark)(?: [^<>\n]{0,200})?/?>", re.I
)
_MARKS = re.compile(r"\*\*+|__+|`+|(?<!\w)\*(?=\w)|(?<=[\w.,!?])\*(?!\w)|(?<!\w)_(?=\w)|(?<=[\w.,!?])_(?!\w)")
_BULLET = re.compile(r"\s*(?:[-*+\u2022\u25cf\u25aa\u2013]\s+|\(?\d{1,2}[.)]\s+|#{1,6}\s+|>\s+)")
_PREAMBLE = re.compile(
    r"\s*(?:(?:sure|certainly|of course|absolutely|okay|ok)[,.!]*\s*)?"
    r"(?:(?:here(?:'s|\u2019s| is| are)|below is|this is|the following is) (?:an? |the |my |your )?(?:\w+,? ){0,4}?"
    r"(?:description|caption|summary|overview|depiction)s?(?: (?:of|for) [^:.\n]{1,60})?[:.]|"
    r"(?:image |detailed |photo |picture )?(?:description|caption|answer)\s*:)\s*",
    re.I,
)
_SURE = re.compile(r"\s*(?:sure|certainly|of course|absolutely)!\s+", re.I)
_TAIL = re.compile(
    r"\s*(?:let me know|feel free to|if you (?:have|need|would like|want)|is there anything|i hope this|"
    r"would you like)\b[^\n]{0,200}$",
    re.I,
)
# Text without any of these has nothing to clean: most captions need no other pattern.
_SUSPECT = re.compile(
    r"[*_`#<>\[\]|:]|---|===|  |^[\s\-+(\d]|\s$|"
    r"^(?:sure|certainly|of course|absolutely|okay|ok|here|below|this|the following)\b|"
    r"\b(?:let me know|feel free|if you|is there any|i hope|would you)\b",
    re.I,
)
_END = (".", "!", "?", ":", ";", ",", "\u2026", '"', "\u201d")


@dataclass(frozen=True, kw_only=True)
class CleanDebris:
    """Plain running text: no control characters, no markdown or tags, bullets as sentences, single spaces.

    Lines that are only a heading go; list items of an image caption become sentences.
    """

    preambles: bool = True  # also "Sure! Here is a description of the image:" and "Let me know if ..."

    def __call__(self, record: Record) -> Record | Kept:
        return judge_captions(record, self.judge)

    def judge(self, caption: Caption, level: Level) -> Caption | Drop:
        if not caption.text.strip():
            return Drop("caption_empty", "there was no text")
        return with_text(caption, clean_debris(caption.text, level == "image", self.preambles))


def clean_debris(text: str, sentences: bool = True, preambles: bool = True) -> str:
    """The text without what is not language. `sentences`: give list items a full stop."""
    if text.isascii() and text.isprintable() and not _SUSPECT.search(text):
        return text
    text = _LINK.sub(r"\1", _TAG.sub(" ", _FENCE.sub("", _ENDINGS.sub(" ", _plain(text)))))
    text = _MARKS.sub("", text)
    if preambles and sentences:
        text = _without_talk(text)
    if "\n" in text or _BULLET.match(text):
        text = _joined(text.strip().split("\n"), sentences)
    return " ".join(text.split())


def _joined(lines: list[str], sentences: bool) -> str:
    """Lines as running text: without bullets and headings; list items and paragraphs end with a full stop.

    The last item gets one only where another item lacked it too: else its missing end says that the answer was cut.
    """
    parts: list[str] = []
    mended = False
    for at, line in enumerate(lines):
        bullet = _BULLET.match(line)
        item = line[bullet.end() :].strip() if bullet else line.strip()
        last = at == len(lines) - 1
        if len(lines) > 1 and sentences and _is_heading(line, item):
            continue
        stops = bullet is not None or (not last and not lines[at + 1].strip())
        if item and sentences and stops and not item.endswith(_END) and (mended or not last):
            item, mended = f"{item}.", True
        parts.append(item)
    return " ".join(parts)


def _is_heading(line: str, item: str) -> bool:
    return line.lstrip().startswith("#") or (item.endswith(":") and len(item) <= 60)


def _plain(text: str) -> str:
    """Control, format and unassigned characters away; every kind of line end is a line feed."""
    if text.isascii() and text.isprintable():
        return text
    text = text.replace("\r\n", "\n")
    odd = {char for char in set(text) if unicodedata.category(char)[0] == "C" and char not in _JOINERS}
    return text.translate({ord(char): _substitute(char) for char in odd | (_SPACES & set(text))})


def _substitute(char: str) -> str:
    return "\n" if char in "\n\r\x85\u2028\u2029\x0b\x0c" else " " if char in _SPACES else ""


def _without_talk(text: str) -> str:
    for pattern in (_SURE, _PREAMBLE):
        if found := pattern.match(text):
            text = text[found.end() :]
    start = max(0, len(text) - 260)
    tail = re.compile(r"(?<=[.!?])").split(text[start:])
    # From the back: sentences that talk to the reader, not about the picture.
    while len(tail) > 1 and (not tail[-1].strip() or _TAIL.match(tail[-1])):
        tail.pop()
    return text[:start] + "".join(tail)
