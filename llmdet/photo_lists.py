"""The lists of evaluation photos, as the benchmarks publish them.

    instances_val2017.json, lvis_v1_val.json    {"images": [{"id": 397133, "coco_url": ..., "flickr_url": ...}, ...]}
    val.txt, test.txt                           a Flickr id a line, or final_flickr_separateGT_{val,test}.json
    refs(unc).p, finetune_refcoco_val.json      refs of the splits val, testA, testB, test; one file is one split
    image_data.json                             [{"image_id": 61, "coco_id": null, "flickr_id": null, ...}, ...]

A file that is not there makes a list that is not checked; one of another format is an error.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from llmdet import files
from llmdet.errors import FormatError, ImageError, SettingError
from llmdet.files import read_json
from llmdet.images import inspect
from llmdet.leaks import IdList, Leaks, LeakSettings, PhotoIds, PhotoList, coco_id, flickr_id
from llmdet.plain_pickle import read_plain_pickle
from llmdet.sources.folder import is_picture, list_files
from llmdet.sources.mdetr import split_of
from llmdet.sources.refcoco import photo_name

_FLICKR_JSON = ("final_flickr_separateGT_{}.json", "final_flickr_mergedGT_{}.json")
PhotoRow = tuple[str, str, bytes | None]  # name, sha256, perceptual hash


def read_lists(settings: LeakSettings, photos: tuple[PhotoList, ...] = ()) -> Leaks:
    """All lists of the settings, read; `photos` are hashed folders. Raises FormatError, SettingError."""
    lists = (
        _coco_list("coco_val", settings.coco_val),
        _coco_list("lvis_val", settings.lvis_val),
        *(_flickr_list(settings.flickr30k, split) for split in ("val", "test")),
        *([_refcoco_list(path) for path in settings.refcoco] or [IdList("refcoco", why="leaks.refcoco is not set")]),
    )
    why = _absent("image_data", settings.image_data)
    told = {} if why else _visual_genome(settings.image_data, lists)
    named = photos or tuple(PhotoList(_folder_name(p), why="not hashed yet") for p in settings.photos)
    named = named or (PhotoList("photos", why="leaks.photos is not set"),)
    return Leaks(settings, lists, named, told, why)


def _absent(name: str, path: str) -> str:
    """Why a list is not there, or ""."""
    if not path:
        return f"leaks.{name} is not set"
    return "" if files.exists(path) else f"there is no {path}"


def _coco_list(name: str, path: str) -> IdList:
    if why := _absent(name, path):
        return IdList(name, why=why)
    return _id_list(name, [_coco_ids(row) for row in _rows(path, "images")])


def _coco_ids(row: dict[str, Any]) -> PhotoIds:
    named = (coco_id(row.get(key)) for key in ("coco_url", "file_name"))
    own = row.get("id") if type(row.get("id")) is int else None
    return PhotoIds(next((one for one in named if one is not None), own), flickr_id(row.get("flickr_url")))


def _flickr_list(folder: str, split: str) -> IdList:
    name = f"flickr30k_{split}"
    if why := _absent("flickr30k", folder):
        return IdList(name, why=why)
    path = files.join(folder, f"{split}.txt")
    if files.exists(path):
        words = files.read_bytes(path).decode(errors="replace").split()
    else:
        path = next((p for form in _FLICKR_JSON if files.exists(p := files.join(folder, form.format(split)))), "")
        if not path:
            return IdList(name, why=f"there is no {split}.txt in {folder}")
        words = [posixpath.splitext(str(row.get("file_name")))[0] for row in _rows(path, "images")]
    if bad := [word for word in words if not word.isdecimal()]:
        raise FormatError(f"{path} must hold Flickr ids, digits alone; got {bad[0][:40]!r}")
    return _id_list(name, [PhotoIds(flickr=int(word)) for word in words])


def _refcoco_list(path: str) -> IdList:
    """One refs pickle or one MDETR json; train is left out of the one and refused as the other."""
    name = f"refcoco {'/'.join(path.replace(chr(92), '/').split('/')[-2:])}"
    if why := _absent("refcoco", path):
        return IdList(name, why=why)
    if path.endswith(".json"):
        if split_of(path) == "train":
            raise SettingError(f"leaks.refcoco names {path}: photos of training are no leak; name val and test files")
        return _id_list(name, [PhotoIds(_refcoco_id(row)) for row in _rows(path, "images")])
    refs = read_plain_pickle(path)
    if not isinstance(refs, list):
        raise FormatError(f"{path} is not a list of refs: it holds one {type(refs).__name__}")
    rows = [ref for ref in refs if isinstance(ref, dict) and ref.get("split") != "train"]
    return _id_list(name, [PhotoIds(_refcoco_id(row)) for row in rows])


def _refcoco_id(row: dict[str, Any]) -> int | None:
    found = coco_id(photo_name(str(row.get("file_name"))))
    if found is not None:
        return found
    own = str(row.get("original_id", row.get("image_id")))
    return int(own) if own.isdecimal() else None


def _id_list(name: str, ids: Iterable[PhotoIds]) -> IdList:
    found = set(ids) - {PhotoIds()}
    coco = frozenset(one.coco for one in found if one.coco is not None)
    return IdList(name, coco, frozenset(one.flickr for one in found if one.flickr is not None), len(found))


def _rows(path: str, key: str = "") -> list[dict[str, Any]]:
    document = read_json(path)
    rows = document.get(key) if key and isinstance(document, dict) else document
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise FormatError(f"{path} must hold {f'the list {key!r}' if key else 'a list'} of objects, one for a photo")
    return rows


def _visual_genome(path: str, lists: Iterable[IdList]) -> dict[int, PhotoIds]:
    """The photos of Visual Genome that are in a list; all others need no place."""
    lists = tuple(lists)
    coco = frozenset().union(*(one.coco for one in lists))
    flickr = frozenset().union(*(one.flickr for one in lists))
    found: dict[int, PhotoIds] = {}
    for row in _rows(path):
        ids = PhotoIds(_number(row.get("coco_id")), _number(row.get("flickr_id")))
        key = _number(row.get("image_id", row.get("id")))
        if key is not None and (ids.coco in coco or ids.flickr in flickr):
            found[key] = ids
    return found


def _number(value: Any) -> int | None:
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return value if type(value) is int else None


# --- photos --------------------------------------------------------------------------------------------------------


def pictures(folder: str) -> list[str]:
    """Names of the pictures below a folder. Raises MissingError."""
    return [name for name in list_files(folder) if is_picture(name)]


def look(folder: str, names: Iterable[str]) -> Iterator[PhotoRow | None]:
    """The content of each picture, None for one that cannot be read."""
    for name in names:
        try:
            facts = inspect(files.safe_join(folder, name), looks=True)
        except ImageError:
            yield None
            continue
        yield name, facts.sha256, facts.looks


def photo_list(folder: str, rows: Iterable[PhotoRow | None]) -> PhotoList:
    """A folder's photos, ready to be compared."""
    told = list(rows)
    good = [row for row in told if row is not None]
    if not good:
        return PhotoList(_folder_name(folder), why=f"there is no readable picture below {folder}")
    data = b"".join(looks or bytes(32) for _, _, looks in good)
    return PhotoList(
        name=_folder_name(folder),
        names=tuple(name for name, _, _ in good),
        sha256=tuple(sha256 for _, sha256, _ in good),
        looks=np.ascontiguousarray(np.frombuffer(data, np.uint64).reshape(-1, 4).T),
        plain=np.array([looks is None for _, _, looks in good]),
        unreadable=len(told) - len(good),
    )


def no_photos(folder: str) -> PhotoList:
    """A folder that is not there."""
    return PhotoList(_folder_name(folder), why=f"there is no {folder}")


def _folder_name(folder: str) -> str:
    return f"photos {folder.rstrip('/').rsplit('/', 1)[-1]}"
