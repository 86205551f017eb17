"""Engines answer caption requests; each module is one of them."""

from pipelines.engines.engine import Engine
from pipelines.engines.template import TemplateEngine

__all__ = ["ENGINES"]

ENGINES: dict[str, type[Engine]] = {"template": TemplateEngine}
