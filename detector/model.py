"""MM-Grounding-DINO with what training needs beyond transformers' model.

What differs from `MMGroundingDinoForObjectDetection`, whose weights and names are kept exactly:
- the decoder takes denoising queries in front of its own, and hands on reference boxes with their gradient, so that a
  layer's box loss also trains the layer before it ("look forward twice", DINO);
- the costly parts have the cheaper arithmetic of detector/attention.py;
- `forward` returns every layer's logits and boxes and the encoder's selected proposals, ready for the criterion,
  and computes no loss.
"""

# B images   Q queries   D denoising queries   L decoder layers   T text tokens   C channels   S cells   V levels

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import MMGroundingDinoConfig, MMGroundingDinoForObjectDetection
from transformers.models.mm_grounding_dino import modeling_mm_grounding_dino as upstream

from detector.attention import quicken
from detector.criterion import Predictions
from detector.denoising import Denoising


@dataclass(frozen=True, slots=True)
class Features:
    """What other heads read: the encoder's memory, and the ordinary queries after the last decoder layer.

    `memory_BSC` holds the levels of `shapes` (height, width) one after another, True in `real_BS` where a cell is no
    padding; `ratios_BV2` is the share of width and height that is image; `boxes_BQ4` are cxcywh in 0..1.
    """

    memory_BSC: Tensor
    real_BS: Tensor
    shapes: tuple[tuple[int, int], ...]
    ratios_BV2: Tensor
    states_BQC: Tensor
    boxes_BQ4: Tensor

    def of_image(self, number: int) -> Features:
        """Of one image of the batch, the axis B kept."""
        one = slice(number, number + 1)
        ratios, states, boxes = self.ratios_BV2[one], self.states_BQC[one], self.boxes_BQ4[one]
        return Features(self.memory_BSC[one], self.real_BS[one], self.shapes, ratios, states, boxes)


@dataclass(frozen=True, slots=True)
class Outputs:
    """What one pass gives: `matched` holds the L decoder layers and then the encoder's proposals as sets of Q."""

    matched: Predictions
    denoised: Predictions | None
    features: Features

    @property
    def logits_BQT(self) -> Tensor:
        """Of the last decoder layer; -inf on padding tokens."""
        return self.matched.logits_KBQT[-2]

    @property
    def boxes_BQ4(self) -> Tensor:
        """Of the last decoder layer, cxcywh in 0..1."""
        return self.matched.boxes_KBQ4[-2]


class DenoisingDecoder(upstream.MMGroundingDinoDecoder):
    """Upstream's decoder for reference boxes of four numbers, with `noise` queries in front where there are any."""

    noise: Denoising | None = None
    seen: tuple[Tensor, tuple[tuple[int, int], ...], Tensor]  # of the last pass: real cells, shapes, valid ratios
    bbox_embed: nn.ModuleList  # type: ignore[assignment]

    def forward(  # type: ignore[override]
        self,
        inputs_embeds: Tensor,
        vision_encoder_hidden_states: Tensor,
        *,
        text_encoder_hidden_states: Tensor,
        text_encoder_attention_mask: Tensor,
        reference_points: Tensor,
        valid_ratios: Tensor,
        **kwargs: Any,
    ) -> upstream.MMGroundingDinoDecoderOutput:
        """Layer by layer: normed states (B, L, D + Q, C), and the reference boxes that each layer starts from."""
        shapes = tuple((int(height), int(width)) for height, width in kwargs["spatial_shapes_list"])
        self.seen = (kwargs["vision_encoder_attention_mask"], shapes, valid_ratios)
        hidden, reference, mask = self._queries(inputs_embeds, reference_points)
        floor = torch.finfo(text_encoder_hidden_states.dtype).min
        text_mask = text_encoder_attention_mask[:, None, None, :].to(text_encoder_hidden_states.dtype) * floor
        layers = {name: kwargs[name] for name in ("spatial_shapes", "spatial_shapes_list", "level_start_index")}
        states, starts = [], [reference]
        for number, layer in enumerate(self.layers):
            scaled = reference.detach()[:, :, None] * torch.cat([valid_ratios, valid_ratios], -1)[:, None]
            place = upstream.encode_sinusoidal_position_embedding(scaled[:, :, 0, :], self.config.d_model // 2)
            hidden = layer(
                hidden_states=hidden,
                position_embeddings=self.reference_points_head(place),
                reference_points=scaled,
                vision_encoder_hidden_states=vision_encoder_hidden_states,
                vision_encoder_attention_mask=kwargs["vision_encoder_attention_mask"],
                text_encoder_hidden_states=text_encoder_hidden_states,
                text_encoder_attention_mask=text_mask,
                self_attn_mask=mask,
                **layers,
            )[0]
            states.append(self.layer_norm(hidden))
            if number + 1 < len(self.layers):
                moved = self.bbox_embed[number](hidden) + torch.special.logit(reference.detach(), eps=1e-5)
                reference = moved.sigmoid()
                starts.append(reference)
        return upstream.MMGroundingDinoDecoderOutput(
            last_hidden_state=states[-1],
            intermediate_hidden_states=torch.stack(states, dim=1),
            intermediate_reference_points=torch.stack(starts, dim=1),
        )

    def _queries(self, content_BQC: Tensor, reference_BQ4: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        if self.noise is None:
            return content_BQC, reference_BQ4, None
        count = self.noise.boxes_BD4.shape[1]
        rows = torch.arange(count, device=content_BQC.device) % content_BQC.shape[1]
        content = torch.cat([content_BQC[:, rows], content_BQC], dim=1)
        reference = torch.cat([self.noise.boxes_BD4.to(reference_BQ4.dtype), reference_BQ4], dim=1)
        return content, reference, self.noise.mask_BQQ[:, None].to(content.dtype)


class OpenDetector(MMGroundingDinoForObjectDetection):
    """The detector that is trained and used here; its folder opens in plain transformers."""

    def __init__(self, config: MMGroundingDinoConfig) -> None:
        super().__init__(config)
        self.model.decoder = DenoisingDecoder(config)
        self.model.decoder.class_embed = copy.deepcopy(self.class_embed)
        self.model.decoder.bbox_embed = copy.deepcopy(self.bbox_embed)
        quicken(self)
        self.post_init()

    def forward(
        self,
        pixel_values: Tensor,
        pixel_mask: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        noise: Denoising | None = None,
    ) -> Outputs:
        """One pass over a batch of images (B, 3, H, W), normalised, and prompts (B, T), both padded."""
        if self.training:  # convolutions and pooling are faster so; results differ in the last digits
            pixel_values = pixel_values.contiguous(memory_format=torch.channels_last)
        self.model.decoder.noise = noise
        try:
            inner = self.model(
                pixel_values=pixel_values, input_ids=input_ids, attention_mask=attention_mask, pixel_mask=pixel_mask
            )
        finally:
            self.model.decoder.noise = None
        valid_BT = attention_mask.bool()
        logits, boxes = self._heads(inner, valid_BT)
        first = noise.boxes_BD4.shape[1] if noise is not None else 0
        proposals, places = self._proposals(inner)
        matched = Predictions(
            torch.cat([logits[:, :, first:], proposals[None]]), torch.cat([boxes[:, :, first:], places[None]]), valid_BT
        )
        denoised = Predictions(logits[:, :, :first], boxes[:, :, :first], valid_BT) if first else None
        real, shapes, ratios = self.model.decoder.seen
        memory, states = given(inner.encoder_last_hidden_state_vision), given(inner.intermediate_hidden_states)
        # Noised queries come first; what was matched counts from the first ordinary one.
        features = Features(memory, real, shapes, ratios, states[:, -1, first:], boxes[-1, :, first:])
        return Outputs(matched, denoised, features)

    def _heads(self, inner: upstream.MMGroundingDinoModelOutput, valid_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (L, B, D + Q, T) and boxes (L, B, D + Q, 4) of every decoder layer."""
        logits, boxes = [], []
        states, starts = given(inner.intermediate_hidden_states), given(inner.intermediate_reference_points)
        for number, (score, refine) in enumerate(zip(self.class_embed, self.bbox_embed, strict=True)):
            hidden = states[:, number]
            start = torch.special.logit(starts[:, number], eps=1e-5)
            logits.append(score(hidden, inner.encoder_last_hidden_state_text, valid_BT))
            boxes.append((refine(hidden) + start).sigmoid())
        return torch.stack(logits), torch.stack(boxes)

    def _proposals(self, inner: upstream.MMGroundingDinoModelOutput) -> tuple[Tensor, Tensor]:
        """Logits (B, Q, T) and boxes (B, Q, 4) of the encoder cells that became queries."""
        logits_BST = given(inner.enc_outputs_class)
        best_BQ = logits_BST.max(-1).values.topk(self.config.num_queries, dim=1).indices[..., None]
        logits = logits_BST.gather(1, best_BQ.expand(-1, -1, logits_BST.shape[-1]))
        boxes = given(inner.enc_outputs_coord_logits).gather(1, best_BQ.expand(-1, -1, 4)).sigmoid()
        return logits, boxes


def given(tensor: Tensor | None) -> Tensor:
    """A field of upstream's output that this model always fills."""
    assert tensor is not None
    return tensor


@torch.no_grad()
def scale_init(model: OpenDetector, fusion: float = 0.1, mixing: float = 0.1) -> None:
    """Start weights for training from scratch: standard deviation 1/sqrt(fan in), and a text-image fusion that is felt.

    Upstream's 0.02 and 1e-4 suit a model that starts from trained backbones; a small model never wakes up from them.
    What upstream sets to zero (offsets, last layers of box heads) stays zero. Self-attention of the text starts at
    `mixing` of its strength: as long as tokens of a phrase are much the same, the easiest word explains them all.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and bool(module.weight.any()):
            fan_in = module.weight[0].numel()
            module.weight.normal_(0.0, 1.0 / math.sqrt(fan_in))
        elif isinstance(module, upstream.MMGroundingDinoFusionLayer):
            module.vision_param.fill_(fusion)
            module.text_param.fill_(fusion)
    for name, parameter in model.named_parameters():
        if name.endswith(("attention.output.dense.weight", "text_enhancer_layer.self_attn.out_proj.weight")):
            parameter.mul_(mixing)


def parameters_without_gradient(model: nn.Module) -> list[str]:
    """Names of trainable parameters that the last backward pass did not reach."""
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None]
