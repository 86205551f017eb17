"""ShareGPT4V: long captions by GPT-4V and by its student; LLMDet took those of COCO's photos.

A row of `sharegpt4v_instruct_gpt4-vision_cap100k.json` or `share-captioner_coco_lcs_sam_1246k_1107.json`:

    {"id": "000000121586", "image": "coco/train2017/000000121586.jpg", "conversations": [
      {"from": "human", "value": "What do you see happening in this image?\\n<image>"},
      {"from": "gpt", "value": "In the heart of a bustling market, a woman in a blue apron ..."}]}

https://huggingface.co/datasets/Lin-Chen/ShareGPT4V, CC BY-NC 4.0; 102,025 and 1,246,901 rows over COCO, LAION-CC-SBU,
SAM and others, told apart by the folder of the photo. The records are COCO photos with a caption and no boxes; attach
them to COCO's with `llmdet.attaching`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmdet.attaching import photo_key
from llmdet.sources.fields import FieldError, shown, text
from llmdet.sources.llava import Llava


@dataclass(frozen=True, kw_only=True)
class ShareGpt4v(Llava):
    """Reads the rows whose photo lies in `folder`, as COCO's image ids."""

    name: str = "sharegpt4v"
    folder: str = "train2017"  # below which a row's photo lies; "" takes all rows, their paths unchanged
    licence: str = "CC-BY-NC-4.0 (captions); Flickr terms (photos)"
    address: str = "https://huggingface.co/datasets/Lin-Chen/ShareGPT4V"

    def _image(self, row: dict[str, Any], where: str) -> str:
        return photo_in(self.folder, super()._image(row, where))

    def _image_id(self, row: dict[str, Any], image: str) -> str:
        return photo_key(image) if self.folder else super()._image_id(row, image)


def photo_in(folder: str, value: Any) -> str:
    """The photo's path below `folder`: `coco/train2017/a.jpg` is `a.jpg`. Raises FieldError for photos elsewhere."""
    path = text(value, "image")
    _, found, tail = f"/{path}".rpartition(f"/{folder}/")
    if not folder:
        return path
    if not found or not tail:
        raise FieldError("other_images", f"{shown(path)} is not below {folder}")
    return tail
