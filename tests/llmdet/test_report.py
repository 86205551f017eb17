"""The report as a parser sees it: what it says, and that data can never become markup."""

import base64
import io
import math
import re
import time
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llmdet import charts, markup, rejects
from llmdet.changes import changes
from llmdet.draw import PALETTE
from llmdet.gallery import _Mark, marked
from llmdet.histogram import WORDS, Histogram
from llmdet.record import Box, Caption, Link, Provenance, Record, Region, to_batch
from llmdet.rejects import Reject
from llmdet.report import ClassScore, Curve, Evaluation, LeftOut, Report, Stage, card_of, render, sample
from llmdet.stats import RejectCounts, Stats

EVIL = "<script>window.hacked=1</script>\"'><img src=x onerror=window.hacked=1>\u202eevil\u2066\x00</title></style>"
BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\x00]")


class Page(HTMLParser):
    """Tags with attributes, and the text of each element that has an id or class of interest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return "".join(self.words)


def pets(**changes) -> Record:
    text = "dog. cat. horse. "
    how = Provenance("lmm", "long@2", model="some/model", revision="abcdef", engine="vllm", engine_version="0.27.0")
    fields = {
        "id": "coco/7/0",
        "source": "coco",
        "image_id": "7",
        "text_id": "0",
        "kind": "detection",
        "image": "7.jpg",
        "root": "photos",
        "width": 640,
        "height": 480,
        "text": text,
        "regions": (
            Region(("dog",), ((0, 3),), (Box((100, 200, 300, 400), order=1, score=0.5),)),
            Region(("cat",), ((5, 8),), (Box((400, 50, 500, 150), order=0, caption=Caption("a grey cat")),)),
        ),
        "negatives": ((10, 15),),
        "captions": (Caption("A dog runs.", raw="A dog runs. Lovely.", provenance=how, links=(Link((2, 5), 0),)),),
        "flags": ("count_mismatch",),
    }
    return Record(**{**fields, **changes})


def report_of(*records: Record, image: Image.Image | None = None, **parts) -> Report:
    cards = tuple(card_of(record, image) for record in records)
    if "left_out" in parts:
        cards += (card_of(records[0], image, parts.pop("left_out")),)
    return Report(**{"title": "Pets", "stats": Stats.of(to_batch(records)), "gallery": cards, **parts})


def evil() -> Report:
    """Planted in every place that comes from data."""
    how = Provenance("lmm", EVIL, model=EVIL, engine=EVIL, sampling=EVIL)
    caption = Caption(EVIL, raw=EVIL + "raw", provenance=how, links=(Link((0, 5), 0),))
    box = Box((1, 1, 50, 50), caption=caption)
    record = pets(
        id=EVIL,
        source=EVIL,
        image=EVIL,
        root=EVIL,
        text=EVIL,
        regions=(Region((EVIL,), ((0, len(EVIL)),), (box,)),),
        negatives=((3, 9),),
        captions=(caption,),
        flags=(EVIL,),
        tags=(EVIL,),
        split=EVIL,
        licence=EVIL,
    )
    reject = Reject(EVIL, "record", "fault", EVIL, EVIL, EVIL)
    return report_of(
        record,
        pets(),
        image=Image.new("RGB", (64, 48)),
        left_out=(LeftOut(reject, EVIL),),
        title=EVIL,
        stages=(Stage(name=EVIL, source=EVIL, took=1, gave=1, seconds=1, unit=EVIL),),
        rejects=RejectCounts.of(rejects.to_batch([reject])),
        rejects_by_source={name: RejectCounts.of(rejects.to_batch([reject])) for name in (EVIL, EVIL + "2")},
        notes=(EVIL,),
        examples=(reject,),
        training=Curve((0, 1), {EVIL: (1.0, 2.0)}),
        evaluations=(Evaluation(EVIL, {EVIL: 0.5}, {EVIL: 0.1}, (ClassScore(EVIL, 0.5),)),),
        made={EVIL: EVIL},
    )


def test_data_never_becomes_markup():
    page = Page(render(evil()))
    assert [len(page.all(tag)) for tag in ("script", "style", "title", "body")] == [1, 1, 1 + svg_titles(page), 1]
    assert not any(name.startswith("on") or name == "style" for _, attributes in page.tags for name in attributes)
    assert {image["src"].split(",")[0] for image in page.all("img")} == {"data:image/jpeg;base64"}
    assert "hacked" in page.text  # it was there, as text


def svg_titles(page: Page) -> int:
    return len(
        [attributes for attributes in page.all("rect") if attributes.get("class") == "bar" and "x" in attributes]
    )


def test_direction_and_control_characters_are_shown_by_name():
    html = render(evil())
    assert not BIDI.search(html)
    assert "U+202E" in html
    assert "U+0000" in html


def test_nothing_is_loaded_from_elsewhere():
    page = Page(render(evil()))
    links = [attributes.get("src") or attributes.get("href") or "" for _, attributes in page.tags]
    assert all(link == "" or link.startswith(("data:", "#")) for link in links)
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy


@settings(max_examples=60, deadline=None)
@given(
    st.text(st.characters(codec="utf-8"), max_size=40), st.lists(st.tuples(st.integers(-2, 42), st.integers(-2, 42)))
)
def test_marked_text_reads_as_the_text_whatever_the_spans(words, spans):
    marks = [_Mark((min(span), max(span)), "c1") for span in spans]
    page = Page("<p>" + marked(words, marks) + "</p>")
    shown = re.sub(r"U\+[0-9A-F]{4}", "", page.text)
    assert shown == re.sub(r"U\+[0-9A-F]{4}", "", markup._CONTROLS.sub("", words))
    assert {tag for tag, _ in page.tags} <= {"p", "mark", "span"}


def test_shortest_of_nested_spans_shows():
    html = marked("red shirt man", [_Mark((0, 13), "c1"), _Mark((4, 9), "c2")])
    assert re.findall(r'<mark class="(c\d)"[^>]*>([^<]*)', html) == [("c1", "red "), ("c2", "shirt"), ("c1", " man")]


def test_phrase_has_the_colour_and_number_of_its_box():
    record = pets()
    card = card_of(record, Image.new("RGB", (640, 480)))
    html = render(Report(title="Pets", stats=Stats(), gallery=(card,)))
    found = re.findall(r'<mark class="c(\d+)" title="box (\d)" data-boxes="\2"[^>]*>(\w+)<sup>', html)
    assert [(number, name) for _, number, name in found] == [("2", "dog"), ("1", "cat")]
    dog, cat = (PALETTE[int(index)] for index, _, _ in found)
    assert card.picture.getpixel((101, 300)) == dog
    assert card.picture.getpixel((401, 100)) == cat
    assert dog != cat


def test_absent_names_are_dimmed_and_caption_links_marked():
    html = render(report_of(pets()))
    assert re.findall(r'<span class="negative" title="[^"]*">(\w+)<', html) == ["horse"]
    assert re.search(r'A <mark class="c\d+" title="dog, box 2" data-boxes="2"[^>]*>dog</mark> runs\.', html)


def test_a_link_to_one_box_of_a_region_lights_that_box_only():
    boxes = tuple(Box((float(i), 0, i + 50.0, 50), order=i) for i in range(3))
    links = (Link((2, 5), 0, 1), Link((6, 10), 0), Link((11, 12), 0, 9))
    caption = Caption("A dog runs .", links=links)
    html = render(report_of(pets(regions=(Region(("dog",), ((0, 3),), boxes),), captions=(caption,))))
    assert re.findall(r'data-boxes="([^"]*)"[^>]*>([\w.]+)</mark>', html) == [
        ("2", "dog"),
        ("1 2 3", "runs"),
        ("1 2 3", "."),
    ]


def test_boxes_over_the_photo_are_clipped_and_small_ones_lie_on_top():
    boxes = (Box((600, 400, 660, 500), order=0), Box((-10, -10, 900, 900), order=1))
    record = pets(regions=(Region(("dog",), ((0, 3),), boxes),))
    html = render(report_of(record, image=Image.new("RGB", (640, 480))))
    spots = re.findall(
        r'<rect class="spot c\d+" data-box="(\d)" x="(\S+)" y="(\S+)" width="(\S+)" height="(\S+)">', html
    )
    assert spots == [("2", "0.0", "0.0", "640.0", "480.0"), ("1", "600.0", "400.0", "40.0", "80.0")]
    assert 'viewBox="0 0 640 480"' in html


def test_words_that_rules_took_out_are_struck():
    html = render(report_of(pets()))
    assert '<summary>as it was answered: 1 word more</summary><p dir="auto">A dog runs.<del> Lovely.</del></p>' in html


@settings(max_examples=60, deadline=None)
@given(*[st.text("ab <&\n", max_size=30)] * 2)
def test_changes_hold_both_texts(before, after):
    html = changes(before, after)
    old = re.sub(r"<ins>[^<]*</ins>|</?del>", "", html)
    new = re.sub(r"<del>[^<]*</del>|</?ins>", "", html)
    assert (unescape(old), unescape(new)) == (before, after)


def test_a_huge_caption_is_cut_and_quick():
    text = "A dog, and " + "a very long story, " * 60_000
    record = pets(captions=(Caption(text, raw=text + "!"),), text="dog. cat. horse. " + text)
    report = report_of(record)
    started = time.process_time()
    html = render(report)
    assert time.process_time() - started < 1
    assert len(html) < 100_000
    assert "more characters" in html


def test_cards_tell_what_was_left_out_and_why():
    rows = [
        Reject(
            "ab" * 16, "request", "policy", "refine", "refusal", "RejectRefusal: I cannot (coco/7/0 image_caption 0)"
        )
    ]
    lost = (LeftOut(rows[0], "I cannot <see> it."),)
    card = card_of(pets(), None, lost)
    html = render(Report(title="Pets", stats=Stats(), rejects=RejectCounts.of(rejects.to_batch(rows)), gallery=(card,)))
    assert "<b>refusal</b> left out by refine" in html
    assert "<del>I cannot &lt;see&gt; it.</del>" in html
    assert 'data-reasons="[&quot;refusal&quot;]"' in html
    assert '<a href="#gallery" data-filter="reason" data-value="refusal">refusal</a>' in html


def test_flags_and_reasons_are_counted_by_source():
    records = [pets(), pets(id="b/1/0", source="b", flags=("leak",)), pets(id="b/2/0", source="b")]
    rows = RejectCounts.of(rejects.to_batch([Reject("b/9", "record", "policy", "merge", "over_cap")]))
    both = {"b": rows, "coco": RejectCounts()}
    text = Page(render(report_of(*records, rejects=rows, rejects_by_source=both))).text
    assert "reasonbcocoover_cap10" in text
    assert "flagbcococount_mismatch11leak10" in text


def test_checks_and_links_have_their_figures():
    record = pets(extra={"checks": {"counts": {"claims": 8, "wrong": 2}}})
    text = Page(render(report_of(record))).text
    assert "counts8225.0 %" in text
    assert "coco11.00100.0 %50.0 %" in text
    assert "Words that rules took out" in text


def test_card_tells_where_a_caption_came_from():
    text = Page(render(report_of(pets()))).text
    assert "language model · some/model (abcdef) · prompt long@2 · vllm 0.27.0" in text
    assert "A dog runs. Lovely." in text
    assert "Region captions: the source's own" in text
    assert "count_mismatch" in text


def test_missing_photo_is_named():
    page = Page(render(report_of(pets())))
    assert "The photo is missing: photos/7.jpg" in page.text
    assert page.all("img") == []


def test_boxes_follow_a_photo_that_is_smaller_than_the_record_says():
    card = card_of(
        pets(width=1280, height=960, regions=(Region(("dog",), ((0, 3),), (Box((200, 400, 600, 800)),)),)),
        Image.new("RGB", (640, 480)),
    )
    pixels = np.asarray(card.picture)
    assert card.picture.size == (640, 480)
    assert tuple(pixels[300, 101]) in PALETTE
    assert tuple(pixels[300, 200]) == (0, 0, 0)


def test_pictures_are_reduced_and_carry_no_metadata():
    image = Image.new("RGB", (3000, 1500))
    image.info["comment"] = b"taken at home"
    image.getexif()[0x010E] = "taken at home"
    html = render(report_of(pets(), image=image))
    embedded = base64.b64decode(re.search(r'"data:image/jpeg;base64,([^"]+)"', html)[1])
    picture = Image.open(io.BytesIO(embedded))
    assert picture.size == (720, 360)
    assert b"home" not in embedded


def test_overview_and_sources_show_the_counts():
    text = Page(render(report_of(pets(), pets(id="goldg/7/0", source="goldg")))).text
    assert "records2" in text
    assert "images1" in text
    assert "boxes4" in text
    assert "together2" in text


def test_flow_and_what_was_left_out_are_listed_with_examples():
    rows = [Reject("coco/9", "annotation", "policy", "ingest", "crowd", "iscrowd=1")] * 3
    report = report_of(
        pets(),
        stages=(Stage(name="ingest", source="coco", took=1200, gave=1197, seconds=2.5),),
        rejects=RejectCounts.of(rejects.to_batch(rows)),
        examples=tuple(rows),
    )
    text = Page(render(report)).text
    assert "ingestcoco1,2001,197records2.5480" in text
    assert "ingestannotationpolicycrowd3" in text
    assert "coco/9: iscrowd=1" in text


def test_evaluation_shows_before_after_and_classes_best_first():
    classes = (ClassScore("cat", 0.25, 0.0, 4), ClassScore("dog", 0.5, 0.125, 1200), ClassScore("eel", math.nan))
    report = report_of(pets(), evaluations=(Evaluation("val", {"AP": 0.375, "APs": -1.0}, {"AP": 0.0625}, classes),))
    text = Page(render(report)).text
    assert "AP0.0620.375APsnone" in text
    assert "dog0.1250.5001,200cat0.0000.2504eelnone" in text


def test_empty_report_has_only_an_overview():
    page = Page(render(Report(title="Nothing", stats=Stats())))
    assert [section["id"] for section in page.all("section")] == ["overview"]


def test_the_same_report_gives_the_same_page():
    image = Image.effect_noise((300, 200), 50)
    assert render(report_of(pets(), image=image)) == render(report_of(pets(), image=image))


def test_histogram_bars_stand_for_the_counts():
    svg = charts.histogram(Histogram.of(np.array([3, 3, 4]), WORDS), "Words", "captions")
    assert re.findall(r"<title>([^<]*)</title>", svg) == ["3: 2", "4: 1"]
    assert "3 captions; mean 3.33, median 3, from 3 to 4" in svg
    heights = [float(h) for h in re.findall(r'class="bar"[^>]*height="([\d.]+)"', svg)]
    assert heights[0] == pytest.approx(2 * heights[1])


def test_long_scales_are_joined_to_few_bars_without_losing_a_count():
    values = np.arange(500)
    svg = charts.histogram(Histogram.of(values, WORDS), "Words", "captions")
    counts = [int(n) for n in re.findall(r"<title>[^<]*: (\d+)</title>", svg)]
    assert len(counts) <= 32
    assert sum(counts) == 500


def test_curve_has_a_gap_where_values_are_not_finite():
    svg = charts.line((0, 1, 2, 3), (1.0, math.nan, 0.5, 0.25), "loss")
    assert svg.count('class="curve"') == 2
    assert "first 1, last 0.25, lowest 0.25" in svg
    assert "NAN" not in svg.upper().replace("NAN-", "")


def test_sample_is_the_same_in_any_order_and_changes_little_with_more_ids():
    ids = [f"coco/{i}/0" for i in range(1000)]
    chosen = sample(ids)
    assert len(set(chosen)) == 24
    assert sample(reversed(ids)) == chosen
    assert sample(ids[:10]) != ids[:10]
    assert set(sample(ids[:10])) == set(ids[:10])
    assert len(set(sample([*ids, "coco/new/0"])) & set(chosen)) >= 23


def test_share_bar_has_its_length_and_a_mark_where_the_other_value_lies():
    html = charts.share(0.25, 0.5)
    assert re.findall(r'class="(\w+)"[^>]*width="([\d.]+)"', html) == [("track", "100"), ("bar", "25.0"), ("mark", "2")]
    assert 'x="49.0"' in html
    assert "mark" not in charts.share(1.5)
    assert 'width="100.0"' in charts.share(1.5)
