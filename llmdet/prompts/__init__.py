"""Prompts: named, versioned texts with the parsers of their answers."""

from llmdet.prompts.prompt import Prompt
from llmdet.prompts.template import TemplateImage, TemplateRegion

__all__ = ["PROMPTS"]

PROMPTS: dict[str, type[Prompt]] = {"template-image": TemplateImage, "template-region": TemplateRegion}
