"""Readers of public on-disk formats. Each yields Records, and a Reject for whatever it leaves out."""

from llmdet.sources.asv2 import Asv2
from llmdet.sources.coco import Coco
from llmdet.sources.flickr30k import Flickr30k
from llmdet.sources.folder import Folder
from llmdet.sources.gqa import Gqa
from llmdet.sources.grit import Grit
from llmdet.sources.llava import Llava
from llmdet.sources.lvis import Lvis
from llmdet.sources.objects365 import Objects365
from llmdet.sources.odvg import Odvg
from llmdet.sources.openimages import OpenImages
from llmdet.sources.refcoco import RefCoco
from llmdet.sources.sharegpt4v import ShareGpt4v
from llmdet.sources.source import Source
from llmdet.sources.v3det import V3Det
from llmdet.sources.visual_genome import VisualGenome
from llmdet.sources.voc import Voc
from llmdet.sources.yolo import Yolo

__all__ = ["SOURCES"]

# What recipes and --source call the readers.
SOURCES: dict[str, type[Source]] = {
    "asv2": Asv2,
    "coco": Coco,
    "flickr30k": Flickr30k,
    "folder": Folder,
    "gqa": Gqa,
    "grit": Grit,
    "llava": Llava,
    "lvis": Lvis,
    "objects365": Objects365,
    "odvg": Odvg,
    "openimages": OpenImages,
    "refcoco": RefCoco,
    "sharegpt4v": ShareGpt4v,
    "v3det": V3Det,
    "visual_genome": VisualGenome,
    "voc": Voc,
    "yolo": Yolo,
}
