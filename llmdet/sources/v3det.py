"""V3Det: `annotations/v3det_2023_v1_{train,val}.json`, photos `images/<node>/<file>.jpg` below the image root.

One image, one annotation and one category of the file:

    {"id": 42, "file_name": "images/n07745046/21_371_39451_c.jpg", "width": 1024, "height": 683}
    {"id": 99, "image_id": 42, "category_id": 10612, "bbox": [212.5, 80.0, 310.0, 402.0], "area": 124620, "iscrowd": 0}
    {"id": 10612, "name": "Cricket (insect)", "name_zh": "...", "cat_info": "A leaping insect ...", "novel": false}

https://v3det.openxlab.org.cn, annotations CC BY 4.0, photos of several origins; train: 183,354 images, 1,357,377
boxes, 13,204 categories. There are no segmentations. Texts say names in lower case and with blanks for underscores, as
LLMDet's do; 45 names then stand for two categories ("battery", "Battery"), and 40 differ from
`category_name_13204_v3det_2023_v1.txt`. `extra` of a category keeps the name as
`original_name`, and not the long descriptions by language models (`cat_info_gpt*`) nor `exemplar_image`.

Categories stand in a tree: what is labelled "tabby" has no box for "cat". With `tree` (the file
`v3det_2023_v1_category_tree.json`) names above and below those of a photo are not drawn as its negatives.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

from llmdet.detection_text import Negatives
from llmdet.errors import FormatError
from llmdet.files import read_json
from llmdet.sources.coco import Coco
from llmdet.sources.source import Category

ADDRESS = "https://v3det.openxlab.org.cn"
LICENCE = "CC-BY-4.0 (annotations); photos of several origins"

_LONG = ("cat_info_gpt", "cat_info_gpt4", "cat_info_gpt4v", "exemplar_image")
_TABLES = ("categoryid2treeid", "ancestor2descendant", "descendant2ancestor")


@dataclass(frozen=True, kw_only=True)
class V3Det(Coco):
    """Reads one file; texts hold 50 names, the photo's own and drawn ones, as LLMDet's do."""

    name: str = "v3det"
    negatives: Negatives = 50
    tree: str = ""  # address of the category tree; none: any name may be drawn
    exhaustive: bool = False  # a thing has a box under one of its names, not under those above it
    licence: str = LICENCE
    address: str = ADDRESS

    form: ClassVar[str] = "v3det"

    def _category(self, row: Mapping[str, Any]) -> Category:
        category = super()._category({key: value for key, value in row.items() if key not in _LONG})
        said = category.name.replace("_", " ").lower()
        return replace(category, name=said, extra={**category.extra, "original_name": row["name"]})

    def _avoid(self, positives: Iterable[int]) -> Collection[str]:
        if not self.tree:
            return ()
        return {name for key in positives for name in self._relatives(key)}

    def _relatives(self, key: int) -> set[str]:
        """Names above and below a category."""
        nodes, down, up = self._tables
        node = nodes.get(str(key))
        related = (
            {other for table in (down, up) for other in _listed(table.get(node))} if isinstance(node, str) else set()
        )
        return {self._name_of_node[other] for other in related if other in self._name_of_node}

    @cached_property
    def _name_of_node(self) -> dict[str, str]:
        nodes = self._tables[0]
        pairs = ((nodes.get(str(key)), name) for key, name in self._named.items())
        return {node: name for node, name in pairs if isinstance(node, str)}

    @cached_property
    def _tables(self) -> tuple[dict[str, Any], ...]:
        document = read_json(self.tree)
        if not isinstance(document, dict) or not all(isinstance(document.get(table), dict) for table in _TABLES):
            raise FormatError(f"{self.tree} is not V3Det's category tree: expected the tables {', '.join(_TABLES)}")
        return tuple(document[table] for table in _TABLES)


def _listed(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
