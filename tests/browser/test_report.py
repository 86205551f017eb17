"""The report in a real headless Chromium, opened from a file."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from llmdet import rejects
from llmdet.record import Box, Caption, Link, Record, Region, to_batch
from llmdet.rejects import Reject
from llmdet.report import LeftOut, Report, card_of, render
from llmdet.stats import RejectCounts, Stats

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'llmdet-data[dev]'")
CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
EVIL = '<script>window.hacked=1</script>"><img src="https://example.org/x.png" onerror="window.hacked=1">\u202etxt'

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs Debian's chromium as {CHROMIUM}: apt install chromium"),
]


def record(number: int, source: str, caption: str) -> Record:
    region = Region(("dog",), ((0, 3),), (Box((10, 10, 60, 60), caption=Caption(caption)),))
    return Record(
        id=f"{source}/{number}/0",
        source=source,
        image_id=str(number),
        text_id="0",
        kind="detection",
        image=f"{number}.jpg",
        root="photos",
        width=200,
        height=100,
        text="dog. cat. " + EVIL,
        regions=(region,),
        negatives=((5, 8),),
        captions=(Caption(EVIL),),
        flags=(EVIL,),
    )


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    records = [record(i, "coco", f"number {i} of the pack") for i in range(3)] + [record(9, EVIL, "The GREY wolf")]
    cards = tuple(card_of(r, Image.new("RGB", (200, 100), "grey")) for r in records)
    path = tmp_path_factory.mktemp("report") / "index.html"
    path.write_text(render(Report(title=EVIL, stats=Stats.of(to_batch(records)), gallery=cards)), "utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    page = browser.new_page()
    yield page
    page.close()


def visible(page) -> list[str]:
    return [h3.inner_text() for h3 in page.locator(".card:visible h3").all()]


def test_planted_scripts_do_not_run_and_nothing_is_fetched(page, address):
    messages, requests = [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    assert page.evaluate("window.hacked") is None
    assert page.locator("script").count() == 1
    assert page.locator("h1").inner_text().startswith("<script>window.hacked=1</script>")
    assert messages == []
    assert {url.split(":")[0] for url in requests} <= {"file", "data"}


def test_policy_stops_a_script_that_gets_in_all_the_same(page, address):
    page.goto(address)
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.hacked = 1";
            document.body.append(script);
            document.body.insertAdjacentHTML("beforeend", '<img src="data:," onerror="window.hacked=1">');
        }"""
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.hacked") is None


def test_pictures_are_shown(page, address):
    page.goto(address)
    widths = page.evaluate("Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))")
    assert widths == [600] * 4  # 200 pixels, enlarged three times


def test_style_applies(page, address):
    page.goto(address)
    colours = page.evaluate("[...document.querySelectorAll('mark')].map(m => getComputedStyle(m).backgroundColor)")
    assert colours
    assert "rgba(0, 0, 0, 0)" not in colours


def test_words_typed_into_the_search_box_filter_the_cards(page, address):
    page.goto(address)
    page.get_by_role("searchbox", name="Search").click()
    page.keyboard.type("wolf grey")
    assert page.locator(".card:visible").count() == 1
    assert page.locator("#shown").inner_text() == "1 of 4 shown"
    page.get_by_role("searchbox", name="Search").fill("coco/2")
    assert visible(page) == ["coco/2/0"]
    page.get_by_role("searchbox", name="Search").fill("")
    assert page.locator(".card:visible").count() == 4


def test_source_filter_takes_names_with_markup_in_them(page, address):
    page.goto(address)
    page.get_by_role("combobox", name="Source").select_option("coco")
    assert visible(page) == ["coco/0/0", "coco/1/0", "coco/2/0"]
    page.get_by_role("combobox", name="Source").select_option(index=1)  # "<script>..." sorts before "coco"
    assert page.locator(".card:visible").count() == 1


def test_click_opens_the_list_of_boxes(page, address):
    page.goto(address)
    card = page.locator(".card").first
    assert card.get_by_text("number 0 of the pack").is_visible()
    card.locator("summary").last.click()
    assert not card.get_by_text("number 0 of the pack").is_visible()


@pytest.mark.parametrize("width", [400, 1300])
def test_page_does_not_scroll_sideways(page, address, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(address)
    assert page.evaluate("document.documentElement.scrollWidth") == width


def pair(number: int, **changes) -> Record:
    """A dog on the left, which has a cat inside it, and two birds; a caption of which words were taken out."""
    boxes = {"dog": [(10, 10, 90, 90)], "cat": [(20, 20, 40, 40)], "bird": [(120, 10, 140, 30), (150, 10, 170, 30)]}
    text = "dog. cat. bird. "
    regions, order = [], 0
    for name, found in boxes.items():
        start = text.index(name)
        mine = tuple(Box(xyxy, order=order + at) for at, xyxy in enumerate(found))
        regions.append(Region((name,), ((start, start + len(name)),), mine))
        order += len(found)
    words = "A dog watches two birds."
    caption = Caption(words, raw=words + " They may be friends.", links=(Link((0, 5), 0), Link((14, 23), 2)))
    values = {"text": text, "regions": tuple(regions), "negatives": (), "captions": (caption,), "flags": (), **changes}
    return replace(record(number, "pairs", ""), **values)


@pytest.fixture(scope="module")
def long_address(tmp_path_factory) -> str:
    """Forty records: some flagged, some that lost a caption."""
    plain = Caption("As it was.")
    lost = [Reject(f"r{i}", "request", "policy", "refine", ("refusal", EVIL)[i % 2], EVIL) for i in range(4)]
    cards = []
    for i in range(40):
        one = pair(i, flags=("odd",) if i % 8 == 0 else (), **({"captions": (plain,)} if i % 4 else {}))
        gone = (LeftOut(lost[i], EVIL),) if i < 4 else ()
        cards.append(card_of(one, Image.new("RGB", (200, 100), "grey"), gone))
    records = [card.record for card in cards]
    counts = RejectCounts.of(rejects.to_batch(lost))
    page = Report(title="Forty", stats=Stats.of(to_batch(records)), rejects=counts, gallery=tuple(cards))
    path = tmp_path_factory.mktemp("long") / "index.html"
    path.write_text(render(page), "utf-8")
    return path.as_uri()


def lit(page) -> list[str]:
    holes = page.locator(".card").first.locator(".hole").all()
    style = "e => getComputedStyle(e).visibility"
    return sorted(hole.get_attribute("data-box") for hole in holes if hole.evaluate(style) == "visible")


def test_pointing_at_a_phrase_lights_its_boxes_and_leaving_it_ends_that(page, long_address):
    page.goto(long_address)
    card = page.locator(".card").first
    assert lit(page) == []
    card.locator("blockquote mark", has_text="two birds").hover()
    assert lit(page) == ["3", "4"]
    assert (
        card.locator(".shade").evaluate("e => e.getAnimations().map(a => a.finish()) && getComputedStyle(e).opacity")
        > "0.5"
    )
    card.locator("h3").hover()
    assert lit(page) == []


def test_a_click_on_a_phrase_keeps_its_box_lit_until_it_is_clicked_again(page, long_address):
    page.goto(long_address)
    card = page.locator(".card").first
    dog = card.locator("blockquote mark", has_text="A dog")
    dog.click()
    card.locator("h3").hover()
    assert lit(page) == ["1"]
    assert dog.get_attribute("aria-pressed") == "true"
    assert card.locator(".grounding mark.on").inner_text().startswith("dog")
    dog.click()
    card.locator("h3").hover()
    assert card.locator(".shade").count() == 1
    page.keyboard.press("Escape")
    assert lit(page) == []


def test_a_click_into_the_photo_lights_the_smallest_box_there_and_its_names(page, long_address):
    page.goto(long_address)
    card = page.locator(".card").first
    area = card.locator(".picture").bounding_box()
    card.locator(".picture").click(position={"x": area["width"] * 0.15, "y": area["height"] * 0.3})
    assert lit(page) == ["2"]
    assert [mark.inner_text().rstrip("0123456789") for mark in card.locator("mark.on").all()] == ["cat"]


def test_phrases_work_from_the_keyboard(page, long_address):
    page.goto(long_address)
    dog = page.locator(".card").first.locator("blockquote mark").first
    dog.focus()
    assert lit(page) == ["1"]
    page.keyboard.press("Enter")
    page.locator("#search").focus()
    assert lit(page) == ["1"]


def test_a_long_gallery_shows_a_page_at_a_time(page, long_address):
    page.goto(long_address)
    assert page.locator(".card:visible").count() == 24
    assert page.locator("#shown").inner_text() == "24 of 40 shown"
    page.get_by_role("button", name="Show 16 more of 16").click()
    assert page.locator(".card:visible").count() == 40
    assert not page.locator("#more").is_visible()


def test_filters_by_flag_by_reason_and_by_what_rules_changed(page, long_address):
    page.goto(long_address)
    page.get_by_role("combobox", name="Flag").select_option("odd")
    assert visible(page) == [f"pairs/{i}/0" for i in range(0, 40, 8)]
    page.get_by_role("combobox", name="Flag").select_option("")
    page.get_by_role("combobox", name="Left out").select_option(index=1)  # "<script>..." sorts before "refusal"
    assert visible(page) == ["pairs/1/0", "pairs/3/0"]
    page.get_by_role("combobox", name="Left out").select_option("refusal")
    page.get_by_role("checkbox", name="changed by rules").check()
    assert visible(page) == ["pairs/0/0"]
    page.locator(".card:visible summary", has_text="as it was answered: 4 words more").click()
    assert page.locator(".card:visible del", has_text="They may be friends.").is_visible()
    assert page.evaluate("window.hacked") is None


def test_a_reason_and_a_flag_in_a_table_lead_to_their_pictures(page, long_address):
    page.goto(long_address)
    page.locator("#left-out").get_by_role("link", name="refusal").click()
    assert visible(page) == ["pairs/0/0", "pairs/2/0"]
    page.locator("#links-and-checks").get_by_role("link", name="odd").click()
    assert page.get_by_role("combobox", name="Left out").input_value() == ""
    assert len(visible(page)) == 5
