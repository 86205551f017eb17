"""From a trained folder to boxes: the one path that prediction and evaluation share."""

# B images   Q queries   T text tokens   P names of a prompt

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from detector import checkpoint, text
from detector.data import pad_ids
from detector.pixels import pad_pixels
from llmdet.errors import SettingError


@dataclass(frozen=True, slots=True)
class Detections:
    """What was found on one image, best first: boxes (n, 4) xyxy pixels, scores (n,), numbers of the names (n,)."""

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    names: tuple[str, ...]

    @property
    def phrases(self) -> list[str]:
        return [self.names[label] for label in self.labels]

    def above(self, threshold: float) -> Detections:
        keep = self.scores >= threshold
        return Detections(self.boxes[keep], self.scores[keep], self.labels[keep], self.names)


@dataclass(frozen=True)
class Detector:
    """A trained detector. `Detector.load(folder).detect([image], ["dog", "red cup"])`."""

    parts: checkpoint.Parts

    @classmethod
    def load(cls, folder: str | Path, device: str | None = None) -> Detector:
        """Read a run's folder, a checkpoint, any MM-Grounding-DINO folder of transformers, or a hub id."""
        parts = checkpoint.read(folder)
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        module: nn.Module = parts.model.eval()
        module.to(place)
        return cls(parts)

    def detect(
        self,
        images: Sequence[Image.Image],
        names: Sequence[str] | str,
        *,
        top_k: int = 300,
        threshold: float = 0.0,
        batch_size: int = 8,
        names_per_prompt: int | None = None,
    ) -> list[Detections]:
        """Boxes of each image for a list of names, or for a text such as `"dog. red cup."`.

        A box may come once for each name. Its score for a name is the mean of the probabilities of the name's tokens;
        the best `top_k` (box, name) pairs of an image stay, no suppression. Names that do not fit into one prompt, or
        exceed `names_per_prompt`, are asked in several. Raises SettingError for an unusable name.
        """
        asked = tuple(text.split_names(names) if isinstance(names, str) else names)
        prompts = list(self._prompts(asked, names_per_prompt or len(asked)))
        found: dict[int, Detections] = {}
        for rows in _batches(images, batch_size):
            scores_BQP, boxes_BQ4 = self._scores([images[row] for row in rows], prompts)
            for row, scores, boxes in zip(rows, scores_BQP, boxes_BQ4, strict=True):
                found[row] = _select(scores, boxes, images[row].size, asked, top_k).above(threshold)
        return [found[row] for row in range(len(images))]

    def _prompts(self, names: tuple[str, ...], most: int) -> Iterator[text.Encoded]:
        """Prompts of as many names as fit, in order."""
        if not names:
            raise SettingError("detection needs at least one name to look for")
        limit = self.parts.model.config.max_text_len
        start = 0
        while start < len(names):
            stop = min(start + most, len(names))
            encoded = text.encode(self.parts.tokenizer, text.from_names(names[start:stop]), limit)
            if encoded.lost:
                stop = start + min(encoded.lost)
                if stop == start:
                    raise SettingError(f"the name {names[start][:80]!r} alone exceeds {limit} tokens")
                encoded = text.encode(self.parts.tokenizer, text.from_names(names[start:stop]), limit)
            yield encoded
            start = stop

    @torch.inference_mode()
    def _scores(
        self, images: Sequence[Image.Image], prompts: Sequence[text.Encoded]
    ) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
        """For each image the scores of all queries of all prompts, (queries, names), and their boxes cxcywh in 0..1."""
        model = self.parts.model
        pixel_values, pixel_mask = pad_pixels([self.parts.pixels(image) for image in images])
        names = sum(len(prompt.tokens) for prompt in prompts)
        all_scores, all_boxes, first = [], [], 0
        for prompt in prompts:
            input_ids, attention_mask = pad_ids([prompt.ids] * len(images))
            inputs = (pixel_values, pixel_mask, input_ids, attention_mask)
            outputs = model(*(part.to(model.device) for part in inputs))
            scores_BQP = outputs.logits_BQT.new_zeros(*outputs.logits_BQT.shape[:2], names)
            scores_BQP[..., first : first + len(prompt.tokens)] = phrase_scores(outputs.logits_BQT, prompt.tokens)
            all_scores.append(scores_BQP)
            all_boxes.append(outputs.boxes_BQ4)
            first += len(prompt.tokens)
        return _rows(all_scores), _rows(all_boxes)


def _rows(parts: Sequence[Tensor]) -> list[NDArray[np.float64]]:
    """Queries of several prompts side by side, one array for each image."""
    return list(torch.cat(list(parts), 1).double().cpu().numpy())


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


def _select(
    scores: NDArray[np.float64], boxes: NDArray[np.float64], size: tuple[int, int], names: tuple[str, ...], top_k: int
) -> Detections:
    """The best (query, name) pairs of one image, boxes clipped to it. Equal scores keep the order of the queries."""
    flat = scores.reshape(-1)
    best = np.argsort(-flat, kind="stable")[:top_k]
    query, label = np.divmod(best, scores.shape[1])
    half = boxes[:, 2:] / 2
    xyxy = np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1).clip(0, 1) * (size * 2)
    return Detections(xyxy[query], flat[best], label.astype(np.int64), names)


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
