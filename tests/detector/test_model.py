"""The model: the same answers as plain transformers, and denoising that ordinary queries do not see."""

import numpy as np
import pytest
import torch
from transformers import MMGroundingDinoForObjectDetection

from detector import checkpoint, denoising, text
from detector.config import CriterionSettings, DenoisingSettings, quickstart_model
from detector.criterion import criterion, pad_targets
from detector.data import pad_ids
from detector.model import OpenDetector, parameters_without_gradient

Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


@pytest.fixture(scope="module")
def model() -> OpenDetector:
    torch.set_num_threads(1)
    net = checkpoint.start(quickstart_model(), seed=0).model.eval()
    with torch.no_grad():  # box heads start at zero; give every layer something to add
        for head in net.bbox_embed:
            torch.nn.init.normal_(head.layers[-1].weight, std=0.2)
    return net


def inputs() -> Inputs:
    """Two images of different size and two prompts of different length."""
    g = torch.Generator().manual_seed(0)
    pixels, mask = torch.randn(2, 3, 64, 96, generator=g), torch.ones(2, 64, 96, dtype=torch.long)
    pixels[1, :, :, 64:], mask[1, :, 64:] = 0, 0
    tokenizer = checkpoint.tiny_tokenizer()
    prompts = [text.from_names(["red square", "blue star", "dog"]), text.from_names(["cat"])]
    ids = [text.encode(tokenizer, prompt, 256).ids for prompt in prompts]
    return pixels, mask, *pad_ids(ids)


@torch.no_grad()
def test_logits_and_boxes_equal_those_of_plain_transformers(model: OpenDetector) -> None:
    plain = MMGroundingDinoForObjectDetection(model.config).eval()
    plain.load_state_dict(model.state_dict())
    pixels, mask, ids, attention = inputs()
    expected = plain(pixel_values=pixels, pixel_mask=mask, input_ids=ids, attention_mask=attention)
    found = model(pixels, mask, ids, attention)
    width = ids.shape[1]
    assert torch.allclose(found.boxes_BQ4, expected.pred_boxes, atol=1e-6)
    assert torch.allclose(found.logits_BQT, expected.logits[..., :width], atol=1e-5)
    assert bool(torch.isinf(found.logits_BQT[1, :, int(attention[1].sum()) :]).all())


@torch.no_grad()
def test_an_image_has_the_same_answer_alone_and_in_a_batch(model: OpenDetector) -> None:
    pixels, mask, ids, attention = inputs()
    together = model(pixels, mask, ids, attention)
    width = int(attention[1].sum())
    alone = model(pixels[1:], mask[1:], ids[1:, :width], attention[1:, :width])
    assert torch.allclose(together.boxes_BQ4[1], alone.boxes_BQ4[0], atol=1e-5)
    assert torch.allclose(together.logits_BQT[1, :, :width], alone.logits_BQT[0], atol=1e-4)


@torch.no_grad()
def test_ordinary_queries_do_not_see_the_noised_ones(model: OpenDetector) -> None:
    pixels, mask, ids, attention = inputs()
    boxes = [torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.3, 0.3, 0.1, 0.2]]).numpy(), torch.zeros(0, 4).numpy()]
    noise = denoising.build(boxes, [(1,), (2,)], model.config.num_queries, DenoisingSettings(groups=3))
    without, with_noise = model(pixels, mask, ids, attention), model(pixels, mask, ids, attention, noise=noise)
    assert torch.allclose(without.matched.boxes_KBQ4, with_noise.matched.boxes_KBQ4, atol=1e-5)
    assert with_noise.denoised is not None
    assert with_noise.denoised.boxes_KBQ4.shape == (2, 2, 12, 4)
    assert model.model.decoder.noise is None


def test_loss_of_an_image_through_the_whole_model_does_not_change_with_its_neighbours(model: OpenDetector) -> None:
    pixels, mask, ids, attention = inputs()
    boxes = [torch.rand(3, 4).numpy() * 0.3 + 0.3, torch.rand(1, 4).numpy() * 0.3 + 0.3]
    tokens = [torch.rand(3, 6).numpy() > 0.5, torch.rand(1, 3).numpy() > 0.5]

    def losses(rows: slice) -> torch.Tensor:
        width = int(attention[rows].sum(1).max())
        noise = denoising.build(boxes[rows], [(1,), (2,)][rows], model.config.num_queries, DenoisingSettings())
        out = model(pixels[rows], mask[rows], ids[rows, :width], attention[rows, :width], noise=noise)
        targets = pad_targets(boxes[rows], tokens[rows], width)
        return criterion(out.matched, out.denoised, noise, targets, CriterionSettings(), 1.0).per_image_B

    with torch.no_grad():
        together = losses(slice(0, 2))
        assert float(losses(slice(0, 1))) == pytest.approx(float(together[0]), rel=1e-4)
        assert float(losses(slice(1, 2))) == pytest.approx(float(together[1]), rel=1e-4)


def test_the_loss_reaches_the_encoders_heads_and_all_else_but_unused_norms() -> None:
    net = checkpoint.start(quickstart_model(), seed=1).model.train()
    pixels, mask, ids, attention = inputs()
    boxes = [torch.rand(2, 4).numpy() * 0.3 + 0.3, torch.zeros(0, 4).numpy()]
    tokens = [torch.ones(2, 6, dtype=torch.bool).numpy(), torch.zeros(0, 3, dtype=torch.bool).numpy()]
    out = net(pixels, mask, ids, attention)
    targets = pad_targets(boxes, tokens, ids.shape[1])
    criterion(out.matched, None, None, targets, CriterionSettings(), 2.0).total.backward()
    missing = parameters_without_gradient(net)
    assert all("backbone.conv_encoder" in name or "text_backbone" in name for name in missing), missing
    for name in ("enc_output.weight", "enc_output_norm.weight", "encoder_output_bbox_embed.layers.2.weight"):
        gradient = net.model.get_parameter(name).grad
        assert gradient is not None
        assert float(gradient.abs().sum()) > 0


@torch.no_grad()
def test_features_are_those_of_ordinary_queries_whatever_stands_before_them(model: OpenDetector) -> None:
    """Noised queries come first in the decoder, and a match counts from the first ordinary one."""
    pixels, mask, ids, attention = inputs()
    boxes = [np.array([[0.3, 0.4, 0.2, 0.3], [0.6, 0.5, 0.3, 0.2]], dtype=np.float32)] * 2
    noise = denoising.build(boxes, [(1,), (2,)], model.config.num_queries, DenoisingSettings())
    assert noise is not None
    alone = model(pixels, mask, ids, attention).features
    beside = model(pixels, mask, ids, attention, noise=noise).features
    assert beside.states_BQC.shape == (2, model.config.num_queries, model.config.d_model)
    assert torch.allclose(beside.states_BQC, alone.states_BQC, atol=1e-5)
    assert torch.allclose(beside.boxes_BQ4, alone.boxes_BQ4, atol=1e-6)
    assert sum(height * width for height, width in alone.shapes) == alone.memory_BSC.shape[1] == alone.real_BS.shape[1]
    assert alone.ratios_BV2[1].tolist() == [[pytest.approx(2 / 3), 1.0]] * 2  # a third of the canvas is padding
