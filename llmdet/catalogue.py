"""What each reader's data set is called, where its files lie below the data root, and how large it was published.

The tree is LLMDet's `grounding_data/`, with the raw annotation files beside the finished jsonl that LLMDet publishes.
`annotations` names files in the order in which they are preferred: the first that is there is read. `finished` is read
where none of them is. Licences and addresses are the readers' own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from fsspec.core import url_to_fs

from llmdet import files
from llmdet.leaks import Space
from llmdet.sources import SOURCES
from llmdet.sources.folder import is_picture
from llmdet.sources.odvg import FINISHED
from llmdet.sources.source import Source

DATA_ROOT = "grounding_data"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One data set. Paths are relative to the data root; empty ones have no usual place."""

    title: str  # as published
    annotations: tuple[str, ...] = ()
    inside: str = ""  # what a folder among them must hold to be one
    images: str = ""
    finished: str = ""  # LLMDet's jsonl of it
    finished_boxes: Literal["human", "pseudo"] = "human"
    options: Mapping[str, Any] = field(default_factory=dict)  # further fields of the reader under this layout
    beside: tuple[str, ...] = ()  # further files, which only some settings need
    pictures: int = 0  # below `images` when all is there; 0: not published, or photos of many sets lie there
    counts: Mapping[str, int] = field(default_factory=dict)  # as published
    photo_ids: Space = "none"
    address: str = ""  # where its usual files are, of a format whose reader states no address


CATALOGUE: dict[str, Entry] = {
    "asv2": Entry(
        title="All-Seeing V2, detailed descriptions",
        annotations=("asv2/rec_detailed_description_wo_square_pad.json",),
        images="coco/train2017",
        counts={"rows": 127_000, "descriptions": 42_000},
        photo_ids="coco",
    ),
    "coco": Entry(
        title="COCO 2017 train",
        annotations=("coco/annotations/instances_train2017.json",),
        images="coco/train2017",
        finished="coco/annotations/instances_train2017_vg_merged6.jsonl",
        pictures=118_287,
        counts={"images": 118_287, "boxes": 860_001, "classes": 80},
        photo_ids="coco",
    ),
    "flickr30k": Entry(
        title="Flickr30k Entities",
        annotations=(
            "flickr30k_entities",
            "flickr30k_entities/annotations.zip",
            "flickr30k_entities/final_flickr_separateGT_train.json",
        ),
        inside="Annotations",
        images="flickr30k_entities/flickr30k_images",
        finished="flickr30k_entities/flickr_train_vg7.jsonl",
        beside=tuple(f"flickr30k_entities/{name}" for name in ("train.txt", "val.txt", "test.txt")),
        pictures=31_783,
        counts={"images": 31_783, "sentences": 158_915, "boxes": 275_775},
        photo_ids="flickr",
    ),
    "folder": Entry(title="a folder of one's own pictures", photo_ids="any"),
    "gqa": Entry(
        title="GQA, as GLIP's GoldG or as scene graphs",
        annotations=("gqa/final_mixed_train_no_coco.json", "gqa/train_sceneGraphs.json"),
        images="gqa/images",
        finished="gqa/gqa_train_vg7.jsonl",
        beside=("gqa/image_data.json",),
        counts={"captions with COCO's": 1_107_631, "train graphs": 74_942, "val graphs": 10_696},
        photo_ids="visual_genome",
    ),
    "grit": Entry(
        title="GRIT (Kosmos-2)",
        annotations=("grit/annotations",),
        images="grit/images",
        counts={"rows": 20_500_000},
    ),
    "llava": Entry(
        title="LLaVA-ReCap-558K, or LLaVA-Pretrain",
        annotations=("llava_cap/LLaVA-ReCap-558K", "llava_cap/blip_laion_cc_sbu_558k.json"),
        images="llava_cap/images",
        finished="llava_cap/LLaVA-ReCap-558K_tag_box_vg7.jsonl",
        finished_boxes="pseudo",
        options={"unpack": False},  # the photos are those of LLaVA-Pretrain's images.zip, under the same ids
        pictures=558_128,
        counts={"rows": 558_128},
    ),
    "lvis": Entry(
        title="LVIS v1 train",
        annotations=("coco/annotations/lvis_v1_train.json",),
        images="coco",
        counts={"images": 100_170, "boxes": 1_270_141, "classes": 1_203},
        photo_ids="coco",
    ),
    "objects365": Entry(
        title="Objects365 v2 train",
        annotations=("objects365v2/annotations/zhiyuan_objv2_train.json",),
        images="objects365v2/train",
        counts={"images": 1_742_289, "boxes": 25_407_598, "classes": 365},
    ),
    "odvg": Entry(
        title="GroundingCap-1M of LLMDet, or any ODVG jsonl",
        counts={"records": 1_120_000},
        photo_ids="any",
        address=FINISHED,
    ),
    "openimages": Entry(
        title="OpenImages V6 train",
        annotations=("openimages/annotations/oidv6-train-annotations-bbox.csv",),
        images="openimages/train",
        beside=("openimages/annotations/class-descriptions-boxable.csv",),
        pictures=1_743_042,
        counts={"images": 1_743_042, "boxes": 14_610_229, "classes": 600},
    ),
    "refcoco": Entry(
        title="RefCOCO, and + and g in the same way",
        annotations=("refcoco/refs(unc).p", "refcoco/finetune_refcoco_train.json"),
        images="coco/train2014",
        beside=("refcoco/instances.json",),
        counts={"expressions": 142_210, "objects": 50_000},
        photo_ids="coco",
    ),
    "sharegpt4v": Entry(
        title="ShareGPT4V, rows of COCO's photos",
        annotations=("sharegpt4v",),
        images="coco/train2017",
        beside=(
            "sharegpt4v/sharegpt4v_instruct_gpt4-vision_cap100k.json",
            "sharegpt4v/share-captioner_coco_lcs_sam_1246k_1107.json",
        ),
        counts={"rows by GPT-4V": 102_025, "rows by its student": 1_246_901},
        photo_ids="coco",
    ),
    "v3det": Entry(
        title="V3Det 2023 v1 train",
        annotations=("v3det/annotations/v3det_2023_v1_train.json",),
        images="v3det",
        finished="v3det/annotations/v3det_2023_v1_train_vg7.jsonl",
        beside=("v3det/annotations/v3det_2023_v1_category_tree.json",),
        counts={"images": 183_354, "boxes": 1_357_377, "classes": 13_204},
    ),
    "visual_genome": Entry(
        title="Visual Genome region descriptions",
        annotations=("visual_genome/region_descriptions.json",),
        images="visual_genome",
        options={"image_data": "visual_genome/image_data.json"},
        pictures=108_077,
        counts={"images": 108_077, "descriptions": 5_400_000, "objects": 3_800_000},
        photo_ids="visual_genome",
    ),
    "voc": Entry(
        title="Pascal VOC 2012, or one's own in its layout",
        annotations=("VOC2012/Annotations",),
        images="VOC2012/JPEGImages",
        counts={"trainval images": 11_540, "trainval boxes": 27_450, "classes": 20},
        photo_ids="any",
    ),
    "yolo": Entry(title="one's own pictures with YOLO labels", photo_ids="any"),
}


@dataclass(frozen=True, slots=True)
class Found:
    """What is on disk, or is not. `hint` says what to do, where something is to be done."""

    level: Literal["ok", "warn", "fail"]
    subject: str
    text: str
    hint: str = ""


def is_there(reader: str, path: str) -> bool:
    """Whether a path holds annotations for a reader: a folder of photos alone does not."""
    entry = CATALOGUE.get(reader)
    if not entry or not entry.inside or "." in path.rsplit("/", 1)[-1]:
        return files.exists(path)
    return files.exists(files.join(path, entry.inside))


def origin_of(name: str) -> tuple[str, str]:
    """(licence, address) as a reader states them; the address of the usual files where a reader states none."""
    known = {one.name: one.default for one in fields(SOURCES[name])}  # type: ignore[arg-type]
    return str(known["licence"]), str(known["address"]) or CATALOGUE[name].address


def photo_ids_of(source: Source) -> Space:
    """What a source's photos are called by: its own name says it where it is in the catalogue, else its reader."""
    while (base := getattr(source, "base", None)) is not None:
        source = base
    reader = next((name for name, kind in SOURCES.items() if kind is type(source)), "folder")
    return CATALOGUE.get(source.name, CATALOGUE[reader]).photo_ids


def rows() -> list[dict[str, Any]]:
    """The catalogue as a table: source, title, layout, licence, counts, address."""
    told = []
    for name, entry in CATALOGUE.items():
        licence, address = origin_of(name)
        places = [*entry.annotations, entry.finished, f"{entry.images}/" if entry.images else "", *entry.beside]
        row = {"source": name, "title": entry.title, "layout": [place for place in places if place]}
        told.append(row | {"licence": licence or "your own", "counts": dict(entry.counts), "address": address})
    return told


def compare(source: str, data_root: str = DATA_ROOT) -> list[Found]:
    """What of a source's layout is below the data root, and what is missing. Raises KeyError for an unknown source."""
    return list(_compare(source, data_root))


def _compare(source: str, root: str) -> Iterator[Found]:
    entry, address = CATALOGUE[source], origin_of(source)[1]
    if not entry.annotations:
        yield Found("ok", "layout", f"{entry.title}: no usual place", "give --annotations and --images")
        return
    yield _annotations(source, address, root)
    if entry.finished and files.exists(files.join(root, entry.finished)):
        yield Found("ok", "finished file", f"{entry.finished} is there")
    for path in (*entry.beside, *(str(value) for value in entry.options.values() if isinstance(value, str))):
        there = files.exists(files.join(root, path))
        yield Found("ok", "beside", f"{path} is {'there' if there else 'not there; only some settings need it'}")
    yield _pictures(entry, address, root)


def _annotations(source: str, address: str, root: str) -> Found:
    entry = CATALOGUE[source]
    there = next((path for path in entry.annotations if is_there(source, files.join(root, path))), "")
    if there:
        return Found("ok", "annotations", f"{there} is there")
    missing = f"none of {', '.join(entry.annotations)} is in {root}"
    if entry.finished and files.exists(files.join(root, entry.finished)):
        return Found("warn", "annotations", missing, f"{entry.finished} is read in their place")
    beside = f" (nor {entry.finished})" if entry.finished else ""
    return Found("fail", "annotations", missing + beside, f"get them from {address}, or give --annotations")


def _pictures(entry: Entry, address: str, root: str) -> Found:
    folder = files.join(root, entry.images)
    if not files.exists(folder):
        return Found("fail", "photos", f"{entry.images} is not in {root}", f"get them from {address}, or give --images")
    fs, path = url_to_fs(folder)
    count = sum(is_picture(name) for name in fs.find(path))
    if not count:
        return Found("fail", "photos", f"{entry.images} holds no picture", f"get them from {address}")
    if count < entry.pictures:
        missing = entry.pictures - count
        return Found("warn", "photos", f"{entry.images}: {count:,} of {entry.pictures:,}, {missing:,} missing")
    of = f" of {entry.pictures:,}" if entry.pictures else ""
    return Found("ok", "photos", f"{entry.images}: {count:,}{of}")
