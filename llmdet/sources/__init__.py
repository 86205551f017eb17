"""Readers of public on-disk formats. Each yields Records, and a Reject for whatever it leaves out."""

from llmdet.sources.coco import Coco
from llmdet.sources.source import Source

__all__ = ["SOURCES"]

SOURCES: dict[str, type[Source]] = {"coco": Coco}
