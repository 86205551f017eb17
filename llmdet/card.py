"""The card of a data set: licences, origins, figures of quality, known gaps, what it cost.

Markdown lines; `pipelines.card` and `llmdet.exports.hf` put them into their README.md. Names of sources, flags and
addresses come from data: they are escaped, and a path of this machine is never written, only its last name.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from llmdet.quality import Quality
from llmdet.sources.source import SourceInfo
from llmdet.stats import RejectCounts

_NOTHING = "none"
_SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M", 10_000_000: "1M<n<10M"}
# From the start of an absolute path to the end of its clause: paths hold spaces.
_PATH = re.compile(r"(?:(?<=\s)|^)(?:[A-Za-z][\w+.-]*://|~?/)[^;]*")


@dataclass(frozen=True)
class Asked:
    """The answers in one ledger; tokens are of all of them."""

    source: str
    task: str
    by: str  # engine and model
    answers: int
    prompt_tokens: int
    cached_tokens: int
    answer_tokens: int


@dataclass(frozen=True)
class Spent:
    """What asking engines took."""

    asked: tuple[Asked, ...] = ()
    cost: float = 0.0  # in the currency of the prices; 0 where none were given


@dataclass(frozen=True)
class Facts:
    """What a card tells beside whose the data is."""

    quality: Mapping[str, Quality] = field(default_factory=dict)  # by source
    rejects: RejectCounts = field(default_factory=RejectCounts)
    spent: Spent = field(default_factory=Spent)
    settings: Mapping[str, Any] = field(default_factory=dict)  # of merge


def origins(sources: Mapping[str, SourceInfo]) -> list[str]:
    """A table of licence and address of each source, and of those whose captions were attached to it."""
    rows = [["source", "licence", "address"], ["---"] * 3]
    for name, info in sources.items():
        rows.append([name, info.licence or "not stated", info.address])
        for giver, said in info.notes.get("attached", {}).items():
            rows.append([f"{name}: captions of {giver}", said["licence"] or "not stated", said["address"]])
    return [_row(row) for row in rows]


def leaks(sources: Mapping[str, SourceInfo]) -> list[str]:
    """Which lists of evaluation photos each source was checked against, and which not and why."""
    lines = [
        "Photos that detectors are evaluated on were looked for in each source. A list that was not checked says "
        "nothing: its photos may be in the data.",
        "",
        _row(["source", "checked", "not checked", "photos found were"]),
        _row(["---"] * 4),
    ]
    for name, info in sources.items():
        report = info.notes.get("leaks", {})
        found = report.get("lists", {})
        checked = [_checked(key, one) for key, one in found.items() if one["state"] == "checked"]
        missing = [f"{key} ({_named(one['why'])})" for key, one in found.items() if one["state"] != "checked"]
        missing = missing if report else ["all lists (no check was made)"]
        done = {"drop": "left out", "flag": "kept with the flag `leak`", "keep": "kept"}.get(
            report.get("action"), "kept"
        )
        lines.append(_row([name, "; ".join(checked) or _NOTHING, "; ".join(missing) or _NOTHING, done]))
    return lines


def not_checked(notes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(list, why) of each list of evaluation photos that a source was not checked against, by the notes of its info."""
    report = notes.get("leaks")
    if report is None:
        yield "all lists", "no check was made"
        return
    yield from ((key, one["why"]) for key, one in report["lists"].items() if one["state"] != "checked")


def card(title: str, sources: Mapping[str, SourceInfo], records: int, facts: Facts | None = None) -> str:
    """A whole card in Markdown, with the YAML header that the Hugging Face hub reads."""
    facts = facts or Facts()
    parts = {
        "Sources": origins(sources),
        "How it was merged": _merged(facts.settings),
        "Quality": quality(facts.quality),
        "Left out": left_out(facts.rejects),
        "Known gaps": gaps(sources, facts),
        "Tokens and cost": cost(facts.spent),
        "Evaluation photos": leaks(sources),
    }
    lines = [
        *header(title, sources, records, facts.quality),
        "",
        f"# {_plain(title)}",
        "",
        f"{records:,} records: images with a grounding text, boxes that are tied to spans of it, and captions. "
        "Made by llmdet-data.",
    ]
    for name, part in parts.items():
        lines += ["", f"## {name}", "", *part] if part else []
    return "\n".join(lines) + "\n"


def header(title: str, sources: Mapping[str, SourceInfo], records: int, found: Mapping[str, Quality]) -> list[str]:
    """The YAML header. One licence is only named where all sources have the same."""
    licences = {info.licence for info in sources.values()}
    known = licences.pop() if len(licences) == 1 else ""
    written = _hub_licence(known)
    size = next((name for limit, name in _SIZES.items() if records < limit), "n>10M")
    captions = any(one.image_captions or one.region_captions for one in found.values())
    lines = ["---", f"pretty_name: {_quoted(title)}", f"license: {written}"]
    lines += [f"license_name: {_quoted(known or 'several')}"] if written == "other" else []
    lines += ["task_categories:", "- object-detection", *(["- image-to-text"] if captions else [])]
    lines += ["size_categories:", f"- {size}", "tags:", "- grounding", "- open-vocabulary-detection"]
    lines += ["configs:", "- config_name: default", "  data_files: part-*.parquet", "---"]
    return lines


def _hub_licence(licence: str) -> str:
    """The hub's word for a licence, `other` for one that it has none for."""
    word = licence.strip().lower().replace(" ", "-")
    fits = re.fullmatch(r"cc0-1\.0|cc-by(-(nc|sa|nd|nc-sa|nc-nd))?-[234]\.0|apache-2\.0|mit|odc-by|odbl", word)
    return word if fits else {"cc0": "cc0-1.0"}.get(word, "other")


def quality(found: Mapping[str, Quality]) -> list[str]:
    """Figures of captions, links, flags and checks, a row for each source."""
    if not found:
        return []
    total = sum(found.values(), Quality())
    rows = [*found.items(), *([("together", total)] if len(found) > 1 else [])]
    lines = _table(
        ["source", "records", "image captions", "region captions", "links per image caption", "regions that one names"],
        [
            [
                name,
                f"{one.records:,}",
                f"{one.image_captions:,}",
                f"{one.region_captions:,}",
                f"{one.links / one.image_captions:.2f}" if one.image_captions else "",
                share(one.linked_regions, one.regions),
            ]
            for name, one in rows
        ],
    )
    if total.claims:
        names = sorted(total.claims)
        told = [[name, *(_wrong(one, check) for check in names)] for name, one in rows]
        lines += [
            "",
            "Claims of captions that the boxes, or the pixels, contradict, of those that could be checked:",
            "",
        ]
        lines += _table(["source", *names], told)
    if total.flags:
        flags = sorted(total.flags)
        lines += ["", "Records with a flag; nothing is left out for one:", ""]
        lines += _table(
            ["source", *flags], [[name, *(share(one.flags[f], one.records) for f in flags)] for name, one in rows]
        )
    if set(total.splits) - {""}:
        splits = sorted(total.splits)
        lines += ["", "Records of each split:", ""]
        told = [[name, *(f"{one.splits[split]:,}" for split in splits)] for name, one in rows]
        lines += _table(["source", *(split or "none" for split in splits)], told)
    return lines


def _wrong(one: Quality, check: str) -> str:
    return f"{share(one.wrong[check], one.claims[check])} of {one.claims[check]:,}" if one.claims[check] else ""


def left_out(rejects: RejectCounts) -> list[str]:
    """What was left out, by reason."""
    if not rejects.total:
        return []
    note = "Policy: left out because the settings say so. Fault: something was broken."
    rows = [[row["stage"], row["level"], row["kind"], row["reason"], f"{row['count']:,}"] for row in rejects.to_dict()]
    return [note, "", *_table(["stage", "level", "kind", "reason", "count"], rows)]


def gaps(sources: Mapping[str, SourceInfo], facts: Facts) -> list[str]:
    """What somebody who uses the set should know is not there."""
    lines = [f"- {_plain(name)}: its licence is not stated" for name, info in sources.items() if not info.licence]
    for name, info in sources.items():
        missing = [key for key, _ in not_checked(info.notes)]
        lines += [f"- {_plain(name)}: not compared with {_plain(', '.join(missing))}"] if missing else []
    for name, one in facts.quality.items():
        bare = one.records - one.captioned
        lines += [f"- {_plain(name)}: {bare:,} of {one.records:,} records have no image caption"] if bare else []
        unlinked = one.image_captions - one.linked_captions
        told = f"{unlinked:,} of {one.image_captions:,} image captions have no phrase that is tied to a box"
        lines += [f"- {_plain(name)}: {told}"] if unlinked else []
        unchecked = one.image_captions and not one.claims
        lines += [f"- {_plain(name)}: no claim of its captions was checked against boxes"] if unchecked else []
    broken: Counter[str] = Counter()
    for key, count in facts.rejects.counts.items():
        if key.kind == "fault":
            broken[key.reason] += count
    lines += [f"- {count:,} rows were broken and left out: {_plain(reason)}" for reason, count in broken.most_common()]
    return lines


def cost(spent: Spent) -> list[str]:
    """Tokens of all answers that were asked for, and what that cost."""
    if not spent.asked:
        return []
    note = "Of all answers, also those that were refused and asked again. An engine without a model takes no tokens."
    head = ["source", "asked about", "by", "answers", "prompt tokens", "of them cached", "answer tokens"]
    rows = [
        [one.source, one.task, one.by]
        + [f"{n:,}" for n in (one.answers, one.prompt_tokens, one.cached_tokens, one.answer_tokens)]
        for one in spent.asked
    ]
    price = (
        f"Cost, in the currency of the prices: at least {spent.cost:,.2f}." if spent.cost else "No prices were given."
    )
    return [note, "", *_table(head, rows), "", price]


def _merged(settings: Mapping[str, Any]) -> list[str]:
    """Caps, weights, splits and the choice of captions, where they are not the plain ones."""
    shown = {key: value for key, value in settings.items() if value and not (key == "captions" and value == "all")}
    return [f"- {key}: `{orjson.dumps(value).decode()}`" for key, value in shown.items()]


def share(part: int, whole: int) -> str:
    """A part of a whole in percent, nothing where there is no whole."""
    return f"{100 * part / whole:.1f} %" if whole else ""


def _checked(name: str, one: Mapping[str, object]) -> str:
    limits = f", {_named(str(one['why']))}" if one["why"] else ""
    return f"{name} ({one['photos']:,} photos, by {one['by']}{limits})"


def _named(why: str) -> str:
    """The reason with the last name of a path instead of the path, which says where somebody's files are."""
    return _PATH.sub(lambda match: match[0].rstrip("/ ").rsplit("/", 1)[-1], why)


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [_row(cells) for cells in (head, ["---"] * len(head), *rows)]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(_plain(cell).replace("|", "\\|") for cell in cells) + " |"


def _plain(words: str) -> str:
    """Data as one line of Markdown that is neither markup nor HTML."""
    line = "".join(char if char.isprintable() else " " for char in words)
    return re.sub(r"([`*\[\]])", r"\\\1", html.escape(line, quote=False))


def _quoted(words: str) -> str:
    """A YAML string: JSON is YAML."""
    return orjson.dumps(words.encode("utf-8", "replace").decode()).decode()
