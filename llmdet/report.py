"""A report: one HTML file that needs no server, no network and nothing beside it.

Photos are embedded, style and script are inline and named by hash in the page's Content-Security-Policy: nothing else
is loaded or run, whatever stands in the data.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources

from llmdet import charts, gallery, scores
from llmdet.draw import PALETTE, ink_on
from llmdet.gallery import Card, card_of, sample
from llmdet.histogram import ASPECTS, SHARES
from llmdet.markup import Html, Number, element, join, table
from llmdet.rejects import Reject
from llmdet.scores import ClassScore, Evaluation
from llmdet.stats import RejectCounts, Stats, Tally

__all__ = ["Card", "ClassScore", "Curve", "Evaluation", "Report", "Stage", "card_of", "render", "sample"]

_SHARE_TICKS = {
    edge: f"{100 * 10**power:g}%" for power in range(-4, 1) for edge in SHARES if math.isclose(edge, 10**power)
}
_ASPECT_TICKS = {edge: f"{edge:g}" for edge in ASPECTS[::2]}
_EXAMPLES = 5  # rejects shown for each reason


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
    examples: tuple[Reject, ...] = ()
    gallery: tuple[Card, ...] = ()
    training: Curve | None = None
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
        ("Left out", _left_out(report.rejects, report.examples)),
        ("Distributions", _distributions(report.stats.total)),
        ("Captions", _captions(report.stats.total)),
        ("Training", _training(report.training)),
        ("Evaluation", join(scores.render(evaluation) for evaluation in report.evaluations)),
        ("Gallery", _gallery(report.gallery)),
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
    return element("dl", *tiles, class_="tiles")


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


def _left_out(counts: RejectCounts, examples: Sequence[Reject]) -> Html:
    if not counts.total:
        return Html()
    shown: dict[tuple[str, str, str, str], list[Reject]] = {}
    for reject in examples:
        shown.setdefault((reject.stage, reject.level, reject.kind, reject.reason), []).append(reject)
    rows: list[list[object]] = [
        [
            row["stage"],
            row["level"],
            element("span", row["kind"], class_=f"badge {'flag' if row['kind'] == 'fault' else ''}"),
            row["reason"],
            row["count"],
            _examples(shown.get((row["stage"], row["level"], row["kind"], row["reason"]), [])),
        ]
        for row in counts.to_dict()
    ]
    note = "Policy: left out because the settings say so. Fault: something is broken."
    listed = table(["stage", "level", "kind", "reason", "count", "examples"], rows)
    return join([element("p", note, class_="quiet"), listed])


def _examples(rejects: Sequence[Reject]) -> Html:
    if not rejects:
        return Html()
    items = [
        element("li", element("code", reject.id), ": " if reject.detail else None, element("bdi", reject.detail))
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
    return element("div", *figures, class_="charts")


def _captions(total: Tally) -> Html:
    rows: list[list[object]] = [[*made, count] for made, count in total.made.most_common()]
    parts = [table(["about", "origin", "model", "prompt", "captions"], rows)] if rows else []
    if total.flags:
        flags: list[list[object]] = [[flag, count] for flag, count in total.flags.most_common()]
        parts.append(table(["flag (nothing is dropped for it)", "records"], flags))
    return join(parts)


def _training(curve: Curve | None) -> Html:
    if curve is None or not curve.steps:
        return Html()
    figures = [charts.line(curve.steps, values, name) for name, values in curve.series.items()]
    return element("div", *figures, class_="charts")


def _gallery(cards: Sequence[Card]) -> Html:
    if not cards:
        return Html()
    sources = Counter(card.record.source for card in cards)
    options = [element("option", f"all sources ({len(cards)})", value="")]
    options += [element("option", f"{name} ({n})", value=name) for name, n in sorted(sources.items())]
    form = element(
        "div",
        element("label", "Search ", element("input", id="search", type="search", autocomplete="off")),
        element("label", "Source ", element("select", *options, id="source")),
        element("output", f"{len(cards)} of {len(cards)} shown", id="shown", aria_live="polite"),
        class_="filter",
        role="search",
    )
    key = element(
        "p",
        "Names in colour have the box of that number; ",
        element("span", "dimmed names", class_="negative"),
        " are known to be absent.",
        class_="quiet",
    )
    return join([form, key, *(gallery.render(card) for card in cards)])


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
