"""On one canvas the loss of a sample is its own, whatever else is in the batch: through the whole model, in float64."""

import math
from functools import cache
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from detector import checkpoint
from detector.checkpoint import Parts
from detector.config import DenoisingSettings, ModelSettings, TrainSettings
from detector.criterion import criterion
from detector.data import Collate, Sample, targets_of
from detector.prompts import Prompts
from detector.words import Words
from llmdet.record import Box, Record, Region, Span

HEIGHT, WIDTH = 80, 112  # of the canvas
SIZES = ((80, 112), (80, 60), (48, 112), (80, 112), (64, 96))  # of the photos on it
SETTINGS = TrainSettings(denoising=DenoisingSettings(groups=2))  # of every image the same number of groups
ALONE = tuple((number,) for number in range(5))
TOGETHER = ((0, 1), (0, 2), (2, 3), (3, 1), (4, 2), (0, 1, 2, 3, 4), (4, 2, 0, 3, 1))


def record(
    number: int, text: str, phrases: dict[str, int], kind: Literal["detection", "grounding"] = "grounding"
) -> Record:
    """A record with so many boxes for each phrase, drawn by its number."""
    rng, (height, width) = np.random.default_rng(number), SIZES[number]
    regions = []
    for phrase, count in phrases.items():
        span: Span = (text.index(phrase), text.index(phrase) + len(phrase))
        corners = rng.uniform(0, 0.5, (count, 2)), rng.uniform(0.6, 1, (count, 2))
        boxes = np.concatenate(corners, axis=1) * [width, height, width, height]
        regions.append(Region((phrase,), (span,), tuple(Box(tuple(box)) for box in boxes.tolist())))
    return Record(f"s/{number}/0", "s", str(number), "0", kind, "a.jpg", "w", width, height, text, tuple(regions))


LONG = " ".join(f"A red circle near the blue square number {n}." for n in range(80))  # some 800 tokens
RECORDS = (
    record(0, "red square. blue star. green circle. dog. ", {"red square": 2, "green circle": 1}, "detection"),
    record(1, "A dog next to a red kite; are there two cats?", {"A dog": 1, "red kite": 1, "two cats": 2}),
    record(2, "cat. ", {}, "detection"),  # nothing of it in the photo
    record(3, LONG, {"red circle": 1, "number 9": 2}),
    record(4, "a man. ", {"a man": 7}),
)


@cache
def parts() -> Parts:
    """A fresh model without dropout, whose box heads say something."""
    torch.set_num_threads(1)
    made = checkpoint.start(ModelSettings(short_side=HEIGHT, long_side=WIDTH), seed=0)
    made.model.double().eval()
    for head in made.model.bbox_embed:
        nn.init.normal_(head.get_parameter("layers.2.weight"), std=0.2)
    return made


@cache
def sample(number: int) -> Sample:
    tokenizer, limit = parts().tokenizer, parts().model.config.max_text_len
    shown = Prompts(tokenizer, limit)(RECORDS[number], np.random.default_rng(number))
    encoded, boxes, region, _ = targets_of(shown, tokenizer, limit)
    pixels = np.random.default_rng(100 + number).standard_normal((3, *SIZES[number])).astype(np.float32)
    nothing = Words(None, (), (0,))
    return Sample(shown.id, pixels, encoded.ids, boxes, encoded.tokens[region], (0, 0, number), nothing)


@cache
@torch.no_grad()
def losses(numbers: tuple[int, ...]) -> dict[int, float]:
    """The undivided loss of each sample of a batch."""
    net = parts().model
    batch = Collate(SETTINGS, net.config.num_queries)([sample(number) for number in numbers])
    height, width = batch.pixel_values.shape[-2:]
    margin = (0, WIDTH - width, 0, HEIGHT - height)
    pixels, mask = (nn.functional.pad(one, margin) for one in (batch.pixel_values.double(), batch.pixel_mask))
    out = net(pixels, mask, batch.input_ids, batch.attention_mask, noise=batch.noise)
    loss = criterion(out.matched, out.denoised, batch.noise, batch.targets, SETTINGS.criterion, 1.0)
    return dict(zip(numbers, loss.per_image_B.tolist(), strict=True))


def test_samples_are_as_different_as_they_should_be() -> None:
    assert [len(sample(number).boxes) for number in range(5)] == [3, 4, 0, 3, 7]
    lengths = [len(sample(number).ids) for number in range(5)]
    assert 200 < lengths[3] <= 256
    assert max(lengths[:3]) < 20
    values = [losses(one)[one[0]] for one in ALONE]
    assert all(math.isfinite(value) for value in values)
    assert len({round(value, 3) for value in values}) == 5


@pytest.mark.parametrize("numbers", TOGETHER, ids=str)
def test_the_loss_of_a_sample_does_not_change_with_its_neighbours(numbers: tuple[int, ...]) -> None:
    alone = {number: losses((number,))[number] for number in numbers}
    assert losses(numbers) == pytest.approx(alone, abs=1e-5, rel=0)
