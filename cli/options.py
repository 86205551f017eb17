"""Options that several commands share, and what the shell completes for them."""

from __future__ import annotations

from typing import Annotated

import typer


def complete_source(incomplete: str) -> list[str]:
    """Names of the readers."""
    from llmdet.sources import SOURCES

    return sorted(name for name in SOURCES if name.startswith(incomplete))


def complete_ingested(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of the sources that the workspace on the command line holds."""
    from llmdet.workspace import Workspace

    workspace = Workspace.at(ctx.params.get("workspace") or "workspace")
    return [name for name in workspace.sources() if name.startswith(incomplete)]


def complete_export(incomplete: str) -> list[str]:
    """Names of the formats that are written."""
    from llmdet.exports import EXPORTERS

    return sorted(name for name in EXPORTERS if name.startswith(incomplete))


def complete_engine(incomplete: str) -> list[str]:
    """Names of the engines."""
    from pipelines.engines import ENGINES

    return sorted(name for name in ENGINES if name.startswith(incomplete))


def complete_prompt(incomplete: str) -> list[str]:
    """Ids of the prompts."""
    from llmdet.prompts import PROMPTS

    return sorted(name for name in PROMPTS if name.startswith(incomplete))


def complete_recipe(incomplete: str) -> list[str]:
    """Names of the bundled recipes; the shell itself completes files."""
    from pipelines.recipe import workflows

    return sorted(path.stem for path in workflows().glob("*.yaml") if path.stem.startswith(incomplete))


Workspace = Annotated[
    str,
    typer.Option("--workspace", "-w", envvar="LLMDET_WORKSPACE", help="Folder or fsspec URL that everything is in."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Last line of standard output: one JSON object.")]
Ingested = Annotated[
    str | None,
    typer.Option("--source", "-s", help="Only this source.", autocompletion=complete_ingested, show_default="all"),
]
NewSource = Annotated[
    str,
    typer.Option(
        "--source", "-s", help="Name of its tables; also the reader, without --format.", autocompletion=complete_source
    ),
]
Format = Annotated[
    str | None,
    typer.Option("--format", "-f", help="Reader (see: llmdet-data sources).", autocompletion=complete_source),
]
Annotations = Annotated[
    str | None, typer.Option("--annotations", help="What the reader reads: file or folder, below --data-root if given.")
]
Images = Annotated[str | None, typer.Option("--images", help="Folder of the photos, below --data-root if given.")]
DataRoot = Annotated[
    str | None, typer.Option("--data-root", envvar="LLMDET_DATA_ROOT", help="Folder that relative paths are below.")
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first records, for a try.")]
MaxFaults = Annotated[
    float, typer.Option("--max-faults", min=0, max=1, help="Share of faults above which the exit code is 3.")
]
Gpu = Annotated[bool | None, typer.Option("--gpu/--cpu", help="Where the detector runs.", show_default="GPU if there")]
