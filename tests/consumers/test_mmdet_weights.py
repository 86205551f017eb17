"""mmdet's own checkpoints, converted: the same logits and boxes here, in plain transformers, and back in mmdet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import BertConfig, BertModel, MMGroundingDinoConfig, MMGroundingDinoForObjectDetection

from detector import checkpoint
from detector.pixels import Pixels
from detector.sizes import SIZES, Size, config_of
from detector.weights import convert
from tests.consumers.conftest import Mmdet
from tests.detector.weights.example_weights import small_bert

pytestmark = pytest.mark.mmdet

TEXT = "red square. blue star? a dog."
VALID = 224  # pixels of the image's width; what is right of them is padding
QUERIES = 100  # few, so that cells of the padding and the border, which have no box to compare, are not among them


def as_mmdet(size: Size) -> dict[str, Any]:
    """The same backbone in mmdet's words."""
    return {
        "embed_dims": size.width,
        "depths": size.depths,
        "num_heads": size.heads,
        "window_size": size.window,
        "pretrain_img_size": size.pretrained_side,
        "out_indices": [stage - 1 for stage in size.stages],
    }


def small(config: MMGroundingDinoConfig, folder: Path) -> BertConfig:
    """A random BERT of one layer with the tokenizer of this package, for both sides."""
    tokenizer = checkpoint.tiny_tokenizer()
    config.text_config = small_bert(len(tokenizer))
    tokenizer.save_pretrained(folder)
    BertModel(config.text_config, add_pooling_layer=False).save_pretrained(folder)
    return config.text_config


def frame(config: MMGroundingDinoConfig, folder: Path) -> None:
    """A model folder whose configuration, tokenizer and image settings the conversion takes; it needs no weights."""
    config.architectures = ["MMGroundingDinoForObjectDetection"]
    config.save_pretrained(folder)
    Pixels().processor().save_pretrained(folder)
    checkpoint.tiny_tokenizer().save_pretrained(folder)


def pixels() -> NDArray[np.float32]:
    values = np.random.default_rng(0).normal(size=(1, 3, 192, 256)).astype(np.float32)
    values[..., VALID:] = 0
    return values


@torch.no_grad()
def ours(folder: Path) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Logits (Q, T) and boxes (Q, 4) of our model and of plain transformers."""
    parts = checkpoint.read(folder)
    mask = torch.zeros(1, 192, 256, dtype=torch.long)
    mask[..., :VALID] = 1
    words = parts.tokenizer([TEXT], return_tensors="pt")
    ids, attention, image = words["input_ids"], words["attention_mask"], torch.from_numpy(pixels())
    mine = parts.model.eval()(image, mask, ids, attention)
    plain = MMGroundingDinoForObjectDetection.from_pretrained(folder).eval()(
        pixel_values=image, pixel_mask=mask, input_ids=ids, attention_mask=attention
    )
    width = ids.shape[1]
    return [
        (mine.logits_BQT[0].numpy(), mine.boxes_BQ4[0].numpy()),
        (plain.logits[0, :, :width].numpy(), plain.pred_boxes[0].numpy()),
    ]


def compare(found: tuple[NDArray[np.float32], NDArray[np.float32]], answer: Path) -> None:
    """Equal to 1e-3 but for cells whose scores are the same up to rounding: selected in the other order, they become
    each other's query. mmdet pads logits to 256 tokens."""
    theirs = np.load(answer)
    logits, boxes = found
    assert theirs["boxes"].shape == (1, *boxes.shape) == (1, QUERIES, 4)
    assert np.isfinite(logits).all()
    assert np.isinf(theirs["logits"][0, :, logits.shape[1] :]).all()
    apart_Q = np.abs(logits - theirs["logits"][0, :, : logits.shape[1]]).max(1)
    apart_Q = np.maximum(apart_Q, np.abs(boxes - theirs["boxes"][0]).max(1))
    assert np.quantile(apart_Q, 0.98) < 1e-3, np.quantile(apart_Q, [0.5, 0.9, 0.98, 1])
    assert logits.std() > 0.1  # and there is something to compare
    assert boxes.std() > 0.1


@pytest.mark.parametrize("name", ["swin-t", "swin-l"])
def test_logits_and_boxes_are_those_of_mmdet(name: str, mmdet: Mmdet, tmp_path: Path) -> None:
    size = SIZES[name]
    config = config_of(size, queries=QUERIES)
    small(config, tmp_path / "bert")
    frame(config, tmp_path / "frame")
    np.savez(tmp_path / "in.npz", pixels=pixels(), width=VALID)
    request = {
        "swin": as_mmdet(size), "bert": tmp_path / "bert", "inputs": tmp_path / "in.npz", "text": TEXT,
        "queries": QUERIES,
    }  # fmt: skip
    mmdet.ask("detect", **request, out=tmp_path / "first.npz", save=tmp_path / "first.pth")
    convert.to_transformers(tmp_path / "first.pth", tmp_path / "model", like=str(tmp_path / "frame"))
    for found in ours(tmp_path / "model"):
        compare(found, tmp_path / "first.npz")

    convert.to_mmdet(tmp_path / "model", tmp_path / "back")  # mmdet takes it, and answers the same to the bit
    mmdet.ask("detect", **request, out=tmp_path / "again.npz", weights=tmp_path / "back" / "mmdet.pth")
    first, again = np.load(tmp_path / "first.npz"), np.load(tmp_path / "again.npz")
    assert np.array_equal(first["logits"], again["logits"])
    assert np.array_equal(first["boxes"], again["boxes"])
