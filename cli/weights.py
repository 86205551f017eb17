"""convert-weights: mmdet's checkpoints become model folders, and the other way round."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from cli import options
from cli.screen import screen


def convert_weights(
    source: Annotated[
        str, typer.Argument(metavar="WEIGHTS", help="A .pth of mmdet or LLMDet; for mmdet a model folder or hub id.")
    ],
    out_folder: Annotated[str, typer.Option("--out", "-o", help="New folder.")],
    to: Annotated[Literal["transformers", "mmdet"], typer.Option("--to", help="Format to write.")] = "transformers",
    like: Annotated[
        str,
        typer.Option(
            "--like", help="Folder or hub id of a model of the same shape; only for other sizes than T, B, L."
        ),
    ] = "",
    tokenizer: Annotated[
        str | None,
        typer.Option("--tokenizer", help="Folder or hub id of bert-base-uncased.", show_default="from the hub"),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option("--part", help="Entry of the .pth that holds the weights.", show_default="state_dict or model"),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Turn weights of mmdet into a model folder for this program and plain transformers, or back; no pickle is run."""
    with screen("convert-weights", None, as_json) as out:
        from dataclasses import asdict

        from llmdet.files import absolute
        from pipelines.doctor import require_extra

        require_extra("train")
        from detector.weights import convert

        with out.watch("convert-weights"):
            if to == "mmdet":
                done = convert.to_mmdet(source, absolute(out_folder))
            else:
                chosen = tokenizer or convert.TOKENIZER
                done = convert.to_transformers(source, absolute(out_folder), like=like, tokenizer=chosen, part=part)
        out.result = asdict(done)
        out.shown.append(f"{done.weights} weights in {done.out}")
        if done.aside:
            families = sorted({name.split(".")[0] for name in done.aside})
            out.shown.append(f"kept aside under mmdet's names: {len(done.aside)} ({', '.join(families)})")
