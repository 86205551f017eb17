"""What padding does to a photo: its boxes, scores and loss alone, and on the larger canvas of a batch.

    PYTHONPATH=. python benchmarks/canvas_sizes.py [tiny|swin-t ...]

The same random weights in ours and in plain transformers, float64, no dropout. A canvas is so many times as wide and as
high as the photo; what is beyond the photo is zero and masked, as every batch has it. Deviations are from the photo on
a canvas of its own size: the mean of scores and of box coordinates (0..1) of all queries, each compared with the one
whose box is nearest (other proposals become queries, in another order), and that of the loss of the sample. Both losses
get the same boxes for the same names; transformers' own is asked at batch size 1, where it mixes nothing up.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from transformers import MMGroundingDinoForObjectDetection

from detector import checkpoint, denoising, text
from detector.checkpoint import Parts
from detector.config import CriterionSettings, DenoisingSettings, ModelSettings
from detector.criterion import criterion, pad_targets
from detector.data import pad_ids
from detector.sizes import SIZES

HEIGHT, WIDTH = 192, 256  # of the photo
CANVASES = (1.0, 1.01, 1.125, 1.25, 1.5, 2.0)
NAMES = ("red square", "dog", "blue star")
BOXES = np.array([[0.3, 0.4, 0.2, 0.3], [0.6, 0.5, 0.5, 0.4], [0.5, 0.7, 0.3, 0.2]], dtype=np.float32)
OWNERS = np.array([0, 1, 1])  # the name of each box


@dataclass(frozen=True)
class Answer:
    """Scores (Q, T), boxes (Q, 4) and the loss of the sample; boxes are shares of the photo."""

    scores: Tensor
    boxes: Tensor
    loss: float


def built(name: str) -> Parts:
    """A random model of a size in float64, with box heads that say something."""
    parts = checkpoint.start(ModelSettings(start=name if name in SIZES else "tiny"), seed=0)
    parts.model.double().eval()
    for head in parts.model.bbox_embed:
        nn.init.normal_(head.get_parameter("layers.2.weight"), std=0.1)
    return parts


def canvas(photo: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """Pixels and mask of the photo on a canvas."""
    height, width = round(HEIGHT * factor), round(WIDTH * factor)
    pixels = photo.new_zeros(1, 3, height, width)
    pixels[0, :, :HEIGHT, :WIDTH] = photo
    mask = torch.zeros(1, height, width, dtype=torch.long)
    mask[:, :HEIGHT, :WIDTH] = 1
    return pixels, mask


@torch.no_grad()
def ours(parts: Parts, photo: Tensor, factor: float) -> Answer:
    """With denoising, as in training."""
    pixels, mask = canvas(photo, factor)
    encoded = text.encode(parts.tokenizer, text.from_names(list(NAMES)), 256)
    ids, attention = pad_ids([encoded.ids])
    noise = denoising.build([BOXES], [(0,)], parts.model.config.num_queries, DenoisingSettings())
    out = parts.model(pixels, mask, ids, attention, noise=noise)
    targets = pad_targets([BOXES], [encoded.tokens[OWNERS]], ids.shape[1])
    loss = criterion(out.matched, out.denoised, noise, targets, CriterionSettings(), 1.0)
    return Answer(out.logits_BQT[0].sigmoid(), out.boxes_BQ4[0], float(loss.per_image_B[0]))


@torch.no_grad()
def plain(parts: Parts, photo: Tensor, factor: float) -> Answer:
    """The same weights in transformers' own class, with its own loss."""
    model = MMGroundingDinoForObjectDetection(parts.model.config).double().eval()
    model.load_state_dict(parts.model.state_dict())
    pixels, mask = canvas(photo, factor)
    encoded = text.encode(parts.tokenizer, text.from_names(list(NAMES)), 256)
    ids, attention = pad_ids([encoded.ids])
    labels = [{"class_labels": torch.from_numpy(OWNERS), "boxes": torch.from_numpy(BOXES).double()}]
    out = model(pixel_values=pixels, pixel_mask=mask, input_ids=ids, attention_mask=attention, labels=labels)
    return Answer(out.logits[0, :, : ids.shape[1]].sigmoid(), out.pred_boxes[0], float(out.loss))


def main(names: list[str]) -> None:
    """Print a table."""
    photo = torch.randn(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    photo = nn.functional.avg_pool2d(photo, 9, 1, 4) * 3  # smoother than noise
    print("| model | canvas | score, ours | transformers | box, ours | transformers | loss, ours | transformers |")
    print("|---|---|---|---|---|---|---|---|")
    for name in names:
        parts = built(name)
        alone = ours(parts, photo, 1.0), plain(parts, photo, 1.0)
        for factor in CANVASES[1:]:
            cells = [name, f"{factor:g}"]
            found = ours(parts, photo, factor), plain(parts, photo, factor)
            apart = [_apart(a, b) for a, b in zip(alone, found, strict=True)]
            cells += [f"{one[kind]:.1e}" for kind in range(2) for one in apart]
            cells += [f"{abs(b.loss - a.loss) / a.loss:.1%}" for a, b in zip(alone, found, strict=True)]
            print(f"| {' | '.join(cells)} |", flush=True)


def _apart(a: Answer, b: Answer) -> tuple[float, float]:
    """Mean deviation of scores and of box coordinates, of pairs of queries with the nearest boxes."""
    rows, columns = linear_sum_assignment(torch.cdist(a.boxes, b.boxes, p=1).numpy())
    scores = (a.scores[rows] - b.scores[columns]).abs().mean()
    return float(scores), float((a.boxes[rows] - b.boxes[columns]).abs().mean())


if __name__ == "__main__":
    main(sys.argv[1:] or ["tiny", "swin-t"])
