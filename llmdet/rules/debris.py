"""What a chat model leaves around a caption: markdown, bullets, preambles, control characters."""

from __future__ import annotations

import html
import re
import unicodedata
from dataclasses import dataclass

import orjson

from llmdet.record import Caption, Record
from llmdet.rules.captions import Level, judge_captions, with_text
from llmdet.rules.outcome import Drop, Kept

_SPACES = frozenset("\t\n\x0b\x0c\r\x1c\x1d\x1e\x85\u2028\u2029")
_JOINERS = frozenset("\u200c\u200d")  # part of words in Persian and of emoji
_ENDINGS = re.compile(
    r"(?:(?:<\|(?:im_start|im_end|endoftext|eot_id|end|assistant)\|>(?:assistant\b)?|</?s>|<eos>|\[/?(?:EOS|INST)\]))+"
)
_FENCE = re.compile(r"^```\w*\s*$|^[ \t]*(?:[-*_=][ \t]*){3,}$", re.M)
_LINK = re.compile(r"!?\[([^\[\]\n]{0,200})\]\([^()\s]{0,500}\)")
_TAG = re.compile(
    r"</?(?:b|i|u|p|br|hr|em|strong|div|span|ul|ol|li|h[1-6]|a|code|pre|sub|sup|mark|html|body|head|script|style|"
    r"img|iframe|svg|object|embed|link|meta|form|input|button|table|tr|td|th|video|audio)(?: [^<>\n]{0,200})?/?>",
    re.I,
)
_MARKS = re.compile(r"\*\*+|__+|``+|(?<!\w)`(?=\w)|(?<=[\w.,!?])`(?!\w)(?! s\b)")
_PAIRS = re.compile(
    r"(?<![\w*])\*(?=\S)([^*\n]{1,300}?)(?<=\S)\*(?![\w*])|(?<!\w)_(?=\S)([^_\n]{1,300}?)(?<=\S)_(?!\w)"
)
_SCRIPT = re.compile(r"<(script|style)\b[^<>]{0,200}>[^<]{0,2000}</\1>", re.I)
_ROW = re.compile(r"^[ \t]*\|(.{0,2000})\|[ \t]*$", re.M)
_CELLS = re.compile(r"[ \t]*\|[ \t]*|^[ \t|:-]+$")
_QUOTED = re.compile(r"\s*(?:\"([^\"]+)\"|\u201c([^\u201c\u201d]+)\u201d)\s*")
# UTF-8 that was read as Latin-1 or Windows-1252: "caf\u00c3\u00a9", "It\u00e2\u20ac\u2122s"
_MISREAD = re.compile(r"[\u00c2\u00c3][\u0080-\u00bf]|\u00e2[\u0080-\u00bf\u20ac][\u0080-\u00bf\u2018-\u2122]")
_LABEL = re.compile(r"\A\s*(?:(?:caption|description|answer|label|phrase|assistant)\s*:\s*|assistant\n)(?=\S)", re.I)
_ROLE = re.compile(r"\A\s*assistant\n", re.I)
_BULLET = re.compile(r"\s*(?:[-*+\u2022\u25cf\u25aa\u2013]\s+|\(?\d{1,2}[.)](?:\s+|(?=[A-Z*]))|#{1,6}\s+|>\s+)")
_PREAMBLE = re.compile(
    r"\s*(?:(?:sure|certainly|of course|absolutely|okay|ok)[,.!]*\s*)?"
    r"(?:(?:here(?:'s|\u2019s| is| are)|below is|this is|the following is) (?:an? |the |my |your )?(?:\w+,? ){0,4}?"
    r"(?:description|caption|summary|overview|depiction)s?(?: (?:of|for) [^:.\n]{1,60})?[:.]|"
    r"(?:image |detailed |photo |picture )?(?:description|caption|answer|assistant)\s*:)\s*",
    re.I,
)
_SURE = re.compile(r"\s*(?:sure|certainly|of course|absolutely)!\s+", re.I)
_TAIL = re.compile(
    r"\s*(?:let me know|feel free to|if you (?:have|need|would like|want)|is there anything|i hope this|"
    r"would you like)\b[^\n]{0,200}$",
    re.I,
)
# Marks of Chinese typing in Latin text.
_WIDE = re.compile(r"(?<=[!-~])[\uff0c\u3002\uff01\uff1f\uff1a\uff1b\u3001](?=[ -~]|$)")
_NARROW = dict(zip("\uff0c\u3002\uff01\uff1f\uff1a\uff1b\u3001", ",.!?:;,", strict=True))
# Text without any of these has nothing to clean: most captions need no other pattern.
_SUSPECT = re.compile(r"[*_`#<>\[\]|{}\\\ufffd]|&[#\w]{2,8};|---|===|  |\s$")
_SUSPECT_START = re.compile(
    r"[\s\-+(\d\"\u201c\u2022\u25cf\u25aa\u2013]|[^.]{0,80}:|"
    r"(?:sure|certainly|of course|absolutely|okay|ok|here|below|this|the following)\b",
    re.I,
)
_SUSPECT_END = re.compile(r"\b(?:let me know|feel free|if you|is there any|i hope|would you)\b", re.I)
_TALK = 260  # characters at the end that are searched for talk to the reader
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
    if _is_clean(text):
        return text
    text = _FENCE.sub("", _ENDINGS.sub(" ", _plain(_read_well(text))))
    text = _LINK.sub(r"\1", _TAG.sub(" ", _SCRIPT.sub(" ", _only_answer(text))))
    if "|" in text:
        text = _ROW.sub(lambda row: " ".join(cell for cell in _CELLS.split(row[1].strip()) if cell), text)
    text = _PAIRS.sub(lambda pair: pair[1] or pair[2], _MARKS.sub("", text))
    if preambles:
        text = _without_talk(text) if sentences else _LABEL.sub("", text, count=1)
    if "\n" in text or _BULLET.match(text):
        text = _joined(text.strip().split("\n"), sentences)
    if quoted := _QUOTED.fullmatch(text):
        text = quoted[1] or quoted[2]
    return " ".join(text.split())


def _is_clean(text: str) -> bool:
    """Whether there is surely nothing to clean: true of most captions, without the other expressions."""
    return (
        text.isprintable()
        and not _SUSPECT.search(text)
        and not _SUSPECT_START.match(text)
        and not _SUSPECT_END.search(text, max(0, len(text) - _TALK))
        and (text.isascii() or not (_MISREAD.search(text) or _WIDE.search(text)))
    )


def _read_well(text: str) -> str:
    """Escapes and bytes that were read wrongly, as what they stand for."""
    if "&" in text:
        text = html.unescape(text)
    if "\\n" in text:
        text = text.replace("\\n", "\n")
    if not text.isascii():
        if _MISREAD.search(text):
            text = _MISREAD.sub(_as_utf8, text)
        text = _WIDE.sub(lambda mark: _NARROW[mark[0]] + " ", text.replace("\ufffd", ""))
    return text


def _as_utf8(found: re.Match[str]) -> str:
    for encoding in ("cp1252", "latin-1"):
        try:
            return found[0].encode(encoding).decode("utf-8")
        except UnicodeError:
            continue
    return found[0]


def _only_answer(text: str) -> str:
    """The one text of an answer in JSON, without its key; other JSON stays for other rules."""
    if not text.lstrip().startswith(("{", '["')):
        return text
    try:
        answer = orjson.loads(text)
    except ValueError:
        return text
    if isinstance(answer, dict):
        answer = list(answer.values())
    texts = [value for value in answer if isinstance(value, str)]
    return texts[0] if len(texts) == len(answer) == 1 else text


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
    for pattern in (_ROLE, _SURE, _PREAMBLE):
        if found := pattern.match(text):
            text = text[found.end() :]
    start = max(0, len(text) - _TALK)
    tail = re.compile(r"(?<=[.!?])").split(text[start:])
    # From the back: sentences that talk to the reader, not about the picture.
    while len(tail) > 1 and (not tail[-1].strip() or _TAIL.match(tail[-1])):
        tail.pop()
    return text[:start] + "".join(tail)
