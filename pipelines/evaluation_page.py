"""An evaluation as one HTML file: protocol, figures, curves, AP per class, and the worst mistakes with their photos.

Self-contained as the report: style is inline and named by hash in the page's Content-Security-Policy, there is no
script, and all data is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from llmdet import __version__, charts, files, scores
from llmdet.draw import PALETTE, draw_boxes
from llmdet.errors import ImageError
from llmdet.markup import Html, Number, element, join, table
from pipelines.detect import opened
from pipelines.mistakes import Case
from pipelines.scoring import ClassFacts, Figures

if TYPE_CHECKING:
    from PIL import Image

_SIDE = 480  # pixels of a picture's longer side
_QUALITY = 78  # of its JPEG
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 560, 300, 44, 12, 14, 40  # of the drawing of curves
_MISSING_SHOWN = 10
_TILES = 12
_OPEN_CLASSES = 25
_GROUPS = {"r": "rare", "c": "common", "f": "frequent"}
_WORDS = {"top_k": "pairs kept", "top_k_per": "kept per", "limit_per_image": "counted per image"}
_WORDS |= {"limit_per_category": "counted per category", "names_per_prompt": "names per prompt"}
_STYLE = """
.plot { max-width: 38rem; }
.plot .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.key { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: .4rem 0 0; padding: 0; list-style: none;
  font-size: .875rem; }
.chart .key svg { display: inline-block; width: 1.4rem; height: .5rem; vertical-align: middle; margin: 0 .4rem 0 0; }
.cases { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(34rem, 100%), 1fr)); gap: 1rem; }
.case { background: var(--sheet); border: 1px solid var(--line); border-radius: 10px; padding: .8rem .9rem;
  min-width: 0; }
.case h4 { margin: 0; font-size: .95rem; }
.case p { margin: .1rem 0 .6rem; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .6rem; }
.pair figure { margin: 0; min-width: 0; }
.pair img { display: block; width: 100%; height: auto; border-radius: 6px; }
.pair figcaption { color: var(--quiet); font-size: .8rem; margin-top: .2rem; }
.protocol dd { font-size: 1rem; overflow-wrap: anywhere; }
h3 { margin-top: 1.4rem; }
"""


def write_page(
    url: str,
    title: str,
    protocol: Mapping[str, Any],
    figures: Figures,
    cases: Sequence[Case],
    missing: Mapping[str, str] | None = None,
) -> None:
    """Write the page; photos of `cases` are opened here, and one that is not there is left out."""
    files.write_bytes(url, render(title, protocol, figures, cases, missing or {}).encode("utf-8", "backslashreplace"))


def render(
    title: str, protocol: Mapping[str, Any], figures: Figures, cases: Sequence[Case], missing: Mapping[str, str]
) -> str:
    """The whole page."""
    lines = [f".l{i}{{stroke:rgb({','.join(map(str, colour))})}}" for i, colour in enumerate(PALETTE)]
    css = resources.files("llmdet").joinpath("assets", "report.css").read_text("utf-8")
    style = Html(css + _STYLE + "\n".join(lines))
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", f"Evaluation {title}"),
        element("link", rel="icon", href="data:,"),
        element("style", style),
    )
    sections = [
        ("Figures", _figures(figures.metrics, missing)),
        ("Protocol", _protocol(protocol)),
        ("Precision and recall", _curves(figures.curves)),
        ("Classes", _classes(figures)),
        ("Most confident false positives", _cases([one for one in cases if one.kind == "false"])),
        ("Missed boxes", _cases([one for one in cases if one.kind == "missed"])),
        ("Photos that could not be used", _missing(missing)),
    ]
    shown = [(name, content) for name, content in sections if content]
    links = [element("li", element("a", name, href=f"#{_anchor(name)}")) for name, _ in shown]
    body = element(
        "body",
        element(
            "header",
            element("h1", f"Evaluation: {title}"),
            element("nav", element("ul", *links), aria_label="Sections"),
        ),
        element("main", *(element("section", element("h2", name), part, id=_anchor(name)) for name, part in shown)),
    )
    return "<!doctype html>\n" + element("html", head, body, lang="en") + "\n"


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _figures(metrics: Mapping[str, float], missing: Mapping[str, str]) -> Html:
    """The first figures large, all of them in a table."""
    plain = (name for name in metrics if not name.startswith("AR") and ("/" not in name or name.endswith("R@1")))
    large = [(name, metrics[name]) for name in list(plain)[:_TILES]]
    tiles = [element("div", element("dt", name), element("dd", scores.written(value))) for name, value in large]
    if missing:
        tiles.append(element("div", element("dt", "photos not used"), element("dd", f"{len(missing):,}")))
    rows = [[name, Number(scores.written(value)), charts.share(max(value, 0.0))] for name, value in metrics.items()]
    listed = table(["metric", "value", ""], rows)
    summary = element("summary", f"All {len(rows)} figures")
    return join([element("dl", *tiles, class_="tiles"), element("details", summary, listed)])


def _protocol(protocol: Mapping[str, Any]) -> Html:
    told: dict[str, Any] = {_WORDS.get(name, name.replace("_", " ")): value for name, value in protocol.items()}
    if "short_side" in protocol:
        told.pop("short side", None)
        told.pop("long side", None)
        told["photos resized to"] = f"{protocol['short_side']} px, at most {protocol['long_side']} px"
    told |= {"made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "llmdet-data": __version__}
    items = [element("div", element("dt", name), element("dd", _said(value))) for name, value in told.items()]
    return element("dl", *items, class_="made protocol")


def _said(value: object) -> str:
    if isinstance(value, list | tuple):
        return "; ".join(map(str, value))
    if value is None:
        return "as many as fit"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _curves(curves: Mapping[str, Sequence[float]]) -> Html:
    """Precision at each recall, mean over categories: both axes from 0 to 1, so that pages can be compared."""
    if not curves:
        return Html()
    across, up = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = _LEFT + tick * across, _HEIGHT - _BOTTOM - tick * up
        parts.append(element("path", class_="grid", d=f"M{_LEFT},{y:.1f}H{_WIDTH - _RIGHT}"))
        parts.append(element("text", f"{tick:g}", x=_LEFT - 6, y=f"{y + 4:.1f}", text_anchor="end"))
        parts.append(element("text", f"{tick:g}", x=f"{x:.1f}", y=_HEIGHT - _BOTTOM + 16, text_anchor="middle"))
    parts.append(element("text", "recall", x=_LEFT + across / 2, y=_HEIGHT - 6, text_anchor="middle"))
    parts.append(element("text", "precision", x=_LEFT + 6, y=_TOP + 10))
    keys = []
    for number, (name, values) in enumerate(curves.items()):
        step = across / (len(values) - 1)
        points = (
            f"{_LEFT + i * step:.1f},{_HEIGHT - _BOTTOM - value * up:.1f}"
            for i, value in enumerate(np.clip(values, 0, 1))
        )
        colour = f"line l{number % len(PALETTE)}"
        parts.append(element("path", element("title", name), class_=colour, d="M" + "L".join(points)))
        mark = element("svg", element("path", class_=colour, d="M0,4H24"), viewBox="0 0 24 8", aria_hidden="true")
        keys.append(element("li", mark, name))
    drawing = element("svg", *parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label="Precision over recall")
    caption = element("figcaption", element("b", "Mean over categories"))
    return element("figure", caption, drawing, element("ul", *keys, class_="key"), class_="chart plot")


def _classes(figures: Figures) -> Html:
    if not figures.classes:
        return Html()
    plain = ClassFacts("", 0)
    rows: list[list[object]] = []
    for name, ap in sorted(figures.classes.items(), key=lambda entry: (-entry[1], entry[0])):
        fact = figures.facts.get(name, plain)
        about = [_GROUPS.get(fact.frequency, "")] * bool(figures.facts) + [fact.boxes] * bool(figures.facts)
        rows.append([name, *about, Number(scores.written(ap)), charts.share(max(ap, 0.0))])
    head = ["class", *["group", "boxes"] * bool(figures.facts), "AP" if figures.facts else "value", ""]
    summary = element("summary", f"Each of {len(rows):,}, best first")
    return join([_groups(figures), element("details", summary, table(head, rows), open=len(rows) <= _OPEN_CLASSES)])


def _groups(figures: Figures) -> Html | None:
    """AP of rare, common and frequent classes, where they are told apart."""
    rows: list[list[object]] = []
    for letter, name in _GROUPS.items():
        own = [key for key, fact in figures.facts.items() if fact.frequency == letter]
        found = figures.metrics.get(f"AP{letter}", -1.0)
        if own:
            count = sum(figures.facts[key].boxes for key in own)
            rows.append([name, len(own), count, Number(scores.written(found)), charts.share(max(found, 0.0))])
    return table(["group", "classes", "boxes", "AP", ""], rows) if rows else None


def _missing(missing: Mapping[str, str]) -> Html:
    if not missing:
        return Html()
    rows = [[image, why] for image, why in list(missing.items())[:_MISSING_SHOWN]]
    rest = len(missing) - len(rows)
    more = element("p", f"and {rest:,} more: see the metrics file", class_="quiet") if rest else None
    return join([table(["image", "why"], rows), more])


# --- mistakes ------------------------------------------------------------------------------------------------------


def _cases(cases: Sequence[Case]) -> Html:
    if not cases:
        return Html()
    return element("div", *map(_case, cases), class_="cases")


def _case(case: Case) -> Html:
    words = [element("h4", case.title, dir="auto"), element("p", case.note, class_="quiet", dir="auto")]
    return element("article", *words, _pair(case), class_="case")


def _pair(case: Case) -> Html | None:
    """The photo with what is true, and again with what was found."""
    if case.photo is None:
        return None
    try:
        picture = opened(case.photo)
    except ImageError as error:
        return element("p", f"The photo cannot be shown: {error}", class_="quiet")
    size = picture.size
    picture.thumbnail((_SIDE, _SIDE))
    scale = np.array([picture.width / size[0], picture.height / size[1]] * 2)
    true = draw_boxes(picture, _scaled([box for box, _ in case.true], scale), [name for _, name in case.true])
    boxes, labels, ranks = zip(*case.found, strict=True) if case.found else ((), (), ())
    found = draw_boxes(picture, _scaled(boxes, scale), labels, ranks)
    return element("div", _figure(true, "annotated"), _figure(found, "found"), class_="pair")


def _scaled(boxes: Sequence[Any], scale: Any) -> Any:
    return np.array(boxes, np.float64).reshape(-1, 4) * scale


def _figure(picture: Image.Image, words: str) -> Html:
    buffer = io.BytesIO()
    picture.info.clear()  # a JPEG's comment would be written again
    picture.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    url = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    size = {"width": picture.width, "height": picture.height}
    image = element("img", src=url, alt=f"The photo with the boxes that were {words}", loading="lazy", **size)
    return element("figure", image, element("figcaption", words))
