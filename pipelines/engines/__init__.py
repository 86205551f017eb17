"""Engines answer caption requests; each module is one of them."""

from pipelines.engines.engine import Engine
from pipelines.engines.openai import OpenAiEngine
from pipelines.engines.template import TemplateEngine
from pipelines.engines.transformers import TransformersEngine
from pipelines.engines.vllm import VllmEngine

__all__ = ["ENGINES"]

ENGINES: dict[str, type[Engine]] = {
    "openai": OpenAiEngine,
    "template": TemplateEngine,
    "transformers": TransformersEngine,
    "vllm": VllmEngine,
}
