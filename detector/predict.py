"""From a trained folder to boxes: the one path that prediction and evaluation share."""

# B images   Q queries   T text tokens   P names of a prompt

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from detector import checkpoint, text
from detector.asked import Asked
from detector.captions import say
from detector.captions import start as captions_of
from detector.data import pad_ids
from detector.model import Features, Outputs
from detector.pixels import pad_pixels
from llmdet.errors import MissingError, SettingError

TopKPer = Literal["image", "chunk"]  # a chunk is the names of one prompt


@dataclass(frozen=True, slots=True)
class Detections:
    """What was found on one image, best first: boxes (n, 4) xyxy pixels, scores (n,), numbers of the names (n,).

    `queries` (n, 2) are the prompt and the query that a box came from; `features` is what each prompt let the detector
    see of the image, kept where that was asked.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    queries: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    features: tuple[Features, ...] = ()

    @property
    def phrases(self) -> list[str]:
        return [self.names[label] for label in self.labels]

    def above(self, threshold: float) -> Detections:
        return self.take(np.flatnonzero(self.scores >= threshold))

    def take(self, rows: NDArray[np.int64]) -> Detections:
        """Some of the boxes."""
        queries = self.queries[rows] if len(self.queries) else self.queries
        return replace(
            self, boxes=self.boxes[rows], scores=self.scores[rows], labels=self.labels[rows], queries=queries
        )


@dataclass(frozen=True)
class Detector:
    """A trained detector. `Detector.load(folder).detect([image], ["dog", "red cup"])`."""

    parts: checkpoint.Parts

    @classmethod
    def load(cls, folder: str | Path, device: str | None = None, *, captions: bool = False) -> Detector:
        """Read a run's folder, a checkpoint, any MM-Grounding-DINO folder of transformers, or a hub id.

        `captions` also reads caption heads and the language model that they were trained with. Raises MissingError
        where there are none.
        """
        parts = checkpoint.read(folder)
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        module: nn.Module = parts.model.eval()
        module.to(place)
        if captions:
            parts = replace(parts, captions=captions_of.read(folder, parts.model.config, place))
        return cls(parts)

    @torch.inference_mode()
    def say(self, found: Detections) -> tuple[str, list[str]]:
        """What the caption heads say of an image and of each box found there with `keep`.

        The image is described as the first prompt let the detector see it. Raises MissingError without heads.
        """
        heads = self.parts.captions
        if heads is None or not found.features:
            raise MissingError(
                "captions need Detector.load(folder, captions=True), and boxes that were found with keep"
            )
        return say.say_image(heads, found.features[0]), say.say_boxes(heads, found.features, found.queries.tolist())

    def detect(
        self,
        images: Sequence[Image.Image],
        names: Sequence[str | Asked] | str,
        *,
        top_k: int = 300,
        top_k_per: TopKPer = "image",
        threshold: float = 0.0,
        batch_size: int = 8,
        names_per_prompt: int | None = None,
        keep: bool = False,
    ) -> list[Detections]:
        """Boxes of each image for a list of names, or for a text such as `"dog. red cup."`.

        A box may come once for each name. Its score for a name is the mean of the probabilities of the name's tokens;
        the best `top_k` (box, name) pairs of an image stay, no suppression. Names that do not fit into one prompt, or
        exceed `names_per_prompt`, are asked in several; `top_k_per="chunk"` keeps `top_k` pairs of each of these, as
        LLMDet's evaluation on LVIS does. `keep` keeps the features that `say` needs. Raises SettingError for
        an unusable name.
        """
        asked = _asked(names)
        prompts = self.prompts(asked, names_per_prompt)
        words = tuple(one.name for one in asked)
        found: dict[int, Detections] = {}
        for rows in _batches(images, batch_size):
            batch = [images[row] for row in rows]
            parts: list[_Best] = []
            features: list[Features] = []
            for prompt, outputs in zip(prompts, self._seen(batch, prompts), strict=True):
                scores_BQP = phrase_scores(outputs.logits_BQT, prompt.tokens)
                parts.append(_Best.of(scores_BQP, outputs.boxes_BQ4, top_k))
                features += [outputs.features] if keep else []
            firsts = np.cumsum([0, *(len(prompt.tokens) for prompt in prompts)])
            for number, row in enumerate(rows):
                own = [part.of_image(number, first) for part, first in zip(parts, firsts, strict=False)]
                most = top_k if top_k_per == "image" else None
                joined = _joined(own, images[row].size, words, most).above(threshold)
                found[row] = replace(joined, features=tuple(one.of_image(number) for one in features))
        return [found[row] for row in range(len(images))]

    def prompts(self, names: Sequence[str | Asked], most: int | None = None) -> list[text.Encoded]:
        """Prompts of as many names as fit, or at most `most`, in order. Raises SettingError for an unusable name."""
        return list(self._prompts(_asked(names), most or len(names)))

    def _prompts(self, names: tuple[Asked, ...], most: int) -> Iterator[text.Encoded]:
        if not names:
            raise SettingError("detection needs at least one name to look for")
        limit = self.parts.model.config.max_text_len
        start = 0
        while start < len(names):
            stop = min(start + most, len(names))
            encoded = text.encode(self.parts.tokenizer, _prompt(names[start:stop]), limit)
            if encoded.lost:
                stop = start + min(encoded.lost)
                if stop == start:
                    raise SettingError(f"the name {names[start].text[:80]!r} alone exceeds {limit} tokens")
                encoded = text.encode(self.parts.tokenizer, _prompt(names[start:stop]), limit)
            yield encoded
            start = stop

    @torch.inference_mode()
    def _seen(self, images: Sequence[Image.Image], prompts: Sequence[text.Encoded]) -> Iterator[Outputs]:
        """What the model gives for each prompt."""
        model = self.parts.model
        pixels = [part.to(model.device) for part in pad_pixels([self.parts.pixels(image) for image in images])]
        with _looking_once(model.model.backbone):
            for prompt in prompts:
                ids = pad_ids([prompt.ids] * len(images))
                yield model(*pixels, *(part.to(model.device) for part in ids))


@dataclass(frozen=True, slots=True)
class _Best:
    """The best pairs of a prompt in B images: scores (B, n), boxes (B, n, 4), numbers of names and queries (B, n)."""

    scores: NDArray[np.float64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    queries: NDArray[np.int64]

    @classmethod
    def of(cls, scores_BQP: Tensor, boxes_BQ4: Tensor, top_k: int) -> _Best:
        """Equal scores keep the order of the queries."""
        flat = scores_BQP.flatten(1)
        best = flat.sort(dim=1, descending=True, stable=True).indices[:, :top_k]
        query = best // scores_BQP.shape[2]
        boxes = boxes_BQ4.gather(1, query[..., None].expand(-1, -1, 4))
        labels = (best % scores_BQP.shape[2]).cpu().numpy()
        scores = flat.gather(1, best).double().cpu().numpy()
        return cls(scores, boxes.double().cpu().numpy(), labels, query.cpu().numpy())

    def of_image(self, number: int, first: int) -> _Best:
        """Of one image, without the axis B; `first` is the number of the prompt's first name among all."""
        return _Best(self.scores[number], self.boxes[number], self.labels[number] + first, self.queries[number])


def _joined(parts: Sequence[_Best], size: tuple[int, int], names: tuple[str, ...], most: int | None) -> Detections:
    """What the prompts of one image found, best first, boxes clipped to it and in its pixels."""
    scores = np.concatenate([part.scores for part in parts])
    boxes = np.concatenate([part.boxes for part in parts])
    order = np.argsort(-scores, kind="stable")[:most]
    half = boxes[:, 2:] / 2
    xyxy = np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1).clip(0, 1) * (size * 2)
    labels = np.concatenate([part.labels for part in parts])
    prompts = np.concatenate([np.full(len(part.queries), number) for number, part in enumerate(parts)])
    queries = np.stack([prompts, np.concatenate([part.queries for part in parts])], axis=1)
    return Detections(xyxy[order], scores[order], labels[order], names, queries[order])


@contextmanager
def _looking_once(backbone: nn.Module) -> Iterator[None]:
    """Inside, the backbone sees its first input only: all prompts of a batch are about the same pixels."""
    see = backbone.forward
    kept: list[Any] = []

    def look(*args: Any) -> Any:
        if not kept:
            kept.append(see(*args))
        return tuple(list(part) for part in kept[0])  # new lists: the model appends to them

    backbone.forward = look
    try:
        yield
    finally:
        del backbone.forward  # the class has its own


def _asked(names: Sequence[str | Asked] | str) -> tuple[Asked, ...]:
    each = text.split_names(names) if isinstance(names, str) else names
    return tuple(name if isinstance(name, Asked) else Asked(name) for name in each)


def _prompt(names: Sequence[Asked]) -> text.Prompt:
    """`dog. hand of a person.`; the words around a name are not part of its phrase."""
    prompt = text.from_names([name.text for name in names])
    phrases = []
    for name, ((start, stop),) in zip(names, prompt.phrases, strict=True):
        before, after = (len(" ".join(words.split())) - 1 for words in (name.prefix + "x", "x" + name.suffix))
        phrases.append(((start + before, stop - after),))
    return text.Prompt(prompt.text, tuple(phrases))


def _batches(images: Sequence[Image.Image], batch_size: int) -> Iterator[list[int]]:
    """Numbers of images that have the same size: padding would leak into a smaller one through the convolutions."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for row, image in enumerate(images):
        by_size.setdefault(image.size, []).append(row)
    for rows in by_size.values():
        for start in range(0, len(rows), batch_size):
            yield rows[start : start + batch_size]


def phrase_scores(logits_BQT: Tensor, tokens: NDArray[np.bool_]) -> Tensor:
    """Mean over a phrase's tokens of the sigmoid of their logits, (B, Q, P)."""
    weights = torch.from_numpy(tokens).to(logits_BQT).T
    return logits_BQT.sigmoid() @ (weights / weights.sum(0).clamp(min=1))


def coco_rows(image_id: int, found: Detections, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Rows of a COCO result file; `category_ids[i]` belongs to name i."""
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[int(label)],
            "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
            "score": float(score),
        }
        for (x1, y1, x2, y2), score, label in zip(found.boxes, found.scores, found.labels, strict=True)
    ]


def categories_of(truth: Mapping[str, Any]) -> tuple[list[int], list[str]]:
    """Ids and names of the categories of a COCO file, by id."""
    rows = sorted(truth["categories"], key=lambda row: row["id"])
    return [row["id"] for row in rows], [row["name"] for row in rows]
