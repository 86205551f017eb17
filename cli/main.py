"""The console script `llmdet-data`: one typer app, no heavy import before a command runs."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import data, demo, evaluating, exporting, grounding, learning, looking, loop, predicting, prompts, weights
from pipelines.stop import listen

app = typer.Typer(
    name="llmdet-data",
    help="From public annotations to captions, GroundingCap records and an evaluated open-vocabulary detector.",
    epilog="Exit codes: 0 done, 1 error of the input or the machine, 2 usage, 3 done with too many faults, 130 Ctrl-C, "
    "143 SIGTERM.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a traceback is our bug: plain, and without the values of variables
    context_settings={"help_option_names": ["-h", "--help"]},
)

WHOLE, DATA, DETECTOR, LOOK = "The whole loop", "Data, stage by stage", "Detector", "Look and check"

app.command(rich_help_panel=WHOLE)(loop.quickstart)
app.command(rich_help_panel=WHOLE)(loop.run)
app.command(rich_help_panel=DATA)(data.ingest)
app.command(rich_help_panel=DATA)(data.caption)
app.command(rich_help_panel=DATA)(grounding.ground)
app.command(rich_help_panel=DATA)(data.retry)
app.command(rich_help_panel=DATA)(data.refine)
app.command(rich_help_panel=DATA)(data.merge)
app.command(rich_help_panel=DATA)(data.export)
app.command(rich_help_panel=DATA)(data.report)
app.command(rich_help_panel=DETECTOR)(learning.train)
app.command(rich_help_panel=DETECTOR)(evaluating.evaluate)
app.command(rich_help_panel=DETECTOR)(predicting.predict)
app.command(rich_help_panel=DETECTOR)(exporting.export_model)
app.command(rich_help_panel=DETECTOR)(weights.convert_weights)
app.command(rich_help_panel=LOOK)(demo.demo)
app.command(rich_help_panel=LOOK)(looking.status)
app.command(rich_help_panel=LOOK)(looking.doctor)
app.command(rich_help_panel=LOOK)(looking.sources)
app.command(rich_help_panel=LOOK)(prompts.prompts)


def _version(asked: bool) -> None:
    if asked:
        from llmdet import __version__

        typer.echo(f"llmdet-data {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say it and exit.")
    ] = False,
) -> None:
    """From public annotations to captions, GroundingCap records and an evaluated open-vocabulary detector."""


def main() -> None:
    """Run the command that was typed."""
    listen()
    app(prog_name="llmdet-data")
