"""A small `grounding_data/` tree with all five sources of GroundingCap-1M, from real photos and format-exact rows."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from PIL import Image

KEPT, LISTED = 10, 3  # COCO photos; those of the second number are in an evaluation list each
SCENES = 5  # GQA photos that are kept
SHOTS = 6  # V3Det photos that are kept
CAPTIONED = 4  # LLaVA photos that are kept
SENTENCES = 5  # of a Flickr30k photo
STREET = (
    "A quiet street runs past a row of brick houses with white window frames. In front of the second house a silver "
    "car stands at the kerb, its bonnet towards the viewer. Two cyclists in yellow jackets wait beside a lamp post on "
    "the right. Behind them, the leaves of a plane tree touch the tiles of a red roof. The sky above is pale blue, "
    "with a thin band of cloud near the chimney pots. A black cat sits on the lowest step of the first door."
)
KITCHEN = (
    "The kitchen has a long wooden table in its middle, with four green chairs around it. A bowl of lemons stands "
    "on the table beside a folded newspaper and a pair of scissors. On the left wall, copper pans hang from iron hooks "
    "in order of size. Sunlight falls through the window over the sink and lights up a row of glass jars. The floor is "
    "laid with grey slate, and near the stove a small striped rug covers two of the stones."
)
HARBOUR = (
    "Three fishing boats lie in the harbour, tied to a stone pier with thick blue ropes. The nearest one is painted "
    "orange and carries a stack of crates on its deck. A man in rubber boots mends a net at the edge of the water. "
    "Gulls stand on the roof of the low white building behind him, and a bicycle leans against its door. Far off, a "
    "lighthouse rises from a flat green island."
)


@dataclass
class Tree:
    """Where the tree is, and which photos of it are in an evaluation list."""

    root: Path
    coco: list[str] = field(default_factory=list)  # names of the photos, first those that are kept
    flickr: list[str] = field(default_factory=list)
    leaks: dict[str, str] = field(default_factory=dict)  # source/image -> list that has it

    def write(self, path: str, value: Any) -> None:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(value if isinstance(value, bytes) else orjson.dumps(value))

    def copy(self, source: Path, path: str) -> None:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)


def build(samples: Path, root: Path) -> Tree:
    """All five sources with raw annotations, and the lists of evaluation photos."""
    tree = Tree(root)
    _coco(tree, samples / "coco/coco_tiny_val")
    _flickr(tree, samples / "flickr30k")
    _gqa(tree, samples / "gqa_vg/images")
    photos = sorted((samples / "coco/val2014_100/images").glob("*.jpg"))
    spare = sorted((samples / "coco/coco_tiny_val/val2017").glob("*.jpg"))[-2:]  # in nobody's annotations here
    for photo in spare:
        tree.copy(photo, f"coco/val2017/{photo.name}")
    _v3det(tree, samples / "v3det", photos[:SHOTS], spare[0])
    _llava(tree, photos[SHOTS : SHOTS + CAPTIONED], spare[1])
    return tree


def _coco(tree: Tree, samples: Path) -> None:
    document = orjson.loads((samples / "annotations/instances_val2017.json").read_bytes())
    images = sorted(document["images"], key=lambda row: row["file_name"])[: KEPT + LISTED]
    chosen = {row["id"] for row in images}
    boxes = [row for row in document["annotations"] if row["image_id"] in chosen]
    tree.coco = [row["file_name"] for row in images]
    for name in tree.coco:
        tree.copy(samples / "val2017" / name, f"coco/train2017/{name}")
    instances = {"images": images, "annotations": boxes, "categories": document["categories"]}
    tree.write("coco/annotations/instances_train2017.json", instances)
    _lists(tree, images[KEPT:])
    first, second, third, fourth = tree.coco[:4]
    rows = [_turns(f"coco/train2017/{name}", STREET) for name in (first, second, third)]
    elsewhere = _turns("sam/images/sa_545504.jpg", STREET)
    tree.write("sharegpt4v/sharegpt4v_instruct_gpt4-vision_cap100k.json", [*rows, elsewhere])
    student = [_turns(f"coco/train2017/{first}", KITCHEN)]
    tree.write("sharegpt4v/share-captioner_coco_lcs_sam_1246k_1107.json", student)
    told = f"A <ref>brick wall</ref><box>[[100, 200, 700, 900]]</box> stands there. {HARBOUR}"
    marked = [_turns(f"coco/train2017/{name}", told) for name in (first, fourth)]
    tree.write("asv2/rec_detailed_description_wo_square_pad.json", marked)


def _lists(tree: Tree, images: list[dict[str, Any]]) -> None:
    """One photo for COCO val, one for LVIS minival, one for RefCOCO val, under the names that each uses."""
    coco, lvis, refcoco = images
    tree.write("coco/annotations/instances_val2017.json", {"images": [coco], "annotations": [], "categories": []})
    row = {key: value for key, value in lvis.items() if key != "file_name"}
    place = "coco/annotations/lvis_v1_minival_inserted_image_name.json"
    tree.write(place, {"images": [row], "annotations": [], "categories": []})
    sentences = [{"sent_id": 0, "sent": "the dog", "raw": "the dog", "tokens": ["the", "dog"]}]
    refs = [
        {"ref_id": number, "ann_id": 1, "image_id": key, "category_id": 1, "split": split, "sent_ids": [0]}
        | {"file_name": f"COCO_train2014_{key:012d}_{number}.jpg", "sentences": sentences}
        for number, (key, split) in enumerate([(refcoco["id"], "testA"), (1, "train")])
    ]
    tree.write("refcoco/refs(unc).p", pickle.dumps(refs))
    for row, where in ((coco, "coco_val"), (lvis, "lvis_val"), (refcoco, "refcoco")):
        tree.leaks[f"coco/{row['file_name']}"] = where


def _turns(image: str, answer: str) -> dict[str, Any]:
    said = [{"from": "human", "value": "<image>\nWhat is in the photo?"}, {"from": "gpt", "value": answer}]
    return {"id": Path(image).stem, "image": image, "conversations": said}


def _flickr(tree: Tree, samples: Path) -> None:
    split = {name: (samples / f"{name}.txt").read_text().split() for name in ("train", "val", "test")}
    tree.flickr = split["train"]
    for name in (*split, "UNRELATED_CAPTIONS"):
        place = samples / (name if name.isupper() else f"{name}.txt")
        tree.copy(place, f"flickr30k_entities/{place.name}")
    for photo in (*split["train"], split["test"][0]):
        for folder, suffix in (("Annotations", ".xml"), ("Sentences", ".txt"), ("flickr30k_images", ".jpg")):
            tree.copy(samples / folder / f"{photo}{suffix}", f"flickr30k_entities/{folder}/{photo}{suffix}")


def _gqa(tree: Tree, photos: Path) -> None:
    """Three captions a photo over its left, middle and right third, spans word by word, boxes in whole numbers."""
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    names = sorted(path.name for path in photos.glob("[0-9]*.jpg"))[: SCENES + 1]
    for name in names:
        tree.copy(photos / name, f"gqa/images/{name}")
        width, height = Image.open(photos / name).size
        for third, caption in enumerate(("dark tree on the left.", "What is in the middle?", "two signs. right side.")):
            key, side = len(images), width // 3
            words = caption.split()[:2]
            spans = [[caption.index(word), caption.index(word) + len(word.rstrip("."))] for word in words]
            row = {"file_name": name, "height": height, "width": width, "id": key, "original_id": Path(name).stem}
            more = {"tokens_negative": [[0, len(caption)]], "data_source": "vg", "dataset_name": "mixed"}
            images.append({**row, "caption": caption, **more})
            box = {"area": float(side * height), "iscrowd": 0, "image_id": key, "category_id": 1, "id": key}
            boxes.append(box | {"bbox": [third * side, 0, side - 4, height], "tokens_positive": spans})
    document = {"info": {}, "licenses": [], "images": images, "annotations": boxes, "categories": []}
    tree.write("gqa/final_mixed_train_no_coco.json", document)
    listed = orjson.loads((tree.root / "coco/annotations/instances_val2017.json").read_bytes())["images"][0]["id"]
    known = [{"image_id": int(Path(name).stem), "coco_id": None, "flickr_id": None} for name in names]
    known[-1]["coco_id"] = listed
    tree.write("gqa/image_data.json", known)
    tree.leaks[f"gqa/{names[-1]}"] = "coco_val"


def _v3det(tree: Tree, samples: Path, photos: list[Path], listed: Path) -> None:
    names = (samples / "category_name_13204_v3det_2023_v1.txt").read_text().splitlines()
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for number, photo in enumerate([*photos, listed]):
        path = f"images/n{number:08d}/{number}_{photo.stem[-4:]}_c.jpg"
        tree.copy(photo, f"v3det/{path}")
        if photo == listed:  # a copy of an evaluation photo under another name, half as large
            half = Image.open(photo)
            half.resize((half.width // 2, half.height // 2)).save(tree.root / "v3det" / path, quality=80)
            tree.leaks[f"v3det/{path}"] = "photos val2017"
        width, height = Image.open(tree.root / "v3det" / path).size
        images.append({"id": number + 1, "file_name": path, "width": width, "height": height})
        for place, category in enumerate((100 + number, 5000 + number)):
            box = {"id": 2 * number + place + 1, "image_id": number + 1, "category_id": category, "iscrowd": 0}
            boxes.append(box | {"bbox": [10.5, 10, width / 2, height / 2], "area": width * height / 4})
    document = {"images": images, "annotations": boxes, "categories": categories}
    tree.write("v3det/annotations/v3det_2023_v1_train.json", document)


def _llava(tree: Tree, photos: list[Path], listed: Path) -> None:
    rows: list[dict[str, Any]] = []
    for number, photo in enumerate([*photos, listed]):
        key = f"{4539375 + number:09d}"
        tree.copy(photo, f"llava_cap/images/{key[:5]}/{key}.jpg")
        rows.append(_turns(f"{key[:5]}/{key}.jpg", STREET if number % 2 else KITCHEN))
    tree.leaks[f"llava/{rows[-1]['image']}"] = "photos val2017"
    rows[0]["id"] = int(rows[0]["id"])
    text_only = {"id": "text", "conversations": _turns("x.jpg", "Paris.")["conversations"]}
    tree.write("llava_cap/blip_laion_cc_sbu_558k.json", [*rows, text_only])


# --- the same with nothing but what LLMDet publishes ---------------------------------------------------------------

FINISHED = {
    "coco": ("coco/annotations/instances_train2017_vg_merged6.jsonl", "coco/train2017", "{:012d}.jpg"),
    "flickr30k": ("flickr30k_entities/flickr_train_vg7.jsonl", "flickr30k_entities/flickr30k_images", "{}.jpg"),
    "gqa": ("gqa/gqa_train_vg7.jsonl", "gqa/images", "{}.jpg"),
    "v3det": ("v3det/annotations/v3det_2023_v1_train_vg7.jsonl", "v3det", "images/n07745046/{}_c.jpg"),
    "llava": ("llava_cap/LLaVA-ReCap-558K_tag_box_vg7.jsonl", "llava_cap/images", "00123/{:09d}.jpg"),
}


def build_finished(root: Path) -> Tree:
    """The five jsonl files with two photos each; sentences for Flickr30k and GQA, names for the others."""
    tree = Tree(root)
    for number, (source, (path, images, form)) in enumerate(FINISHED.items()):
        lines = []
        for key in (1000 + number, 2000 + number):
            name = form.format(key)
            place = root / images / name
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((64, 48), key % 50 + 20).convert("RGB").save(place)
            lines.append(orjson.dumps(_finished(source, name)))
        tree.write(path, b"\n".join(lines) + b"\n")
    return tree


def _finished(source: str, name: str) -> dict[str, Any]:
    if source in ("flickr30k", "gqa"):
        caption, phrase, spans = "Two girls jump over a puddle . a blue umbrella . ", "a puddle", [[20, 28]]
    else:
        caption, phrase, spans = "zebra. cat. kite. ", "cat", [[7, 10]]
    region = {"bbox": [[1.5, 2.0, 30.25, 40.0], [30.0, 2.0, 60.0, 40.0]], "phrase": phrase, "tokens_positive": spans}
    turns = _turns(name, HARBOUR)["conversations"]
    row = {"filename": name, "height": 48, "width": 64, "conversations": turns, "tags": ["boat", "pier"]}
    return row | {"grounding": {"caption": caption, "regions": [region]}}
