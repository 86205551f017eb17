"""predict: what a detector sees in pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli import options
from cli.checkpoints import Checkpoint, checkpoint_named, gpu_wanted
from cli.screen import screen

if TYPE_CHECKING:
    from rich.table import Table

    from cli.screen import Screen
    from llmdet.questions import Question
    from pipelines.predict import Format, PredictOutcome
    from pipelines.predictions import Prediction

_ROWS = 100  # of the table, and drawn pictures that are listed; files hold all


_Pictures = Annotated[
    list[str],
    typer.Argument(metavar="IMAGE...", help="Pictures, videos, folders, web addresses, .txt files that list them."),
]
_Text = Annotated[
    str | None, typer.Option("--text", "-t", help='What to look for: "dog . red cup .", or a sentence with --mode.')
]
_Names = Annotated[str | None, typer.Option(help="Instead of --text: a file with a name in each line.")]
_Mode = Annotated[
    Literal["detection", "grounding", "referring", "spans"] | None,
    typer.Option(
        help="The text is a list of names, a sentence whose noun phrases are found, an expression for one thing.",
        show_default="detection; spans with --spans",
    ),
]
_Spans = Annotated[
    str | None, typer.Option(help="Places of each phrase in the text, in characters: [[[0, 5]], [[10, 14]]].")
]
_Out = Annotated[str, typer.Option("--out", "-o", help="Folder for all that is written.")]
_Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--format", "-f", help="pictures, coco or odvg, beside predictions.json; repeat it.", show_default="pictures"
    ),
]
_Threshold = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Boxes below this score are not shown.", show_default="the checkpoint's, 0.3"),
]
_TopK = Annotated[int | None, typer.Option(min=1, help="Most boxes of a picture.", show_default="100; referring: 1")]
_Nms = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="IoU above which the worse of two boxes of a phrase goes.", show_default="off"),
]
_Protocol = Annotated[Literal["llmdet", "mm_grounding_dino"], typer.Option(help="Of referring: which box is the best.")]
_Every = Annotated[str, typer.Option(help="Frames of a video: one each 0.5s, or each 30 frames.")]
_NamesPerPrompt = Annotated[int | None, typer.Option(min=1, help="Names asked at once.", show_default="as many as fit")]
_Captions = Annotated[
    bool, typer.Option("--captions", help="What the detector's caption heads say of pictures and boxes.")
]
_BatchSize = Annotated[int | None, typer.Option(min=1, help="Pictures.", show_default="8 on a GPU, else 1")]
_Workers = Annotated[int, typer.Option(min=0, help="Ray actors for many pictures; 0: this process.")]


def predict(
    images: _Pictures,
    text: _Text = None,
    names: _Names = None,
    mode: _Mode = None,
    spans: _Spans = None,
    checkpoint: Checkpoint = None,
    to: _Out = "predictions",
    format: _Formats = None,
    threshold: _Threshold = None,
    top_k: _TopK = None,
    nms: _Nms = None,
    protocol: _Protocol = "llmdet",
    every: _Every = "1s",
    names_per_prompt: _NamesPerPrompt = None,
    captions: _Captions = False,
    batch_size: _BatchSize = None,
    workers: _Workers = 0,
    gpu: options.Gpu = None,
    workspace: options.Workspace = "workspace",
    as_json: options.AsJson = False,
) -> None:
    """Look for what a text names in pictures: boxes as a table, as files and drawn.

    \b
    llmdet-data predict photo.jpg --text "dog . red cup ."
    llmdet-data predict photos --text "There are many apples here." --mode grounding --format odvg
    llmdet-data predict clip.mp4 --text "the man on the left" --mode referring --every 0.5s
    """
    with screen("predict", workspace, as_json) as out:
        from llmdet.files import absolute
        from pipelines.doctor import require_extra
        from pipelines.predict import PredictSettings
        from pipelines.predict import predict as look

        require_extra("train")
        question = _question(text, names, mode, spans)
        settings = PredictSettings(
            threshold=threshold,
            top_k=top_k,
            nms_iou=nms,
            formats=_formats(format),
            every=every,
            names_per_prompt=names_per_prompt,
            protocol=protocol,
            captions=captions,
            batch_size=batch_size,
            workers=workers,
        )
        model = checkpoint_named(checkpoint, workspace)
        with out.watch("predict") as progress:
            outcome = look(images, question, model, absolute(to), settings, gpu=gpu_wanted(gpu), progress=progress)
        asked = {"mode": question.mode, "text": question.text, "threshold": outcome.threshold}
        out.result = {**asked, "images": outcome.images, "out": absolute(to), "json": outcome.json}
        out.result |= {"files": outcome.written}
        _show(out, outcome)


def _show(out: Screen, outcome: PredictOutcome) -> None:
    """What could not be used, the table of boxes, captions, and the files."""
    faults = [picture.error for picture in outcome.images if picture.error]
    for error in faults[:_ROWS]:
        out.note(f"note: {error}")
    if len(faults) == len(outcome.images):
        out.too_many_faults.append(f"none of the {len(faults)} pictures could be used")
    found = sum(len(picture.boxes) for picture in outcome.images)
    out.shown += [_table(outcome.images)] if found else []
    hidden = f"; the first {_ROWS} are shown, {outcome.json} has all" if found > _ROWS else ""
    seen = len(outcome.images) - len(faults)
    out.shown.append(f"{found} boxes of at least {outcome.threshold:g} in {seen} pictures{hidden}")
    told = [f"  {picture.title}: {picture.caption}" for picture in outcome.images if picture.caption]
    out.shown += told[:_ROWS]
    drawn = [picture.drawn for picture in outcome.images if picture.drawn]
    out.shown += [f"  {url}" for url in (*drawn[:_ROWS], *outcome.written)]
    out.shown += [f"  and {len(drawn) - _ROWS} more drawn pictures"] if len(drawn) > _ROWS else []


def _formats(chosen: list[str] | None) -> tuple[Format, ...]:
    """As they were typed: the settings say which there are."""
    from typing import cast

    return cast("tuple[Format, ...]", tuple(chosen or ["pictures"]))


def _question(text: str | None, names: str | None, mode: Any, spans: str | None) -> Question:
    from llmdet.errors import SettingError
    from llmdet.questions import ask, of_names
    from pipelines.pictures import lines_of

    if (text is None) == (names is None):
        raise SettingError('say what to look for: either --text "dog . red cup ." or --names FILE')
    if names is not None:
        if mode not in (None, "detection") or spans is not None:
            raise SettingError("--names are looked for as they are: no --mode and no --spans")
        return of_names([" ".join(line.split()) for line in lines_of(names)])
    return ask(text or "", mode or ("spans" if spans is not None else "detection"), spans)


def _table(images: list[Prediction]) -> Table:
    """The boxes with their numbers in the drawn pictures."""
    from rich.table import Column, Table
    from rich.text import Text

    right = [Column(head, justify="right") for head in ("score", "x1", "y1", "x2", "y2")]
    told = ["caption"] if any(picture.captions for picture in images) else []
    table = Table("picture", Column("box", justify="right"), "phrase", *right, *told)
    rows = ((picture, number) for picture in images for number in range(len(picture.boxes)))
    for (picture, number), _ in zip(rows, range(_ROWS), strict=False):
        values = (f"{picture.scores[number]:.3f}", *(f"{value:.1f}" for value in picture.boxes[number]))
        said = [Text(picture.captions[number])] if told else []
        table.add_row(Text(picture.title), str(number + 1), Text(picture.phrases[number]), *values, *said)
    return table
