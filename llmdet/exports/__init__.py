"""Exporters: Records to the formats that detectors and tools read."""

from llmdet.exports.coco import Coco
from llmdet.exports.exporter import Exported, Exporter
from llmdet.exports.fiftyone import FiftyOne
from llmdet.exports.groundingcap import GroundingCap
from llmdet.exports.hf import Hf
from llmdet.exports.label_studio import LabelStudio
from llmdet.exports.llava import Llava
from llmdet.exports.lvis import Lvis
from llmdet.exports.mdetr import Mdetr
from llmdet.exports.mmdet_config import MmdetConfig
from llmdet.exports.odvg import Odvg
from llmdet.exports.parquet import Parquet
from llmdet.exports.webdataset import WebDataset
from llmdet.exports.yolo import Yolo

__all__ = ["EXPORTERS", "Exported", "Exporter"]

# By the name that `--format` takes.
EXPORTERS: dict[str, type[Exporter]] = {
    "odvg": Odvg,
    "groundingcap": GroundingCap,
    "parquet": Parquet,
    "coco": Coco,
    "lvis": Lvis,
    "yolo": Yolo,
    "mdetr": Mdetr,
    "llava": Llava,
    "webdataset": WebDataset,
    "hf": Hf,
    "label-studio": LabelStudio,
    "fiftyone": FiftyOne,
    "mmdet": MmdetConfig,
}
