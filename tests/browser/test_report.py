"""The report in a real headless Chromium, opened from a file."""

from pathlib import Path

import pytest
from PIL import Image

from llmdet.record import Box, Caption, Record, Region, to_batch
from llmdet.report import Report, card_of, render
from llmdet.stats import Stats

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
