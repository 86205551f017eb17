"""A trained detector as one file for other runtimes: ONNX, or torch.export's own archive (.pt2).

What differs from the model that is trained, and why; the numbers stay the same:
- it starts as plain transformers' model, which has the same weights and nothing of training;
- Swin's windows are taken by indices: padding and rolling maps of unknown size makes torch.export reason for minutes;
- the masks of the prompt's phrases are made without cummax and isin, which ONNX has not;
- cell centres are made by arange and sizes of maps by stack: linspace and as_tensor would take them for constants.
"""

# B images   H, W of the padded batch   Q queries   T text tokens   C channels   N windows   S cells of a map

from __future__ import annotations

import logging
import math
import types
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Literal, cast
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn import functional
from transformers import MMGroundingDinoForObjectDetection
from transformers.models.mm_grounding_dino import modeling_mm_grounding_dino as upstream
from transformers.models.swin import modeling_swin as swin

from detector.checkpoint import Parts
from detector.model import OpenDetector
from llmdet.errors import FormatError

ModelFormat = Literal["onnx", "torch"]
INPUTS = ("pixel_values", "pixel_mask", "input_ids", "attention_mask")
OUTPUTS = ("logits", "boxes", "cells")
_SMALLEST = 64  # pixels of a side that the sizes of a trace allow
_TRACED = (2, 224, 288, 12)  # images, height, width, tokens: none of them 0, 1 or equal to another
_ONE_FILE = 1_900_000_000  # bytes of weights; protobuf ends at 2 GiB


class Exportable(nn.Module):
    """The detector with tensors in and tensors out, any number of images, any size, any length of the prompt."""

    def __init__(self, model: OpenDetector) -> None:
        super().__init__()
        self.plain = MMGroundingDinoForObjectDetection(model.config).eval()
        self.plain.load_state_dict(model.state_dict())
        for module in self.plain.modules():
            if isinstance(module, swin.SwinPatchEmbeddings):
                module.maybe_pad = types.MethodType(_pad_to_patches, module)  # type: ignore[method-assign]
            elif isinstance(module, swin.SwinLayer):
                module.forward = types.MethodType(_window_attention, module)  # type: ignore[method-assign]
            elif isinstance(module, swin.SwinPatchMerging):
                module.forward = types.MethodType(_merge_patches, module)  # type: ignore[method-assign]

    def forward(
        self, pixel_values: Tensor, pixel_mask: Tensor, input_ids: Tensor, attention_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, Q, T), -inf on padding, and boxes (B, Q, 4), cxcywh in 0..1 of the padded picture's real part.

        Third, the number of the encoder's cell that each query starts from (B, Q): what `compare` needs. Takes images
        (B, 3, H, W) and their mask (B, H, W), prompts (B, T) and their mask (B, T); masks are 0 or 1.
        """
        out = self.plain(
            pixel_values=pixel_values, pixel_mask=pixel_mask, input_ids=input_ids, attention_mask=attention_mask
        )
        cells = out.enc_outputs_class.max(-1).values.topk(self.plain.config.num_queries, dim=1).indices
        return out.logits[..., : input_ids.shape[1]], out.pred_boxes, cells


def trace(model: OpenDetector) -> ExportedProgram:
    """The detector as a graph whose numbers of images, tokens and pixels are free."""
    images, height, width, tokens = _TRACED
    sample = inputs(images, height, width, tokens)
    free = Dim.DYNAMIC
    shapes = ({0: free, 2: free, 3: free}, {0: free, 1: free, 2: free}, {0: free, 1: free}, {0: free, 1: free})
    with torch.no_grad(), _plain_operations(), _quiet():
        return torch.export.export(Exportable(model), sample, dynamic_shapes=shapes, strict=False)


def inputs(images: int, height: int, width: int, tokens: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noise, and prompts of names of three tokens: what a graph is traced and checked with."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 100, (images, tokens), generator=generator)
    ids[:, 0], ids[:, -1] = upstream.SPECIAL_TOKENS[:2]
    ids[:, 4:-1:4] = ids[:, -2] = upstream.SPECIAL_TOKENS[2]
    pixels = torch.randn(images, 3, height, width, generator=generator)
    return pixels, torch.ones(images, height, width, dtype=torch.long), ids, torch.ones_like(ids)


def write(program: ExportedProgram, path: Path, kind: ModelFormat) -> None:
    """Write a traced detector as one file; beyond 1.9 GB the weights of ONNX are in `<file>.data` beside it."""
    if kind == "torch":
        torch.export.save(program, path)
        return
    weights = sum(tensor.nbytes for tensor in program.state_dict.values())
    with _quiet():
        onnx = torch.onnx.export(
            program, input_names=list(INPUTS), output_names=list(OUTPUTS), dynamo=True, verbose=False
        )
        assert onnx is not None
        _name_dimensions(onnx.model)
        onnx.save(path, external_data=weights > _ONE_FILE)


def _name_dimensions(model: Any) -> None:
    """Call the free dimensions what they are; what is equal gets one name."""
    names = {
        "pixel_values": {0: "images", 2: "height", 3: "width"},
        "pixel_mask": {0: "images", 1: "height", 2: "width"},
    }
    texts = {0: "images", 1: "tokens"}
    names |= {"input_ids": texts, "attention_mask": texts, "logits": {0: "images", 2: "tokens"}}
    names |= {name: {0: "images"} for name in ("boxes", "cells")}
    for value in [*model.graph.inputs, *model.graph.outputs]:
        sizes = list(value.shape)
        value.shape = type(value.shape)([names[value.name].get(axis, size) for axis, size in enumerate(sizes)])


@dataclass(frozen=True, slots=True)
class Agreement:
    """Largest differences of a file from the model, query by query; both start from the cells that the file chose.

    Queries start from the encoder's best cells, and each rank among them has an embedding of its own. Where two cells
    are as good as float32 can tell, runtimes may rank them either way, and then the two queries differ by what their
    embeddings do, in a file that is right. So the choice is judged by itself: `tie` is by how much the chosen cells
    differ from the best ones, rank by rank, by the model's own encoder.
    """

    scores: float = 0.0
    boxes: float = 0.0  # of numbers in 0..1
    tie: float = 0.0  # of scores; infinite where a cell was chosen twice
    swapped: int = 0  # queries that start from another cell than the model's would
    queries: int = 0

    def joined(self, other: Agreement) -> Agreement:
        """Of both samples; what is no number stays."""
        scores, boxes, tie = np.maximum((self.scores, self.boxes, self.tie), (other.scores, other.boxes, other.tie))
        counts = (self.swapped + other.swapped, self.queries + other.queries)
        return Agreement(float(scores), float(boxes), float(tie), *counts)


def check(path: Path, kind: ModelFormat, model: OpenDetector, shapes: Sequence[tuple[int, int, int, int]]) -> Agreement:
    """Run the file on noise of each shape (images, height, width, tokens) beside the model.

    Raises FormatError where it cannot be run.
    """
    run = _onnx_runner(path) if kind == "onnx" else _torch_runner(path)
    agreement = Agreement()
    for seed, shape in enumerate(shapes):
        sample = inputs(*shape, seed=seed)
        try:
            found = run(*sample)
        except Exception as error:  # of either runtime
            raise FormatError(f"{path} does not run on (images, height, width, tokens) {shape}: {error}") from error
        agreement = agreement.joined(compare(found, model, sample))
    return agreement


@torch.no_grad()
def compare(found: Sequence[Tensor], model: OpenDetector, sample: Sequence[Tensor]) -> Agreement:
    """How far `found`, what `Exportable` gives for a sample, is from the model's answer.

    Raises FormatError for cells that the sample has not.
    """
    logits_BQT, boxes_BQ4, cells_BQ = found
    with starting_from(cells_BQ) as choices:
        expected = model(*sample)
    (cells_BS,) = choices  # the model chooses once
    best_BQ = cells_BS.topk(cells_BQ.shape[1], dim=1).indices
    tie = _furthest(cells_BS.gather(1, best_BQ).sigmoid(), cells_BS.gather(1, cells_BQ).sigmoid())
    once = all(len(row.unique()) == len(row) for row in cells_BQ)
    return Agreement(
        scores=_furthest(logits_BQT.sigmoid(), expected.logits_BQT.sigmoid()),
        boxes=_furthest(boxes_BQ4, expected.boxes_BQ4),
        tie=tie if once else math.inf,
        swapped=int((best_BQ != cells_BQ).sum()),
        queries=cells_BQ.numel(),
    )


@contextmanager
def starting_from(cells_BQ: Tensor) -> Iterator[list[Tensor]]:
    """Inside, queries start from these cells, not from the encoder's best; gives its logits (B, S) of each choice."""
    seen: list[Tensor] = []

    def chosen(logits_BS: Tensor, count: int, dim: int) -> tuple[Tensor, Tensor]:
        if cells_BQ.shape != (len(logits_BS), count) or not 0 <= cells_BQ.min() <= cells_BQ.max() < logits_BS.shape[1]:
            raise FormatError(f"the file chose cells that are not among {count} of {logits_BS.shape[1]}")
        seen.append(logits_BS)
        return logits_BS.gather(dim, cells_BQ), cells_BQ

    with mock.patch.object(torch, "topk", chosen):
        yield seen


def _furthest(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def _onnx_runner(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = list(OUTPUTS)

    def run(*sample: Tensor) -> list[Tensor]:
        given = {name: part.numpy() for name, part in zip(INPUTS, sample, strict=True)}
        return [torch.from_numpy(part) for part in session.run(names, given)]

    return run


def _torch_runner(path: Path) -> Any:
    graph = torch.export.load(path).module()
    return torch.no_grad()(graph)


def description(parts: Parts, kind: ModelFormat, opset: int | None) -> dict[str, Any]:
    """What a program has to know to use the file without this project."""
    pixels = parts.pixels
    return {
        "format": kind,
        "opset": opset,
        "inputs": {
            "pixel_values": {"type": "float32", "shape": ["images", 3, "height", "width"]},
            "pixel_mask": {"type": "int64", "shape": ["images", "height", "width"], "is": "1 image, 0 padding"},
            "input_ids": {"type": "int64", "shape": ["images", "tokens"]},
            "attention_mask": {"type": "int64", "shape": ["images", "tokens"], "is": "1 token, 0 padding"},
        },
        "outputs": {
            "logits": {"type": "float32", "shape": ["images", parts.model.config.num_queries, "tokens"]},
            "boxes": {
                "type": "float32",
                "shape": ["images", parts.model.config.num_queries, 4],
                "is": "cxcywh in 0..1",
            },
            "cells": {
                "type": "int64",
                "shape": ["images", parts.model.config.num_queries],
                "is": "the encoder's cell that a query starts from; not needed for boxes",
            },
        },
        "pixels": {
            "channels": "RGB",
            "short_side": pixels.short_side,
            "long_side": pixels.long_side,
            "resize": "bilinear, the shorter side to short_side, the longer one to long_side at most",
            "scale": 1 / 255,
            "mean": list(pixels.mean),
            "std": list(pixels.std),
            "smallest_side": _SMALLEST,
        },
        "text": {
            "form": "lower case, every name closed by a dot: 'dog. red cup.'",
            "longest": parts.model.config.max_text_len,
            "score": "of a name: the mean of sigmoid(logits) over its tokens",
        },
    }


def tokenizer_json(parts: Parts) -> bytes:
    """The tokenizer as one file, which the package `tokenizers` reads."""
    fast = getattr(parts.tokenizer, "backend_tokenizer", None)
    if fast is None:
        raise FormatError(f"the tokenizer {type(parts.tokenizer).__name__} has no form that tokenizers reads")
    return str(fast.to_str(pretty=True)).encode()


def onnx_opset(path: Path) -> int:
    """The version of ONNX's own operators that a file needs."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


# --- what torch.export and ONNX can follow ----------------------------------------------------------------------------


def phrase_masks(input_ids: Tensor, special_tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Which tokens of (B, T) see each other, (B, T, T), and their positions in their phrase, (B, T).

    The same as transformers' `generate_masks_with_special_tokens_and_transfer_map`.
    """
    tokens = input_ids.shape[1]
    special_BT = (input_ids[..., None] == special_tokens).any(-1)
    at_T = torch.arange(tokens, device=input_ids.device)
    later_TT = at_T[None, :] >= at_T[:, None]
    following_BT = torch.where(special_BT[:, None] & later_TT, at_T, tokens).amin(-1)
    previous_BT = torch.where(special_BT[:, None] & ~later_TT, at_T, -1).amax(-1)
    closed_BT = (following_BT != 0) & (following_BT < tokens - 1)
    same_BTT = (following_BT[:, :, None] == following_BT[:, None, :]) & closed_BT[:, None, :]
    position_BT = torch.where(closed_BT, at_T - previous_BT - 1, 0).clamp(min=0)
    return same_BTT | (at_T[None, :] == at_T[:, None]), position_BT


def _steps_of_one(start: float, end: float, steps: int, **kwargs: Any) -> Tensor:
    """torch.linspace as transformers calls it here: `end` is `steps - 1` after `start`."""
    return torch.arange(steps, **kwargs) + start


def _stacked(rows: Any, **kwargs: Any) -> Tensor:
    """torch.as_tensor of a list of (height, width); of anything else as it is."""
    if not (isinstance(rows, list) and rows and isinstance(rows[0], tuple)):
        return _AS_TENSOR(rows, **kwargs)
    return torch.stack([torch.stack([torch.scalar_tensor(size, **kwargs) for size in row]) for row in rows])


_AS_TENSOR = torch.as_tensor


@contextmanager
def _plain_operations() -> Iterator[None]:
    with (
        mock.patch.object(upstream, "generate_masks_with_special_tokens_and_transfer_map", phrase_masks),
        mock.patch.object(upstream, "torch_compilable_check", return_value=None),
        mock.patch.object(torch, "linspace", _steps_of_one),
        mock.patch.object(torch, "as_tensor", _stacked),
    ):
        yield


def _pad_to_patches(self: swin.SwinPatchEmbeddings, pixel_values: Tensor, height: int, width: int) -> Tensor:
    """Zeros right and below up to whole patches, none where the sides fit."""
    high, wide = self.patch_size
    return functional.pad(pixel_values, (0, -width % wide, 0, -height % high))


def _merge_patches(self: swin.SwinPatchMerging, cells_BSC: Tensor, size: tuple[int, int]) -> Tensor:
    """Each 2 x 2 cells become one of twice the channels; a missing cell at an odd edge is zero."""
    count = ((size[0] + 1) // 2) * ((size[1] + 1) // 2)
    height, width = _numbers(*size, device=cells_BSC.device)
    across = (width + 1) // 2
    cell = torch.arange(count, device=cells_BSC.device)
    y, x = cell // across * 2, cell % across * 2
    source = _with_zero(cells_BSC)
    corners = [
        source.index_select(
            1, torch.where((y + row < height) & (x + column < width), (y + row) * width + x + column, height * width)
        )
        for column in range(2)
        for row in range(2)
    ]
    merged: Tensor = self.reduction(self.norm(torch.cat(corners, dim=-1)))
    return merged


@dataclass(frozen=True, slots=True)
class _Windows:
    """Where the cells of a map go: `cells` (N * area,) into the map and one zero, `places` (S,) back again.

    Cells of different `regions` (N, area) have met by rolling the map only and do not see each other.
    """

    count: int
    cells: Tensor
    places: Tensor
    regions: Tensor

    @classmethod
    def of(cls, height: int, width: int, side: int, shift: int, device: torch.device) -> _Windows:
        count = _unknown(((height + side - 1) // side) * ((width + side - 1) // side), device)
        cell = torch.arange(height * width, device=device)
        high, wide = _numbers(height, width, device=device)
        down, across = (high + side - 1) // side, (wide + side - 1) // side
        window = torch.arange(count, device=device)[:, None]
        inside = torch.arange(side * side, device=device)[None]
        y, x = window // across * side + inside // side, window % across * side + inside % side
        ends = ((y, down * side), (x, across * side))
        rows, columns = ((at >= end - side).long() + (at >= end - shift).long() for at, end in ends)
        from_y, from_x = ((at + shift) % end for at, end in ends)
        cells = torch.where((from_y < high) & (from_x < wide), from_y * wide + from_x, high * wide)
        to_y, to_x = (cell // wide - shift) % (down * side), (cell % wide - shift) % (across * side)
        places = (to_y // side * across + to_x // side) * side**2 + to_y % side * side + to_x % side
        return cls(count, cells.reshape(-1), places, rows * 3 + columns)


def _unknown(count: int, device: torch.device) -> int:
    """The same number, which torch.export takes for one that it knows nothing of, and so does not reason about."""
    number = torch.ones((), dtype=torch.long, device=device).mul(count).item()
    torch._check(number >= 1)
    return cast(int, number)  # while tracing it is a symbol, which int() would ask for its value


def _numbers(*sizes: int, device: torch.device) -> list[Tensor]:
    """Sizes as tensors: ONNX has remainders and comparisons of these only."""
    return [torch.scalar_tensor(size, dtype=torch.long, device=device) for size in sizes]


def _with_zero(cells_BSC: Tensor) -> Tensor:
    """One more cell, of zeros: the padding of all edges."""
    return functional.pad(cells_BSC, (0, 0, 0, 1))


def _window_attention(
    self: swin.SwinLayer, cells_BSC: Tensor, size: tuple[int, int], always_partition: bool = False, **kwargs: Any
) -> tuple[Tensor, None]:
    """SwinLayer's forward without dropout, as a backbone calls it (windows never shrink)."""
    assert always_partition
    attention = self.attention
    images, _, channels = cells_BSC.shape
    area = self.window_size**2
    windows = _Windows.of(*size, self.window_size, self.shift_size, cells_BSC.device)

    def heads(values: Tensor) -> Tensor:
        parts = values.reshape(images, windows.count, area, attention.num_attention_heads, attention.head_dim)
        return parts.transpose(2, 3)

    seen = _with_zero(self.layernorm_before(cells_BSC)).index_select(1, windows.cells)
    seen = seen.reshape(images, windows.count, area, channels)
    query, key, value = (heads(project(seen)) for project in (attention.q_proj, attention.k_proj, attention.v_proj))
    weights = query @ key.transpose(-1, -2) * attention.scaling + attention.relative_position_bias()
    if self.shift_size > 0:
        apart = windows.regions[:, :, None] != windows.regions[:, None, :]
        weights = weights + torch.where(apart, -100.0, 0.0)[:, None]
    mixed = (weights.softmax(-1) @ value).transpose(2, 3).reshape(images, windows.count * area, channels)
    hidden = cells_BSC + attention.o_proj(mixed).index_select(1, windows.places)
    return hidden + self.mlp(self.layernorm_after(hidden)), None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch prints and logs on its way: it is about torch, not about the model."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
