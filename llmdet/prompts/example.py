"""One record that every prompt is shown on, and the hash that says whether a prompt's words have changed."""

from __future__ import annotations

import hashlib
from dataclasses import asdict

import orjson

from llmdet.prompts.prompt import Prompt
from llmdet.record import Box, Record, Region

EXAMPLE = Record(
    id="example/1/0",
    source="example",
    image_id="1",
    text_id="0",
    kind="grounding",
    image="kitchen.jpg",
    root="example",
    width=640,
    height=480,
    text="Two red cups next to a sleeping dog",
    regions=(
        Region(("Two red cups",), ((0, 12),), (Box((96.0, 120.0, 160.0, 192.0)), Box((176.0, 120.5, 240.0, 190.0), 1))),
        Region(("a sleeping dog",), ((21, 35),), (Box((256.0, 96.0, 608.0, 384.0), 2),)),
    ),
    image_sha256="0" * 64,
)


def prompt_hash(prompt: Prompt) -> str:
    """12 hexadecimal digits of everything that a prompt says about `EXAMPLE`: its words, schema and view.

    The provenance of captions holds it beside id and version, and a test pins it, so that words cannot change alone.
    """
    said = [asdict(ask) for ask in prompt.render(EXAMPLE)]
    return hashlib.sha256(orjson.dumps([prompt.id, prompt.version, said])).hexdigest()[:12]
