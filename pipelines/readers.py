"""From the values of a recipe's source to its reader: formats, default layouts, paths, attached and joined texts."""

from __future__ import annotations

import os
from typing import Any

from llmdet import files
from llmdet.attaching import AttachSettings
from llmdet.catalogue import CATALOGUE, DATA_ROOT, is_there, origin_of
from llmdet.errors import SettingError
from llmdet.joining import SameImage
from llmdet.sources import SOURCES
from llmdet.sources.attached import Attached
from llmdet.sources.joined import Joined
from llmdet.sources.odvg import FINISHED
from llmdet.sources.source import Source
from pipelines.ingest import INPUTS
from pipelines.settings import build, check_name

Values = dict[str, Any]


def source_of(name: str, values: Values, data_root: str = "") -> Source:
    """The reader of a source with its fields checked; its paths are below `data_root`. Raises SettingError.

    Beside the reader's own fields: `format` (the reader, where the name is another), `attach` ({format: fields} of
    sources whose captions and phrases go to this one's photos), `join: same_image` (with `joining`: fields of
    llmdet.joining.SameImage), several `annotations` of which the first that is there is read, and `finished`, LLMDet's
    jsonl, whose boxes and texts are the records where none of them is there. Without `annotations` the reader's usual
    layout counts (llmdet.catalogue).
    """
    check_name(name, "source")
    own = _placed(name, values, data_root)
    attach = _mapping(own.pop("attach", None), f"sources.{name}.attach")
    join, joining = own.pop("join", "none"), _mapping(own.pop("joining", None), f"sources.{name}.joining")
    source = _reader(name, own, data_root)
    givers = {
        giver: dict(_mapping(fields, f"sources.{name}.attach.{giver}"))
        for giver, fields in attach.items()
        if fields is not None  # null in a recipe does without one that it would inherit
    }
    if givers:
        choices = {giver: fields.pop("caption", "source") for giver, fields in givers.items()}
        images = {"images": getattr(source, "images", "")}
        readers = tuple(
            _reader(giver, _placed(giver, {**images, **fields}, data_root), data_root)
            for giver, fields in givers.items()
        )
        settings = build(AttachSettings, {"caption": choices}, f"sources.{name}.attach")
        source = Attached(base=source, givers=readers, settings=settings)
    if join not in ("none", "same_image"):
        raise SettingError(f"sources.{name}.join must be none or same_image; got {join!r}")
    if join == "same_image":
        source = Joined(base=source, rule=build(SameImage, joining, f"sources.{name}.joining"))
    return source


def _placed(name: str, values: Values, data_root: str) -> Values:
    """The fields with one address of annotations; those of an ODVG reader where only the finished file is there."""
    own, root = dict(values), data_root
    format = str(own.get("format", name))
    entry = CATALOGUE.get(format)
    if entry and entry.annotations and not own.get("annotations"):
        root = data_root or DATA_ROOT
        own = {"images": entry.images, "finished": entry.finished, **entry.options, **own}
        own["annotations"] = list(entry.annotations)
    finished, given = own.pop("finished", ""), own.get("annotations")
    if given is None:
        return own
    choices = below_all(root, [given] if isinstance(given, str) else given)
    if not isinstance(choices, list) or not all(isinstance(path, str) for path in choices):
        raise SettingError(f"sources.{name}.annotations must be a path or a list of paths; got {given!r}")
    there = [path for path in choices if is_there(format, path)]
    own |= {key: below_all(root, own[key]) for key in (_PATHS - {"annotations"}) & own.keys()}
    finished = below_all(root, finished)
    if entry and isinstance(finished, str) and finished and not there and files.exists(finished):
        licence = f"{origin_of(format)[0]}; texts: Apache-2.0 where their sources allow (LLMDet)"
        fields = {
            "licence": licence,
            "address": FINISHED,
            "boxes": entry.finished_boxes,
            "images": own.get("images", ""),
        }
        return {"format": "odvg", "annotations": finished, **fields}
    return {**own, "annotations": (there or choices or [""])[0]}


def _mapping(value: Any, where: str) -> Values:
    if value is not None and not isinstance(value, dict):
        raise SettingError(f"{where} must be a mapping of names to values; got {value!r}")
    return value or {}


def below_all(root: str, value: Any) -> Any:
    """A path, or each of a list of them, below the data root; what is neither stays for the check of its field."""
    if isinstance(value, list):
        return [below_all(root, one) for one in value if one]
    return below(root, value) if isinstance(value, str) and value else value


def rooted(values: Values, data_root: str) -> Values:
    """A source's values with its paths, and those of what attaches to it, absolute."""
    own = dict(values)
    for key in (_PATHS | {"finished"}) & own.keys():
        own[key] = below_all(data_root, own[key])
    if isinstance(own.get("attach"), dict):
        own["attach"] = {name: fields and rooted(fields, data_root) for name, fields in own["attach"].items()}
    return own


def _reader(name: str, values: Values, data_root: str) -> Source:
    options = dict(values)
    format = options.pop("format", name)
    if format not in SOURCES:
        raise SettingError(f"sources.{name}: no format {format!r}; there are: {', '.join(sorted(SOURCES))}")
    for key, value in options.items():
        if key in _PATHS and isinstance(value, str) and value:
            options[key] = below(data_root, value)
    return build(SOURCES[format], {"name": name, **options}, f"sources.{name}")


_PATHS = INPUTS | {"images"}
LEAK_PATHS = {"coco_val", "lvis_val", "flickr30k", "refcoco", "image_data", "photos"}


def below(root: str, path: str) -> str:
    """A path of a recipe below the data root; absolute paths and URLs stay."""
    if not root or "://" in path or os.path.isabs(path):
        return files.absolute(path)
    return files.absolute(files.join(root, path))
