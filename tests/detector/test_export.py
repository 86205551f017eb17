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
    """Random weights; Swin-T in MM-Grounding-DINO has width 96, depths 2, 2, 6, 2 and d_model 256."""
    stages = len(depths)
    backbone = SwinConfig(
        window_size=7,
        embed_dim=width,
        depths=depths,
        num_heads=[3, 6, 12, 24][:stages],
        out_indices=list(range(max(1, stages - 2), stages + 1)),
    )
    text = BertConfig(vocab_size=2000, hidden_size=96, num_hidden_layers=1, num_attention_heads=4, intermediate_size=96)
    config = MMGroundingDinoConfig(
        backbone_config=backbone,
        text_config=text,
        d_model=d_model,
        encoder_layers=1,
        decoder_layers=1,
        num_feature_levels=min(stages, 3) + 1,
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


def test_a_graph_in_eager_mode_is_the_model(tiny: OpenDetector) -> None:
    sample = export.inputs(2, 96, 128, 8)
    agreement = export.compare(export.Exportable(tiny)(*sample), tiny, sample)
    assert max(agreement.scores, agreement.boxes) < 1e-5
    assert agreement.tie < 1e-6
    assert agreement.queries == 2 * tiny.config.num_queries


@pytest.mark.parametrize(
    "weight",
    [
        "model.backbone.conv_encoder.model.bit.encoder.stages.2.layers.0.norm1.weight",
        "model.encoder.layers.0.deformable_layer.self_attn.value_proj.weight",
        "model.decoder.layers.0.fc1.weight",
        "bbox_embed.1.layers.1.weight",
    ],
)
def test_a_weight_that_is_one_percent_off_shows(weight: str, tiny: OpenDetector) -> None:
    sample = export.inputs(1, 96, 128, 8)
    other = export.Exportable(tiny)
    with torch.no_grad():
        other.plain.get_parameter(weight).mul_(1.01)
        agreement = export.compare(other(*sample), tiny, sample)
    assert max(agreement.scores, agreement.boxes) > 1e-3


def test_two_cells_that_are_as_good_may_be_swapped_and_others_not(tiny: OpenDetector) -> None:
    """A picture of one colour has cells that are equal: another order of these is right, other cells are not."""
    pixels, *rest = export.inputs(1, 96, 128, 8)
    sample = (torch.zeros_like(pixels), *rest)
    with torch.no_grad():
        answer = export.Exportable(tiny)(*sample)
        cells = answer[2]
        scores = _cell_scores(tiny, sample)
        chosen = scores[0, cells[0]]
        tied = int((chosen[:-1] - chosen[1:]).abs().argmin())
        assert chosen[tied] - chosen[tied + 1] < 1e-5
        swapped = cells.clone()
        swapped[0, [tied, tied + 1]] = cells[0, [tied + 1, tied]]
        with export.starting_from(swapped):
            other = tiny(*sample)
    found = (other.logits_BQT, other.boxes_BQ4, swapped)
    free = (answer[1] - other.boxes_BQ4).abs().max()
    agreement = export.compare(found, tiny, sample)
    assert free > 1e-3  # each rank has an embedding of its own, so that the boxes are others
    assert (agreement.scores, agreement.boxes, agreement.swapped) == (0.0, 0.0, 2)
    assert agreement.tie < 1e-4

    worst = swapped.clone()
    worst[0, 0] = scores[0].argmin()
    assert export.compare((*found[:2], worst), tiny, sample).tie > 1e-3
    worst[0, 0] = worst[0, 1]
    assert export.compare((*found[:2], worst), tiny, sample).tie == float("inf")
    worst[0, 0] = scores.shape[1]
    with pytest.raises(FormatError, match="chose cells that are not among"):
        export.compare((*found[:2], worst), tiny, sample)


def _cell_scores(model: OpenDetector, sample: tuple[torch.Tensor, ...]) -> torch.Tensor:
    names = ("pixel_values", "pixel_mask", "input_ids", "attention_mask")
    inner = model.model(**dict(zip(names, sample, strict=True)))
    return inner.enc_outputs_class.max(-1).values.sigmoid()


def test_what_is_no_number_is_no_agreement() -> None:
    one, none = export.Agreement(0.1, 0.2, 0.0, 1, 50), export.Agreement(float("nan"), 0.1, 0.3, 2, 50)
    for both in (one.joined(none), none.joined(one)):
        assert np.isnan(both.scores)
        assert (both.boxes, both.tie, both.swapped, both.queries) == (0.2, 0.3, 3, 100)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("backbone", "off"), [("tiny", 1.01), pytest.param("swin", 1.1, marks=pytest.mark.soak)])
def test_files_agree_with_the_model_at_other_sizes_lengths_and_batches_and_wrong_ones_do_not(
    backbone: str, off: float, tiny: OpenDetector, traced: ExportedProgram, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    model = tiny if backbone == "tiny" else swin_detector(96, [2, 1], 256)
    program = traced if backbone == "tiny" else export.trace(model)
    for kind in ("torch", "onnx"):
        path = tmp_path / f"{backbone}.{kind}"
        export.write(program, path, kind)
        agreement = export.check(path, kind, model, SHAPES)
        assert max(agreement.scores, agreement.boxes) < 1e-4
        assert agreement.tie < 1e-5
    assert export.onnx_opset(path) >= 16  # the first with GridSample
    from tests.detector.onnx_files import with_weight_off

    weight = model.model.decoder.layers[0].fc1.weight
    wrong = with_weight_off(path, weight, tmp_path / "wrong.onnx", off)
    agreement = export.check(wrong, "onnx", model, SHAPES[:1])
    assert max(agreement.scores, agreement.boxes) > 1e-3


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
    assert np.isneginf(found[0][1, :, 10:]).all()
    agreement = export.compare([torch.from_numpy(one) for one in found], tiny, (pixels, mask, ids, attention))
    assert max(agreement.scores, agreement.boxes) < 1e-4


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
