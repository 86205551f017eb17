"""demo: a web page of this machine: look for things in pictures, and leaf through the records of a workspace.

The page asks nobody else: fonts, scripts and styles come with gradio, a policy in every answer forbids the rest, and
gradio's own calls home are off. What data or a model says is shown as text, never as markup. Pictures of records come
from the workspace's roots; the page names a record by its source and number, never by a path.
"""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from llmdet.draw import PALETTE, colours_of, draw_boxes
from llmdet.errors import LlmdetError, SettingError
from llmdet.images import open_image
from llmdet.questions import Mode, ask
from llmdet.record import Box, Record, Region
from pipelines.shelf import Shelf

if TYPE_CHECKING:
    import gradio
    from fastapi import FastAPI, Request, Response
    from PIL import Image

    from detector.predict import Detections, Detector

PAGE = 12  # records at a time
MOST_BOXES = 100  # of a picture
LONGEST_TEXT = 20_000  # characters
UPLOAD = "64mb"
_LONGEST_SIDE = 1280  # pixels of a picture that is shown
_THUMBNAIL = 480
_HERE = {"127.0.0.1", "localhost", "::1"}
# Everything from here; gradio's page needs scripts and styles in it, and evaluates templates of its own.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
MODES: dict[Mode, tuple[str, str]] = {  # what the page calls a mode, and an example
    "detection": ("Names", "dog . red cup ."),
    "grounding": ("Sentence", "Two dogs sit near a red ball."),
    "referring": ("One thing", "the dog on the left"),
}
_BOX_HEADS = ["box", "phrase", "score", "x1", "y1", "x2", "y2"]
_Drawn = tuple["Image.Image", list[list[str]], str]  # the picture, rows of its boxes, a line about them
_Marked = list[tuple[str, str | float | None]]  # pieces of a text, some with the numbers of their boxes


@dataclass(frozen=True)
class Finder:
    """The trained model behind the page; loaded once, used by one question at a time."""

    checkpoint: str
    gpu: bool = False

    @cached_property
    def model(self) -> Detector:
        from detector.predict import Detector

        return Detector.load(self.checkpoint, "cuda" if self.gpu else "cpu")

    def threshold(self, mode: Mode) -> float:
        from detector.thresholds import threshold_of

        return threshold_of(self.checkpoint, mode)

    def look(self, path: str | None, mode: Mode, text: str, threshold: float) -> _Drawn:
        """The picture with what was found. Raises LlmdetError for what a person can mend."""
        from detector.looks import find

        if not path:
            raise SettingError("choose a picture first")
        if len(text) > LONGEST_TEXT:
            raise SettingError(f"the text has {len(text):,} characters; {LONGEST_TEXT:,} are the most")
        question = ask(text, mode)
        picture = open_image(path, "applied")
        most = 1 if mode == "referring" else MOST_BOXES
        found = find(self.model, [picture], question, top_k=most, threshold=threshold)[0]
        return shown(picture, found), _rows(found), _line(found, threshold)


def shown(picture: Image.Image, found: Detections) -> Image.Image:
    """A picture of at most 1280 pixels with its boxes."""
    reduced = picture.copy()
    reduced.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    scale = np.array([reduced.width / picture.width, reduced.height / picture.height] * 2)
    return draw_boxes(reduced, np.asarray(found.boxes) * scale, found.phrases, list(found.scores))


def _rows(found: Detections) -> list[list[str]]:
    each = zip(found.boxes.tolist(), found.scores.tolist(), found.phrases, strict=True)
    return [
        [str(number), phrase, f"{score:.3f}", *(f"{value:.0f}" for value in box)]
        for number, (box, score, phrase) in enumerate(each, 1)
    ]


def _line(found: Detections, threshold: float) -> str:
    count = len(found.scores)
    if not count:
        return f"Nothing with a score of at least {threshold:g}. Try a lower one."
    return f"{count} {'box' if count == 1 else 'boxes'} with a score of at least {threshold:g}"


# --- records --------------------------------------------------------------------------------------------------------


def numbered(record: Record) -> list[tuple[Region, Box]]:
    """Boxes in the order of their numbers on the picture, from 1."""
    pairs = [(region, box) for region in record.regions for box in region.boxes]
    return sorted(pairs, key=lambda pair: pair[1].order)


def drawn(record: Record, photo: Image.Image, longest: int) -> Image.Image:
    """A record's photo with its boxes, at most `longest` pixels a side."""
    reduced = photo.copy()
    reduced.thumbnail((longest, longest))
    pairs = numbered(record)
    boxes = np.array([box.xyxy for _, box in pairs], dtype=np.float64).reshape(-1, 4)
    scale = np.array([reduced.width / record.width, reduced.height / record.height] * 2)
    return draw_boxes(reduced, boxes * scale, [_name(region) for region, _ in pairs], [box.score for _, box in pairs])


def _name(region: Region) -> str:
    return ", ".join(dict.fromkeys(region.phrases))


def marked(record: Record) -> _Marked:
    """The text in pieces: phrases with the numbers of their boxes, absent names, and what is between them."""
    numbers: dict[int, list[str]] = {}
    for number, (region, _) in enumerate(numbered(record), 1):
        numbers.setdefault(id(region), []).append(str(number))
    spans = [(span, ", ".join(numbers.get(id(one), ["no box"]))) for one in record.regions for span in one.spans]
    spans += [(span, "absent") for span in record.negatives]
    pieces: _Marked = []
    at = 0
    for (start, end), label in sorted(spans):
        if start < at:
            continue  # inside the phrase before it
        pieces += [(record.text[at:start], None)] if start > at else []
        pieces.append((record.text[start:end], label))
        at = end
    return [*pieces, (record.text[at:], None)] if at < len(record.text) else pieces


def colours(record: Record) -> dict[str, str]:
    """Of each label of `marked` the colour that its boxes have on the picture."""
    of_name = colours_of([_name(region) for region, _ in numbered(record)])
    found = {"absent": "#8a8f98", "no box": "#8a8f98"}
    for text, label in marked(record):
        region = next((one for one in record.regions if text.casefold() in map(str.casefold, one.phrases)), None)
        if isinstance(label, str) and label not in found and region and _name(region) in of_name:
            found[label] = "#{:02x}{:02x}{:02x}".format(*PALETTE[of_name[_name(region)]])
    return found


def spoken(record: Record) -> str:
    """All captions of the image, each with who wrote it."""
    parts = []
    for caption in record.captions:
        how = caption.provenance
        by = " ".join(part for part in (how.engine, how.model) if part)
        parts.append(f"{caption.text}\n({by})" if by else caption.text)
    return "\n\n".join(parts)


def box_rows(record: Record) -> list[list[str]]:
    """A row for each box: number, phrase, origin, score, place, caption."""
    return [
        [
            str(number),
            _name(region),
            box.origin,
            "" if box.score is None else f"{box.score:.3f}",
            ", ".join(f"{value:.0f}" for value in box.xyxy),
            box.caption.text if box.caption else "",
        ]
        for number, (region, box) in enumerate(numbered(record), 1)
    ]


# --- the page -------------------------------------------------------------------------------------------------------


def page(finder: Finder | None, shelf: Shelf | None) -> gradio.Blocks:
    """What the person sees; a tab without its data is not there."""
    import gradio as gr

    with gr.Blocks(title="llmdet-data", analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
        gr.HTML("<h1>llmdet-data</h1>", elem_id="head")
        if finder:
            with gr.Tab("Look for things"):
                _look_tab(finder)
        if shelf:
            with gr.Tab("Records"):
                _records_tab(shelf)
    return blocks


def _look_tab(finder: Finder) -> None:
    import gradio as gr

    with gr.Row():
        with gr.Column(scale=2):
            picture = gr.Image(
                label="Picture", type="filepath", sources=["upload", "clipboard"], image_mode=None, height=320
            )
            mode = gr.Radio(
                [(name, key) for key, (name, _) in MODES.items()], value="detection", label="The text is", type="value"
            )
            text = gr.Textbox(label="Look for", placeholder=MODES["detection"][1], lines=2, max_length=LONGEST_TEXT)
            threshold = gr.Slider(0, 1, finder.threshold("detection"), step=0.01, label="Lowest score")
            button = gr.Button("Find", variant="primary")
        with gr.Column(scale=3):
            result = gr.Image(label="Found", format="jpeg", interactive=False, height=560, buttons=["download"])
            said = gr.Textbox(label="Result", interactive=False, lines=1)
            table = _table(_BOX_HEADS, ["8%", "36%", "12%", "11%", "11%", "11%", "11%"])

    def change(kind: Mode) -> tuple[Any, float]:
        example = MODES.get(kind, MODES["detection"])[1]
        return gr.Textbox(placeholder=example), finder.threshold(kind)

    def look(path: str | None, kind: Mode, words: str, least: float) -> tuple[Any, list[list[str]], str]:
        try:
            return finder.look(path, kind, words, least)
        except LlmdetError as error:
            return None, [], f"error: {error}"

    mode.change(change, mode, [text, threshold], api_visibility="private")
    gr.on(
        [button.click, text.submit],
        look,
        [picture, mode, text, threshold],
        [result, table, said],
        api_visibility="private",
        concurrency_limit=1,
    )


def _records_tab(shelf: Shelf) -> None:
    import gradio as gr

    everything = f"all ({shelf.count():,} records)"
    choices = [(everything, "")] + [(f"{name} ({shelf.count(name):,})", name) for name in shelf.sources]
    with gr.Row(equal_height=True):
        source = gr.Dropdown(choices, value="", label="Source", scale=3, filterable=False)
        number = gr.Number(1, label=_of_pages(shelf, ""), precision=0, minimum=1, scale=1)
        back = gr.Button("Previous", scale=1)
        on = gr.Button("Next", scale=1)
    with gr.Row():
        with gr.Column(scale=2):
            pictures = gr.Gallery(
                label="Records",
                show_label=False,
                columns=3,
                height=640,
                allow_preview=False,
                format="jpeg",
                object_fit="contain",
                buttons=[],
            )
        with gr.Column(scale=3):
            name = gr.Textbox(label="Record", interactive=False)
            photo = gr.Image(label="Photo", format="jpeg", interactive=False, height=420, buttons=["download"])
            text = gr.HighlightedText(label="Text, with the numbers of its boxes", show_legend=False)
            captions = gr.Textbox(label="Captions", interactive=False, lines=2)
            heads = ["box", "phrase", "origin", "score", "x1, y1, x2, y2", "caption"]
            table = _table(heads, ["8%", "22%", "12%", "10%", "20%", "28%"])
    detail = [name, photo, text, captions, table]

    def turn(chosen: str, at: float | None, by: int) -> tuple[Any, ...]:
        last = max(1, -(-shelf.count(chosen or None) // PAGE))
        here = min(max(int(at or 1) + by, 1), last)
        records = shelf.page(chosen or None, here, PAGE)
        cards = [_card(shelf, record) for record in records]
        field = gr.Number(here, label=_of_pages(shelf, chosen))
        return field, gr.Gallery(cards, selected_index=0), *_detail(shelf, records[0])

    def choose(chosen: str, at: float | None, event: gr.SelectData) -> tuple[Any, ...]:
        records = shelf.page(chosen or None, int(at or 1), PAGE)
        index = event.index if isinstance(event.index, int) and 0 <= event.index < len(records) else 0
        return _detail(shelf, records[index])

    choose.__annotations__["event"] = gr.SelectData  # gradio looks there, and cannot resolve a name of this function
    views = [number, pictures, *detail]
    private: dict[str, Any] = {"api_visibility": "private"}
    source.change(lambda chosen: turn(chosen, 1, 0), source, views, **private)
    number.submit(lambda chosen, at: turn(chosen, at, 0), [source, number], views, **private)
    back.click(lambda chosen, at: turn(chosen, at, -1), [source, number], views, **private)
    on.click(lambda chosen, at: turn(chosen, at, 1), [source, number], views, **private)
    pictures.select(choose, [source, number], detail, **private)
    gr.on(None, lambda: turn("", 1, 0), None, views, **private)


def _table(heads: list[str], widths: list[str | int]) -> gradio.Dataframe:
    """A table of texts: never markdown or HTML."""
    import gradio as gr

    return gr.Dataframe(
        headers=heads, datatype="str", label="Boxes", interactive=False, wrap=True, column_widths=widths, buttons=[]
    )


def _of_pages(shelf: Shelf, source: str) -> str:
    return f"Page of {-(-shelf.count(source or None) // PAGE):,}"


def _card(shelf: Shelf, record: Record) -> tuple[Image.Image, str]:
    from PIL import Image

    try:
        return drawn(record, shelf.photo(record), _THUMBNAIL), record.id
    except LlmdetError:
        return Image.new("RGB", (_THUMBNAIL, _THUMBNAIL * 3 // 4), (205, 208, 214)), f"{record.id} (no photo)"


def _detail(shelf: Shelf, record: Record) -> tuple[Any, ...]:
    import gradio as gr

    title = " | ".join([record.id, *record.flags])
    try:
        photo = drawn(record, shelf.photo(record), _LONGEST_SIDE)
    except LlmdetError as error:
        photo, title = None, f"{record.id}: {error}"
    text = gr.HighlightedText(marked(record), color_map=colours(record))
    return title, photo, text, spoken(record), box_rows(record)


# --- the server -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Demo:
    """A page that listens on `address` until it is stopped."""

    address: str
    _server: Any
    _socket: socket.socket

    def run(self) -> None:
        """Serve until Ctrl-C or `stop`."""
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        self._server.should_exit = True


@contextmanager
def demo(finder: Finder | None, shelf: Shelf | None, *, host: str = "127.0.0.1", port: int = 7860) -> Iterator[Demo]:
    """The page, ready to `run`; port 0 takes any that is free. Raises SettingError where the port cannot be had.

    What is uploaded and drawn lies in a temporary folder, which is gone afterwards.
    """
    if not (finder or shelf):
        raise SettingError("there is nothing to show: give a --checkpoint, or a --workspace with records")
    if finder:
        finder.model  # noqa: B018  a checkpoint that is none is told before the page starts
    listening = _listen(host, port)
    with tempfile.TemporaryDirectory(prefix="llmdet-demo-") as folder, _gradio_alone(folder):
        import uvicorn

        config = uvicorn.Config(_app(page(finder, shelf), host), log_level="error", lifespan="on")
        shown_host = f"[{host}]" if ":" in host else host
        address = f"http://{shown_host}:{listening.getsockname()[1]}"
        with listening:
            yield Demo(address, _server_of(uvicorn, config), listening)


def _server_of(uvicorn: Any, config: Any) -> Any:
    """uvicorn's server; beside the main thread, where signals cannot be caught, it leaves them alone."""
    server = uvicorn.Server(config)
    if threading.current_thread() is not threading.main_thread():
        server.install_signal_handlers = lambda: None
    return server


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)  # who comes before the server runs waits for it
    except (OSError, OverflowError) as error:
        listening.close()
        raise SettingError(f"cannot listen on {host}, port {port}: {error}; choose another --port") from error
    return listening


@contextmanager
def _gradio_alone(folder: str) -> Iterator[None]:
    """gradio reads these when it is imported and when it writes: no calls home, and its files in one folder."""
    values = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_TEMP_DIR": folder}
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _app(blocks: gradio.Blocks, host: str) -> FastAPI:
    import gradio as gr
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    async def forbid_the_rest(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = _POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    app.middleware("http")(forbid_the_rest)
    if host in _HERE:  # a name that leads here is no way for other sites to talk to this page
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*_HERE, "[::1]"])
    return gr.mount_gradio_app(
        app,
        blocks,
        path="",
        theme=gr.themes.Default(
            primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        ),
        css=_STYLE,
        footer_links=[],
        show_error=False,
        max_file_size=UPLOAD,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
    )


_STYLE = "#head h1 { font-size: 1.3rem; margin: .2rem 0 } .gradio-container { max-width: 1500px !important }"
