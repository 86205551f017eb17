"""A report: one HTML file that needs no server, no network and nothing beside it.

Photos are embedded, style and script are inline and named by hash in the page's Content-Security-Policy: nothing else
is loaded or run, whatever stands in the data.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources

from llmdet import charts, gallery, scores
from llmdet.changes import shown
from llmdet.draw import PALETTE, ink_on
from llmdet.gallery import Card, LeftOut, card_of, sample
from llmdet.histogram import ASPECTS, SHARES
from llmdet.markup import Html, Number, element, join, table
from llmdet.quality import Quality
from llmdet.rejects import Reject
from llmdet.scores import ClassScore, Evaluation
from llmdet.stats import RejectCounts, Stats, Tally

__all__ = ["Card", "ClassScore", "Curve", "Evaluation", "LeftOut", "Report", "Stage", "card_of", "render", "sample"]

_SHARE_TICKS = {
    edge: f"{100 * 10**power:g}%" for power in range(-4, 1) for edge in SHARES if math.isclose(edge, 10**power)
}
_ASPECT_TICKS = {edge: f"{edge:g}" for edge in ASPECTS[::2]}
_EXAMPLES = 5  # rejects shown for each reason
_MOST_COLUMNS = 12  # sources that a table has side by side


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What one stage took and gave (in `unit`, records unless said otherwise), and how long it took."""

    name: str
    took: int
    gave: int
    seconds: float
    source: str = ""
    unit: str = "records"


@dataclass(frozen=True)
class Curve:
    """Values over training steps; each series (`loss`, `AP50`, ...) is as long as `steps`."""

    steps: tuple[int, ...]
    series: Mapping[str, Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that a report shows; parts that are empty are left out."""

    title: str
    stats: Stats
    stages: tuple[Stage, ...] = ()
    rejects: RejectCounts = field(default_factory=RejectCounts)
    rejects_by_source: Mapping[str, RejectCounts] = field(default_factory=dict)
    examples: tuple[Reject, ...] = ()
    gallery: tuple[Card, ...] = ()
    training: Curve | None = None
    notes: tuple[str, ...] = ()  # what could not be shown, and why
    evaluations: tuple[Evaluation, ...] = ()
    made: Mapping[str, str] = field(default_factory=dict)  # versions, date, command


def render(report: Report) -> str:
    """The whole page. The same report gives the same text."""
    style = Html(_asset("report.css") + _colours())
    script = Html(_asset("report.js"))
    # No style or script attribute is used anywhere, so hashes of these two blocks are all that is let in.
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", report.title),
        element("link", rel="icon", href="data:,"),
        element("style", style),
    )
    sections = [section for section in _sections(report) if section[1]]
    links = [element("li", element("a", name, href=f"#{_anchor(name)}")) for name, _ in sections]
    body = element(
        "body",
        element("header", element("h1", report.title), element("nav", element("ul", *links), aria_label="Sections")),
        element("main", *(_section(name, content) for name, content in sections)),
        element("script", script),
    )
    return "<!doctype html>\n" + element("html", head, body, lang="en") + "\n"


def _sections(report: Report) -> list[tuple[str, Html]]:
    return [
        ("Overview", _overview(report)),
        ("Flow", _flow(report.stages)),
        ("Sources", _sources(report.stats)),
        ("Left out", _left_out(report)),
        ("Distributions", _distributions(report.stats.total)),
        ("Captions", _captions(report.stats.total)),
        ("Links and checks", _quality(report)),
        ("Training", _training(report.training)),
        ("Evaluation", join(scores.render(evaluation) for evaluation in report.evaluations)),
        ("Gallery", _gallery(report.gallery, report.stats.total.records)),
        ("How it was made", _made(report.made)),
    ]


def _section(name: str, content: Html) -> Html:
    heading = element("h2", name, id=f"{_anchor(name)}-title")
    return element("section", heading, content, id=_anchor(name), aria_labelledby=f"{_anchor(name)}-title")


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _overview(report: Report) -> Html:
    total = report.stats.total
    figures: list[tuple[str, int]] = [
        ("records", total.records),
        ("images", total.images),
        ("boxes", total.boxes),
        ("phrases", total.phrases),
        ("absent names", total.negatives),
        ("image captions", total.image_captions),
        ("region captions", total.region_captions),
        ("left out", report.rejects.total),
    ]
    tiles = [_tile(name, f"{count:,}") for name, count in figures]
    for evaluation in report.evaluations:
        metric = next(iter(evaluation.metrics), None)
        if metric is not None:
            tiles.append(_tile(f"{metric}, {evaluation.name}", scores.written(evaluation.metrics[metric])))
    notes = [element("p", note, class_="note") for note in report.notes]
    return join([element("dl", *tiles, class_="tiles"), *notes])


def _tile(name: str, value: str) -> Html:
    return element("div", element("dt", name), element("dd", value))


def _flow(stages: Sequence[Stage]) -> Html:
    if not stages:
        return Html()
    rows = [
        [
            stage.name,
            stage.source,
            stage.took,
            stage.gave,
            charts.share(stage.gave / stage.took) if stage.took else "",
            stage.unit,
            Number(f"{stage.seconds:,.1f}"),
            Number(f"{stage.took / stage.seconds:,.0f}" if stage.seconds > 0 else ""),
        ]
        for stage in stages
    ]
    return table(["stage", "source", "took", "gave", "kept", "of", "seconds", "per second"], rows)


def _sources(stats: Stats) -> Html:
    if not stats.sources:
        return Html()
    names = ["records", "images", "regions", "boxes", "phrases", "negatives", "image_captions", "region_captions"]
    rows: list[list[object]] = [
        [source, *(getattr(tally, name) for name in names)] for source, tally in sorted(stats.sources.items())
    ]
    if len(rows) > 1:
        rows.append([element("b", "together"), *(getattr(stats.total, name) for name in names)])
    return table(["source", *(name.replace("_", " ") for name in names)], rows)


def _left_out(report: Report) -> Html:
    counts = report.rejects
    if not counts.total:
        return Html()
    shown: dict[tuple[str, str, str, str], list[Reject]] = {}
    for reject in report.examples:
        shown.setdefault((reject.stage, reject.level, reject.kind, reject.reason), []).append(reject)
    pictured = {reason for card in report.gallery for reason in card.reasons}
    rows: list[list[object]] = [
        [
            row["stage"],
            row["level"],
            element("span", row["kind"], class_=f"badge {'flag' if row['kind'] == 'fault' else ''}"),
            _to_gallery("reason", row["reason"], pictured),
            row["count"],
            _examples(shown.get((row["stage"], row["level"], row["kind"], row["reason"]), [])),
        ]
        for row in counts.to_dict()
    ]
    note = "Policy: left out because the settings say so. Fault: something is broken."
    listed = table(["stage", "level", "kind", "reason", "count", "examples"], rows)
    return join([element("p", note, class_="quiet"), listed, _reasons_by_source(report.rejects_by_source)])


def _reasons_by_source(found: Mapping[str, RejectCounts]) -> Html | None:
    by_source: dict[str, Counter[str]] = {source: Counter() for source in found}
    for source, counts in found.items():
        for key, count in counts.counts.items():
            by_source[source][key.reason] += count
    return _by_source("reason", by_source)


def _by_source(what: str, found: Mapping[str, Counter[str]], pictured: Collection[str] = ()) -> Html | None:
    """A row for each name, a column for each source; nothing where one source says it all."""
    sources = sorted(found, key=lambda source: (-found[source].total(), source))[:_MOST_COLUMNS]
    total = sum(found.values(), Counter[str]())
    if len(sources) < 2 or not total:
        return None
    rows: list[list[object]] = [
        [_to_gallery(what, name, pictured), *(found[source][name] for source in sources)]
        for name, _ in total.most_common()
    ]
    return table([what, *sources], rows)


def _to_gallery(what: str, name: str, pictured: Collection[str]) -> Html | str:
    """A name; where the gallery has pictures of it, a link that shows them."""
    if name not in pictured:
        return name
    return element("a", name, href="#gallery", data_filter=what, data_value=name)


def _examples(rejects: Sequence[Reject]) -> Html:
    if not rejects:
        return Html()
    items = [
        element("li", element("code", reject.id), ": " if reject.detail else None, element("bdi", shown(reject.detail)))
        for reject in rejects[:_EXAMPLES]
    ]
    return element("details", element("summary", f"{len(items)} of them"), element("ul", *items))


def _distributions(total: Tally) -> Html:
    if not total.records:
        return Html()
    figures = [
        charts.histogram(total.boxes_per_image, "Boxes per image", "images"),
        charts.histogram(total.area_share, "Box area / image area", "boxes", _SHARE_TICKS),
        charts.histogram(total.aspect, "Box width / height", "boxes", _ASPECT_TICKS),
        charts.histogram(total.text_characters, "Characters of the grounding text", "texts"),
    ]
    if total.image_captions:
        figures.append(charts.histogram(total.image_words, "Words of an image caption", "captions"))
    if total.region_captions:
        figures.append(charts.histogram(total.region_words, "Words of a region caption", "captions"))
    if total.links.total:
        figures.append(charts.histogram(total.links, "Links of an image caption", "captions"))
    if total.removed_words.count:
        figures.append(charts.histogram(total.removed_words, "Words that rules took out", "captions that they changed"))
    return element("div", *figures, class_="charts")


def _captions(total: Tally) -> Html:
    rows: list[list[object]] = [[*made, count] for made, count in total.made.most_common()]
    return table(["about", "origin", "model", "prompt", "captions"], rows) if rows else Html()


def _quality(report: Report) -> Html:
    """Links between captions and boxes, what checks found, and flags, each by source."""
    sources = sorted(report.stats.sources.items())
    return join([_links(sources), _checks(report.stats.total.quality), _flags(report)])


def _links(sources: Sequence[tuple[str, Tally]]) -> Html | None:
    rows: list[list[object]] = []
    for source, tally in sources:
        found = tally.quality
        if found.links:
            parts = (found.linked_captions, found.image_captions), (found.linked_regions, found.regions)
            each = Number(f"{found.links / found.image_captions:.2f}")
            rows.append([source, found.links, each, *(_percent(*part) for part in parts)])
    head = ["source", "links", "per image caption", "captions with a link", "regions that a caption names"]
    return table(head, rows) if rows else None


def _checks(found: Quality) -> Html | None:
    if not found.claims:
        return None
    rows: list[list[object]] = [
        [name, claims, found.wrong[name], _percent(found.wrong[name], claims)]
        for name, claims in found.claims.most_common()
    ]
    return table(["check", "claims that could be checked", "contradicted", "share"], rows)


def _flags(report: Report) -> Html | None:
    total = report.stats.total
    if not total.flags:
        return None
    pictured = {flag for card in report.gallery for flag in card.record.flags}
    rows: list[list[object]] = [
        [_to_gallery("flag", flag, pictured), count, _percent(count, total.records)]
        for flag, count in total.flags.most_common()
    ]
    flags = table(["flag (nothing is dropped for it)", "records", "share"], rows)
    by_source = {source: tally.flags for source, tally in report.stats.sources.items()}
    return join([flags, _by_source("flag", by_source, pictured)])


def _percent(part: int, whole: int) -> Number:
    return Number(f"{100 * part / whole:.1f} %" if whole else "")


def _training(curve: Curve | None) -> Html:
    if curve is None or not curve.steps:
        return Html()
    figures = [charts.line(curve.steps, values, name) for name, values in curve.series.items()]
    return element("div", *figures, class_="charts")


def _gallery(cards: Sequence[Card], records: int) -> Html:
    if not cards:
        return Html()
    choices = {
        "source": Counter(card.record.source for card in cards),
        "flag": Counter(flag for card in cards for flag in dict.fromkeys(card.record.flags)),
        "reason": Counter(reason for card in cards for reason in card.reasons),
    }
    names = {"source": "Source", "flag": "Flag", "reason": "Left out"}
    changed = sum(card.changed for card in cards)
    box = element("input", id="changed", type="checkbox", autocomplete="off")
    form = element(
        "div",
        element("label", "Search ", element("input", id="search", type="search", autocomplete="off")),
        *(_choice(key, names[key], counts) for key, counts in choices.items() if counts),
        element("label", box, f" changed by rules ({changed})") if changed else None,
        element("output", f"{len(cards)} of {len(cards)} shown", id="shown", aria_live="polite"),
        class_="filter",
        role="search",
    )
    key = element(
        "p",
        f"{len(cards)} of {records:,} records: the same ones each time, some of every source, flag and reason. "
        "Names in colour have the box of that number: point at one, or click it, and its box lights up. ",
        element("span", "Dimmed names", class_="negative"),
        " are known to be absent. ",
        element("del", "Struck words"),
        " were taken out.",
        class_="quiet",
    )
    more = element("button", "Show more", id="more", type="button", hidden=True)
    return join([form, key, *(gallery.render(card, number) for number, card in enumerate(cards)), more])


def _choice(key: str, name: str, counts: Counter[str]) -> Html:
    every = "any" if key != "source" else f"all sources ({counts.total()})"
    options = [element("option", every, value="")]
    options += [element("option", f"{value} ({count})", value=value) for value, count in sorted(counts.items())]
    return element("label", f"{name} ", element("select", *options, id=key, autocomplete="off"))


def _made(made: Mapping[str, str]) -> Html:
    if not made:
        return Html()
    return element("dl", *(_tile(name, value) for name, value in made.items()), class_="made")


def _colours() -> str:
    rules = [f".c{i}{{--own:rgb{c};--ink:rgb{ink_on(c)}}}" for i, c in enumerate(PALETTE)]
    return "\n".join(rule.replace(", ", ",") for rule in rules)


def _asset(name: str) -> str:
    return resources.files("llmdet").joinpath("assets", name).read_text("utf-8")


def _hash(block: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()}'"
