"""Export: windows, masks and the comparison by themselves; whole files (slow) against the model, at other sizes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.export import ExportedProgram
from transformers import BertConfig, MMGroundingDinoConfig, SwinConfig
from transformers.models.mm_grounding_dino import modeling_mm_grounding_dino as upstream

from detector import checkpoint, export
from detector.config import quickstart_model
from detector.model import OpenDetector
from llmdet.errors import FormatError

# Images, height, width, tokens; the trace saw 2, 224, 288, 12. Neither side need be a multiple of anything.
SHAPES = ((1, 256, 320, 8), (2, 320, 256, 20), (1, 101, 333, 5))


def swin_detector(width: int, depths: list[int], d_model: int) -> OpenDetector:
    """Random weights; Swin-T in MM-Grounding-DINO has width 96 and d_model 256."""
    backbone = SwinConfig(
        window_size=7, embed_dim=width, depths=depths, num_heads=[3, 6, 12, 24], out_indices=[2, 3, 4]
    )
    text = BertConfig(vocab_size=2000, hidden_size=96, num_hidden_layers=1, num_attention_heads=4, intermediate_size=96)
    config = MMGroundingDinoConfig(
        backbone_config=backbone,
        text_config=text,
        d_model=d_model,
        encoder_layers=1,
        decoder_layers=2,
        decoder_bbox_embed_share=False,
        decoder_cls_embed_share=False,
        num_queries=50,
    )
    torch.manual_seed(0)
    return awake(OpenDetector(config).eval())


def awake(model: OpenDetector) -> OpenDetector:
    """Box heads start at zero: give them something to add, so that a difference would show."""
    with torch.no_grad():
        for head in model.bbox_embed:
            torch.nn.init.normal_(head.layers[-1].weight, std=0.2)
    return model


@pytest.fixture(scope="module")
def tiny() -> OpenDetector:
    return awake(checkpoint.start(quickstart_model(), seed=1).model.eval())


@pytest.fixture(scope="module")
def traced(tiny: OpenDetector) -> ExportedProgram:
    return export.trace(tiny)


def test_phrase_masks_are_those_of_transformers() -> None:
    special = torch.tensor(upstream.SPECIAL_TOKENS)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 8, (200, 11), generator=generator)
    ids = torch.where(ids < 4, special[ids.clamp(max=3)], ids + 2000)  # half of them end a phrase
    found = export.phrase_masks(ids, special)
    expected = upstream.generate_masks_with_special_tokens_and_transfer_map(ids, special)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_windows_by_indices_see_what_swin_sees() -> None:
    model = swin_detector(24, [2, 1, 2, 1], 64)
    ours = export.Exportable(model).plain.model.backbone.conv_encoder.model
    theirs = model.model.backbone.conv_encoder.model
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for height, width in ((64, 96), (101, 77)):
            pixels = torch.randn(2, 3, height, width, generator=generator)
            maps = zip(ours(pixels).feature_maps, theirs(pixels).feature_maps, strict=True)
            for found, expected in maps:
                assert found.shape == expected.shape
                assert torch.allclose(found, expected, atol=1e-5)


def test_difference_does_not_mind_the_order_of_queries_and_sees_a_moved_box() -> None:
    logits = np.linspace(-3, 3, 24, dtype=np.float32).reshape(1, 6, 4)
    boxes = np.linspace(0, 1, 24, dtype=np.float32).reshape(1, 6, 4)
    logits[..., 3] = -np.inf  # padding
    other = [5, 0, 1, 2, 3, 4]
    assert export.difference((logits[:, other], boxes[:, other]), (logits, boxes)) == export.Agreement(0.0, 0.0)
    moved = boxes.copy()
    moved[0, 2, 1] += 0.01
    assert export.difference((logits, moved), (logits, boxes)).boxes == pytest.approx(0.01, abs=1e-6)
    moved[0, 2, 1] = np.nan
    assert np.isnan(export.difference((logits, moved), (logits, boxes)).boxes)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("backbone", ["tiny", "swin"])
def test_files_agree_with_the_model_at_other_sizes_lengths_and_batches(
    backbone: str, tiny: OpenDetector, traced: ExportedProgram, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    model = tiny if backbone == "tiny" else swin_detector(96, [1, 2, 1, 1], 256)
    program = traced if backbone == "tiny" else export.trace(model)
    for kind in ("torch", "onnx"):
        path = tmp_path / f"{backbone}.{kind}"
        export.write(program, path, kind)
        agreement = export.check(path, kind, model, SHAPES)
        assert max(agreement.scores, agreement.boxes) < 1e-3
    assert export.onnx_opset(path) >= 16  # the first with GridSample


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_padding_of_pictures_and_prompts_counts_in_a_file_as_in_the_model(
    tiny: OpenDetector, traced: ExportedProgram, tmp_path: Path
) -> None:
    ort = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    path = tmp_path / "tiny.onnx"
    export.write(traced, path, "onnx")
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [(one.name, one.shape) for one in session.get_inputs()] == [
        ("pixel_values", ["images", 3, "height", "width"]),
        ("pixel_mask", ["images", "height", "width"]),
        ("input_ids", ["images", "tokens"]),
        ("attention_mask", ["images", "tokens"]),
    ]
    pixels, mask, ids, attention = export.inputs(2, 160, 224, 16)
    mask[1, 120:], mask[1, :, 200:], pixels[1, :, 120:], pixels[1, :, :, 200:] = 0, 0, 0, 0
    attention[1, 10:], ids[1, 10:] = 0, 0
    names = ("pixel_values", "pixel_mask", "input_ids", "attention_mask")
    found = session.run(
        None, {name: part.numpy() for name, part in zip(names, (pixels, mask, ids, attention), strict=True)}
    )
    with torch.no_grad():
        expected = tiny(pixels, mask, ids, attention)
    assert np.isneginf(found[0][1, :, 10:]).all()
    agreement = export.difference(found, (expected.logits_BQT.numpy(), expected.boxes_BQ4.numpy()))
    assert max(agreement.scores, agreement.boxes) < 1e-3


@pytest.mark.slow
def test_a_file_that_is_none_is_said_so(tiny: OpenDetector, tmp_path: Path) -> None:
    """The graph of another size of prompt cannot run: `check` names the shape."""

    class Fixed(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
            return a + 1

    path = tmp_path / "fixed.pt2"
    torch.export.save(torch.export.export(Fixed(), export.inputs(1, 64, 64, 8)), path)
    with pytest.raises(FormatError, match=r"does not run on \(images, height, width, tokens\) \(1, 96, 64, 8\)"):
        export.check(path, "torch", tiny, [(1, 96, 64, 8)])
