"""Annotated sets: which photos a detector is shown, what it is asked about each, and what its answers mean.

Addresses: COCO's file beside its photos; LVIS with `train2017/` and `val2017/` below the folder of photos; MDETR's
RefCOCO; the folder or archive of Flickr30k Entities; for ODinW and COCO-O the folder that holds all their sets.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import urlsplit

from detector.asked import Asked
from detector.metrics import coco, coco_o, flickr30k, odinw, refcoco
from llmdet import files
from llmdet.errors import FormatError, ImageError, MissingError, SettingError
from llmdet.phrases import Parser, resolve_parser
from llmdet.record import Span
from llmdet.sources.lvis import clean_name
from llmdet.sources.refcoco import photo_name
from llmdet.tagging import NLTK_DATA
from pipelines.detect import Question, image_url

Task = Literal["coco", "lvis", "lvis-fixed", "refcoco", "flickr30k", "odinw", "coco-o"]
Document = Mapping[str, Any]
LVIS = ("lvis", "lvis-fixed")
_TOP_K = {"refcoco": 30, "flickr30k": 100}
_LVIS_NAMES = 40  # in a prompt, as LLMDet's evaluation
_V05 = "COCO_val2014_"  # names of 2014, of photos that lie where those of 2017 do


@dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """A set, how a detector is asked about it, and by which protocol it is scored; None: what the task is known for."""

    task: Task = "coco"
    annotations: str
    images: str
    name: str = ""  # in file names; the task where empty
    names_per_prompt: int | None = None  # 40 for LVIS; others: as many as fit
    top_k: int | None = None  # (box, name) pairs kept: 300; 30 boxes of a RefCOCO expression, 100 of a Flickr30k phrase
    top_k_per: Literal["image", "chunk"] | None = None  # chunk (the names of one prompt) for LVIS, else image
    per_category: int = 10_000  # of lvis-fixed: detections of each category that count, over all images
    threshold: float = 0.0  # pairs with a lower score are not kept
    batch_size: int = 8  # photos
    protocol: refcoco.Protocol = "llmdet"  # of refcoco
    benchmark: odinw.Benchmark = "odinw13"  # of odinw
    split: str = "test"  # of flickr30k

    @property
    def title(self) -> str:
        return self.name or self.task

    def asked(self) -> EvaluationSet:
        """The same with every choice made. Raises SettingError."""
        for name, least in {"names_per_prompt": 1, "top_k": 1, "per_category": 1, "batch_size": 1}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise SettingError(f"evaluate {self.title}: {name} must be at least {least}; got {value}")
        large = self.task in LVIS
        return replace(
            self,
            names_per_prompt=self.names_per_prompt or (_LVIS_NAMES if large else None),
            top_k=self.top_k or _TOP_K.get(self.task, 300),
            top_k_per=self.top_k_per or ("chunk" if large else "image"),
        )


@dataclass(frozen=True, eq=False)
class Member:
    """One annotation file of a set: all of it, or a domain of COCO-O, a set of ODinW."""

    name: str  # empty where the set is one file
    annotations: str
    questions: list[Question]
    keys: list[Any]  # of each question: the image's id, or (photo, number of the sentence)
    names: tuple[Asked, ...] = ()  # looked for in every photo
    categories: tuple[int, ...] = ()  # id of each name
    truth: Any = None  # as its metric reads it
    errors: dict[str, str] = field(default_factory=dict)  # photos whose name leads out of the folder
    notes: tuple[str, ...] = ()


def members(one: EvaluationSet) -> list[Member]:
    """What a set consists of. Raises FormatError, MissingError, SettingError."""
    return _READERS[one.task](one)


def member_files(one: EvaluationSet) -> dict[str, tuple[str, str]]:
    """Annotation file and folder of photos of each set of ODinW or COCO-O."""
    if one.task == "coco-o":
        places = {name: (f"{name}/annotations/instances_val2017.json", f"{name}/val2017") for name in coco_o.DOMAINS}
    else:
        places = {}
        for name, folder in odinw.SETS[one.benchmark].items():
            file = files.join(folder, odinw.annotation_file(name, rewritten=True))
            if one.benchmark == "odinw13" or not files.exists(files.join(one.annotations, file)):
                file = files.join(folder, odinw.annotation_file(name))
            places[name] = file, posixpath.dirname(file)
    found = {
        name: (files.join(one.annotations, truth), files.join(one.images, photos))
        for name, (truth, photos) in places.items()
    }
    missing = [address for address, _ in found.values() if not files.exists(address)]
    if missing:
        raise MissingError(
            f"{one.benchmark if one.task == 'odinw' else 'COCO-O'} is the mean of {len(found)} sets; "
            f"{len(missing)} are not there, {missing[0]} is one"
        )
    return found


def ground_truth(annotations: str) -> dict[str, Any]:
    """A file in COCO's or LVIS's form. Raises FormatError where it is none, or has no category."""
    truth = files.read_json(files.absolute(annotations))
    if not isinstance(truth, dict) or not all(
        isinstance(truth.get(key), list) for key in ("images", "annotations", "categories")
    ):
        raise FormatError(f"{annotations} is not COCO ground truth: expected the lists images, annotations, categories")
    if not truth["categories"]:
        raise FormatError(f"{annotations} has an empty list of categories, so there is nothing to look for")
    return truth


def mdetr_truth(annotations: str) -> dict[str, Any]:
    """MDETR's file of expressions. Raises FormatError."""
    truth = files.read_json(files.absolute(annotations))
    if not isinstance(truth, dict):
        raise FormatError(f"{annotations} is not RefCOCO ground truth: expected MDETR's json, an object")
    return truth


# --- sets whose categories are looked for --------------------------------------------------------------------------


def _coco(one: EvaluationSet) -> list[Member]:
    truth = ground_truth(one.annotations)
    coco.check_truth(truth)
    return [_detection("", one.annotations, one.images, truth, _file_name, [row["name"] for row in _by_id(truth)])]


def _lvis(one: EvaluationSet) -> list[Member]:
    truth = ground_truth(one.annotations)
    names = [clean_name(str(row["name"])) or str(row["name"]) for row in _by_id(truth)]
    return [_detection("", one.annotations, one.images, truth, lvis_photo, names)]


def _several(one: EvaluationSet) -> list[Member]:
    found = []
    for name, (address, images) in member_files(one).items():
        truth = ground_truth(address)
        coco.check_truth(truth)
        own = odinw.prompts(name, [str(row["name"]) for row in _by_id(truth)])
        asked = [Asked(clean_name(each.name), each.prefix, each.suffix) for each in own]
        found.append(_detection(name, address, images, truth, _file_name, asked))
    return found


def _by_id(truth: Document) -> list[Any]:
    return sorted(truth["categories"], key=lambda row: int(row["id"]))


def _detection(
    name: str,
    annotations: str,
    images: str,
    truth: dict[str, Any],
    photo: Callable[[Document], str],
    names: Sequence[str | Asked],
) -> Member:
    """Every category is looked for in every photo; one whose name has no letter or digit cannot be, and finds none."""
    asked = [name if isinstance(name, Asked) else Asked(name) for name in names]
    chosen = [i for i, one in enumerate(asked) if any(char.isalnum() for char in one.name)]
    if not chosen:
        raise FormatError(f"{annotations}: no category has a name with a letter or digit")
    ids = [row["id"] for row in _by_id(truth)]
    questions, keys, errors = [], [], {}
    for row in truth["images"]:
        try:
            questions.append(Question(image_url(images, _photo(annotations, row, photo)), _size(annotations, row)))
            keys.append(row["id"])
        except ImageError as error:
            errors[str(row["id"])] = str(error)
    notes = tuple(f"category {ids[i]} is called {asked[i].name!r}: not asked" for i in {*range(len(ids))} - {*chosen})
    taken = tuple(asked[i] for i in chosen), tuple(ids[i] for i in chosen)
    return Member(name, annotations, questions, keys, *taken, truth, errors, notes)


def _photo(annotations: str, row: Document, photo: Callable[[Document], str]) -> str:
    try:
        return photo(row)
    except (KeyError, TypeError):
        raise FormatError(
            f"{annotations}: image {row.get('id')} has no file_name, so its photo cannot be found"
        ) from None


def _size(annotations: str, row: Document) -> tuple[int, int]:
    try:
        return int(row["width"]), int(row["height"])
    except (KeyError, TypeError, ValueError):
        raise FormatError(f"{annotations}: image {row.get('id')} needs width and height in pixels") from None


def _file_name(row: Document) -> str:
    """Raises KeyError, TypeError."""
    if not isinstance(row["file_name"], str):
        raise TypeError
    return row["file_name"]


def lvis_photo(row: Document) -> str:
    """Where a photo of LVIS lies: v1 has no `file_name`, and that of v0.5 is of 2014. Raises KeyError, TypeError."""
    address = row.get("coco_url")
    if isinstance(address, str) and (path := urlsplit(address).path.lstrip("/")):
        return path
    name = posixpath.basename(_file_name(row))
    return name.removeprefix(_V05) if name.startswith(_V05) else _file_name(row)


# --- sets of sentences ---------------------------------------------------------------------------------------------


def _refcoco(one: EvaluationSet) -> list[Member]:
    truth = mdetr_truth(one.annotations)
    expressions = refcoco.read(truth)
    parser = subject_parser() if one.protocol == "llmdet" else None
    questions, keys, errors = [], [], {}
    for row in truth["images"]:
        text = expressions[row["id"]].text
        phrases = (subject_spans(text, parser),) if parser else ()
        try:
            name = photo_name(_photo(one.annotations, row, _file_name))
            questions.append(Question(image_url(one.images, name), _size(one.annotations, row), text, phrases))
            keys.append(row["id"])
        except ImageError as error:
            errors[str(row["id"])] = str(error)
    notes = (f"subjects of expressions by {parser.name}",) if parser else ()
    return [Member("", one.annotations, questions, keys, truth=truth, errors=errors, notes=notes)]


def subject_parser() -> Parser:
    """What finds the subject of an expression: nltk as upstream where its data is there, else our own."""
    return Parser(resolve_parser("auto", (*NLTK_DATA, "stopwords")))


def subject_spans(text: str, parser: Parser) -> tuple[Span, ...]:
    """Every place of the first noun phrase of a text; the whole text where it has none. As LLMDet's inference."""
    subject = next(iter(parser.phrases(text, "subject")), None)
    return tuple(_places(text, subject.text)) if subject else ((0, len(text)),)


def _places(text: str, words: str) -> Iterator[Span]:
    text, words = text.lower(), words.lower()
    at = text.find(words)
    while at >= 0:
        yield at, at + len(words)
        at = text.find(words, at + len(words))


def _flickr30k(one: EvaluationSet) -> list[Member]:
    sentences = flickr30k.sentences(files.absolute(one.annotations), one.split)
    questions = [
        Question(
            image_url(one.images, f"{photo}.jpg"),
            sentence.size,
            sentence.text,
            tuple((p.span,) for p in sentence.phrases),
        )
        for (photo, _), sentence in sentences.items()
    ]
    return [Member("", one.annotations, questions, [*sentences], truth=sentences)]


_READERS: dict[str, Callable[[EvaluationSet], list[Member]]] = {
    "coco": _coco,
    "lvis": _lvis,
    "lvis-fixed": _lvis,
    "refcoco": _refcoco,
    "flickr30k": _flickr30k,
    "odinw": _several,
    "coco-o": _several,
}
