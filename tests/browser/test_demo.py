"""The demo in a real headless Chromium: a picture is uploaded, a button clicked, records leafed through."""

import json
import threading
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from PIL import Image

from llmdet.record import Box, Caption, Record, Region, to_batch
from llmdet.sources.source import SourceInfo
from llmdet.workspace import Manifest, Workspace

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'llmdet-data[dev]'")
pytest.importorskip("gradio", reason="needs gradio: pip install 'llmdet-data[demo]'")
CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
EVIL = '<script>window.hacked=1</script><img src="https://example.org/x.png" onerror="window.hacked=1">'
RECORDS = 30

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs Debian's chromium as {CHROMIUM}: apt install chromium"),
]


def record(source: str, number: int, image: str) -> Record:
    text = f"a dog number {number} and {EVIL}"
    region = Region(("dog",), ((2, 5),), (Box((20, 10, 120, 90), caption=Caption("a grey dog " + EVIL)),))
    return Record(
        id=f"{source}/{number}/0",
        source=source,
        image_id=str(number),
        text_id="0",
        kind="grounding",
        image=image,
        root=source,
        width=200,
        height=100,
        text=text,
        regions=(region,),
        captions=(Caption(f"Caption {number} " + EVIL),),
    )


def fill(workspace: Workspace, source: str, images: Path, records: list[Record]) -> None:
    table = workspace.records(source)
    part = table.write_part(0, "k", to_batch(records))
    info = SourceInfo(source, "folder", "CC0", "", str(images)).to_dict()
    table.commit(Manifest("ingest", "k", (part,), {"seconds": 0}, info=info))


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    from detector import checkpoint
    from detector.config import quickstart_model
    from pipelines.demo import Finder, demo
    from pipelines.shelf import Shelf

    place = tmp_path_factory.mktemp("demo")
    (place / "photos").mkdir()
    for number in range(RECORDS):
        Image.new("RGB", (200, 100), (60 + 4 * number, 120, 160)).save(place / "photos" / f"{number}.jpg")
    (place / "secret.jpg").write_bytes((place / "photos" / "0.jpg").read_bytes())
    workspace = Workspace.at(str(place / "workspace"))
    fill(workspace, "dogs", place / "photos", [record("dogs", i, f"{i}.jpg") for i in range(RECORDS)])
    fill(workspace, "outside", place / "photos", [record("outside", 0, "../secret.jpg")])
    checkpoint.write_model(place / "tiny", checkpoint.start(quickstart_model(), seed=1))
    with demo(Finder(str(place / "tiny")), Shelf.of(workspace), port=0) as page:
        served = threading.Thread(target=page.run, daemon=True)
        served.start()
        yield page.address
        page.stop()
        served.join(timeout=20)
        assert not served.is_alive()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    """The page; whatever a test does there, it asks only the demo itself and runs nothing that data says."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.set_default_timeout(60_000)
    page.goto(address)
    page.get_by_role("tab", name="Records").wait_for()
    yield page
    assert page.evaluate("window.hacked") is None
    outside = [url for url in asked if not url.startswith((address, "data:", f"blob:{address}"))]
    page.close()
    assert outside == []


def upload(page, place: Path) -> None:
    Image.new("RGB", (320, 200), (200, 40, 40)).save(place / "photo.png")
    page.locator("input[type=file]").first.set_input_files(place / "photo.png")
    page.locator("[data-testid=detailed-image], .image-frame img, [data-testid=image] img").first.wait_for()


def said(page, start: str) -> str:
    """What the line below the picture says, once it begins so."""
    page.wait_for_function(
        "start => [...document.querySelectorAll('textarea, input')].some(e => e.value.startsWith(start))", arg=start
    )
    values = page.evaluate("[...document.querySelectorAll('textarea, input')].map(e => e.value)")
    return next(value for value in values if value.startswith(start))


def shows(page, words: str) -> None:
    """Wait until a person can read these words on the page, outside of fields."""
    page.wait_for_function("words => document.body.innerText.includes(words)", arg=words)


def test_an_uploaded_picture_comes_back_with_boxes_and_a_table(page, tmp_path):
    upload(page, tmp_path)
    page.get_by_label("Look for").fill("red square . blue circle . " + EVIL)
    page.get_by_label("number input for Lowest score").fill("0")
    page.get_by_role("button", name="Find").click()
    assert said(page, "100 boxes") == "100 boxes with a score of at least 0"
    shows(page, "red square")
    width = page.locator("img[src*='gradio_api/file']").last.evaluate("i => i.decode().then(() => i.naturalWidth)")
    assert width == 640  # small pictures are enlarged


def test_what_is_missing_is_said_in_one_line(page, tmp_path):
    page.get_by_label("Look for").fill("dog")
    page.get_by_role("button", name="Find").click()
    assert said(page, "error: ") == "error: choose a picture first"
    upload(page, tmp_path)
    page.get_by_label("Look for").fill("...")
    page.get_by_role("button", name="Find").click()
    assert said(page, "error: the text names nothing")


def test_records_are_leafed_through_and_filtered(page):
    page.get_by_role("tab", name="Records").click()
    assert said(page, "dogs/0/0") == "dogs/0/0"
    assert said(page, "Caption 0") == "Caption 0 " + EVIL
    page.get_by_role("button", name="Next").click()
    assert said(page, "dogs/12/0") == "dogs/12/0"
    page.locator(".thumbnail-lg, .gallery-item button").nth(2).click()
    assert said(page, "dogs/14/0") == "dogs/14/0"
    shows(page, "a grey dog " + EVIL)
    page.get_by_label("Source").click()
    page.get_by_role("option", name="outside (1)").click()
    assert said(page, "outside/0/0: ").startswith("outside/0/0: path_outside_root")


def status(url: str, **headers: str) -> int:
    from urllib.error import HTTPError

    try:
        with urlopen(Request(url, headers=headers), timeout=20) as answer:
            return answer.status
    except HTTPError as error:
        return error.code


def test_no_path_from_outside_reaches_the_disk(address):
    here = Path(__file__).resolve()
    assert status(f"{address}/gradio_api/file={here}") == 403
    assert status(f"{address}/gradio_api/file=/etc/passwd") == 403
    assert status(f"{address}/gradio_api/file=../../../etc/passwd") in (403, 404)
    assert status(address, Host="evil.example") == 400
    assert status(address) == 200


def test_the_page_names_no_other_place_and_forbids_it(address):
    with urlopen(address, timeout=20) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'self';")
    assert "http" not in policy
    with urlopen(f"{address}/config", timeout=20) as answer:
        config = json.load(answer)
    assert config["analytics_enabled"] is False
