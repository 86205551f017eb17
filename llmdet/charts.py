"""Charts as inline SVG: no script, colours from the style sheet, the numbers also as text."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from llmdet.histogram import Histogram
from llmdet.markup import Html, element, join

_WIDTH, _HEIGHT = 360, 170  # of the drawing, in SVG units, about CSS pixels
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 18, 10, 26
_MOST_BARS = 32


def histogram(values: Histogram, title: str, unit: str, ticks: Mapping[float, str] | None = None) -> Html:
    """A figure with a bar chart; neighbouring bins are joined so that at most 32 bars are drawn.

    `ticks` names the edges that are written below the bars, for scales that are not linear.
    """
    summary = summarise(values, unit)
    if not values.count:
        return _figure(title, summary, element("p", "Nothing to show.", class_="empty"))
    edges, counts = _joined(values)
    step = (_WIDTH - _LEFT - _RIGHT) / len(counts)
    single = len(edges) > 1 and all(high - low == 1 for low, high in itertools.pairwise(edges))
    bars = [
        _bar(_LEFT + i * step, step, count / max(counts), f"{_range(low, high, single)}: {count:,}")
        for i, ((low, high), count) in enumerate(zip(itertools.pairwise(edges), counts, strict=True))
        if count
    ]
    shown = [(i, ticks[edge]) for i, edge in enumerate(edges) if edge in ticks] if ticks else _every(edges, single)
    # A bar that stands for one whole number has its name below its middle.
    x_axis = _x_axis([(_LEFT + (i + single / 2) * step, name) for i, name in shown])
    y_axis = _y_axis(0, max(counts), sorted({0, max(counts) // 2, max(counts)}))
    return _figure(title, summary, _svg(f"{title}: {summary}", x_axis, y_axis, *bars))


def _bar(x: float, width: float, share: float, title: str) -> Html:
    height = share * (_HEIGHT - _TOP - _BOTTOM)
    size = {"width": _round(max(width - 1, 0.5)), "height": _round(height)}
    place = {"x": _round(x + 0.5), "y": _round(_HEIGHT - _BOTTOM - height)}
    return element("rect", element("title", title), class_="bar", **place, **size)


def _range(low: float, high: float, single: bool) -> str:
    return number(low) if single else f"{number(low)} to {number(high)}"


def _every(edges: Sequence[float], single: bool) -> list[tuple[int, str]]:
    last = len(edges) - 1 if single else len(edges)
    return [(i, number(edges[i])) for i in range(0, last, math.ceil(len(edges) / 7))]


def summarise(values: Histogram, unit: str) -> str:
    """Count, mean, median and range in words."""
    if values.mean is None or values.smallest is None or values.largest is None:
        return f"no {unit}"
    middle = values.quantile(0.5) or 0.0
    high = values.edges[values.edges.index(middle) + 1]
    median = number(middle) if high - middle == 1 else f"between {number(middle)} and {number(high)}"
    spread = f"from {number(values.smallest)} to {number(values.largest)}"
    return f"{values.count:,} {unit}; mean {number(values.mean)}, median {median}, {spread}"


def line(steps: Sequence[float], values: Sequence[float], title: str) -> Html:
    """A figure with one curve; values that are not finite leave a gap."""
    points = [(x, y) for x, y in zip(steps, values, strict=True)]
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    if not finite:
        return _figure(title, "no finite values", element("p", "Nothing to show.", class_="empty"))
    x0, x1 = finite[0][0], finite[-1][0]
    low, high = min(0.0, *(y for _, y in finite)), max(y for _, y in finite)
    high = high if high > low else low + 1
    across, up = (_WIDTH - _LEFT - _RIGHT) / ((x1 - x0) or 1), (_HEIGHT - _TOP - _BOTTOM) / (high - low)

    def place(x: float, y: float) -> str:
        return f"{_LEFT + (x - x0) * across:.1f},{_HEIGHT - _BOTTOM - (y - low) * up:.1f}"

    runs: list[list[str]] = [[]]
    for x, y in points:
        if math.isfinite(y):
            runs[-1].append(place(x, y))
        elif runs[-1]:
            runs.append([])
    # A run of one point has no length: the round cap of the style sheet still shows it.
    paths = [element("path", class_="curve", d="M" + "L".join(run if len(run) > 1 else run * 2)) for run in runs if run]
    ticks = [(_LEFT + (x - x0) * across, number(x)) for x in dict.fromkeys((x0, (x0 + x1) / 2, x1))]
    summary = f"first {number(finite[0][1])}, last {number(finite[-1][1])}, lowest {number(min(y for _, y in finite))}"
    return _figure(
        title,
        summary,
        _svg(f"{title}: {summary}", _x_axis(ticks), _y_axis(low, high, [low, (low + high) / 2, high]), *paths),
    )


def share(value: float, other: float | None = None) -> Html:
    """A small bar for a value of 0..1, with a mark where another one lies."""
    width = 100
    bars = [element("rect", class_="track", width=width, height=8, rx=2)]
    bars.append(element("rect", class_="bar", width=_round(width * min(max(value, 0), 1)), height=8, rx=2))
    if other is not None:
        bars.append(element("rect", class_="mark", x=_round((width - 2) * min(max(other, 0), 1)), width=2, height=8))
    return element("svg", *bars, class_="share", viewBox=f"0 0 {width} 8", aria_hidden="true")


def number(value: float) -> str:
    """A number for people: three significant digits, whole numbers whole, thousands parted."""
    if not math.isfinite(value):
        return "not finite"
    if value == int(value) or abs(value) >= 1000:
        return f"{round(value):,}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.1f}"


def _joined(values: Histogram) -> tuple[list[float], list[int]]:
    """Edges and counts of the bins that hold something, joined to few bars of equally many bins."""
    filled = [i for i, count in enumerate(values.counts) if count]
    first, last = filled[0], filled[-1] + 1
    if first < 8 and last > 16:
        first = 0  # a scale that starts at nought is easier to read
    joined = math.ceil((last - first) / _MOST_BARS)
    starts = range(first, last, joined)
    edges = [values.edges[i] for i in starts]
    return [*edges, values.edges[min(starts[-1] + joined, len(values.edges) - 1)]], [
        sum(values.counts[i : i + joined]) for i in starts
    ]


def _figure(title: str, summary: str, body: Html) -> Html:
    caption = element("figcaption", element("b", title), element("span", summary, class_="quiet"))
    return element("figure", caption, body, class_="chart")


def _svg(label: str, *parts: Html) -> Html:
    return element("svg", *parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=label)


def _x_axis(ticks: Sequence[tuple[float, str]]) -> Html:
    base = _HEIGHT - _BOTTOM
    axis = element("path", class_="axis", d=f"M{_LEFT},{base}H{_WIDTH - _RIGHT}")
    names = [element("text", name, x=_round(x), y=base + 16, text_anchor="middle") for x, name in ticks]
    return join([axis, *names])


def _y_axis(low: float, high: float, values: Sequence[float]) -> Html:
    parts = []
    for value in values:
        y = _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)
        parts.append(element("path", class_="grid", d=f"M{_LEFT},{y:.1f}H{_WIDTH - _RIGHT}"))
        parts.append(element("text", number(value), x=_LEFT - 6, y=_round(y + 4), text_anchor="end"))
    return join(parts)


def _round(value: float) -> str:
    return f"{value:.1f}"
