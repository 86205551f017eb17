"""Prompts: named, versioned texts with the parsers of their answers."""

from llmdet.prompts.image import ImageDetailed, ImageHints, ImageShort
from llmdet.prompts.prompt import Prompt
from llmdet.prompts.region import RegionBatch, RegionCrop, RegionEach, RegionMark
from llmdet.prompts.template import TemplateImage, TemplateRegion

__all__ = ["PROMPTS"]

PROMPTS: dict[str, type[Prompt]] = {
    "image-detailed": ImageDetailed,
    "image-short": ImageShort,
    "image-hints": ImageHints,
    "region-batch": RegionBatch,
    "region-each": RegionEach,
    "region-crop": RegionCrop,
    "region-mark": RegionMark,
    "template-image": TemplateImage,
    "template-region": TemplateRegion,
}
