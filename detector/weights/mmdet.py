"""Names of MM-Grounding-DINO's weights in mmdet, beside those of transformers' model, and what is reordered between.

    backbone.stages.0.blocks.0.attn.w_msa.qkv.weight        mmdet: one tensor of query, key and value
    model.backbone.conv_encoder.model.swin.encoder.layers.0.blocks.0.attention.q_proj.weight, ...k_proj..., ...v_proj...

`pairs` lists every weight of a configuration, so that both directions read one table, and a name that is in neither
column is an error that says so. What mmdet and LLMDet have besides (`EXTRA`) is kept aside and comes back on export.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import MMGroundingDinoConfig, SwinConfig

from detector.model import OpenDetector
from detector.sizes import SIZES, config_of
from llmdet.errors import FormatError

# What a tensor of mmdet is made of: ours, which are the same where there are several; ours, (1,) for (); ours one below
# the other; ours with the pixels of a merged patch in another order; nothing, as it follows from the configuration.
Kind = Literal["same", "scalar", "stacked", "merged", "computed"]

LABELS = "dn_query_generator.label_embedding.weight"  # (256, C): what mmdet's denoising queries begin as
POSITION_IDS = "language_model.language_backbone.body.model.embeddings.position_ids"
# Of mmdet's denoising, of older BERTs, and of LLMDet's language side: image and region connectors, separator, LLM.
EXTRA = re.compile(
    rf"{re.escape(LABELS)}|{re.escape(POSITION_IDS)}|image_seperate\..+|ref_point_head\..+"
    r"|(?:lmm|connector|region_connector)(?:\.|_).+"
)
_SWIN = "model.backbone.conv_encoder.model.swin"
_BERT = "model.text_backbone."
# transformers' Swin has a norm behind its last stage that a backbone never uses.
UNUSED = {f"{_SWIN}.layernorm.weight": 1.0, f"{_SWIN}.layernorm.bias": 0.0}
_BOTH = ("weight", "bias")


@dataclass(frozen=True, slots=True)
class Pair:
    """One tensor of mmdet, and the tensors of ours that it is made of."""

    mmdet: str
    ours: tuple[str, ...]
    kind: Kind = "same"


@dataclass(frozen=True, slots=True)
class Converted:
    """Weights under the names of transformers' model, and what has no place in it under mmdet's names."""

    weights: dict[str, Tensor]
    extra: dict[str, Tensor]


def config_for(state: Mapping[str, Tensor]) -> MMGroundingDinoConfig:
    """The configuration of weights of mmdet, by their shapes. Raises FormatError for none of Swin-T, B and L."""
    need = ("backbone.patch_embed.projection.weight", "query_embedding.weight", f"{_THEIR_BERT}{_WORDS}")
    missing = [name for name in need if name not in state]
    if missing:
        raise FormatError(f"these are no weights of mmdet's MM-Grounding-DINO: {missing[0]} is missing")
    width, queries, tokens = (state[name].shape[0] for name in need)
    for size in SIZES.values():
        if size.width == width:
            return config_of(size, tokens, queries)
    known = ", ".join(f"{size.width} ({name})" for name, size in SIZES.items())
    raise FormatError(
        f"a Swin of {width} channels is none of the published sizes ({known}); say with --like which folder or hub id "
        "has a model of the same shape"
    )


def shapes(config: MMGroundingDinoConfig) -> dict[str, torch.Size]:
    """Names and shapes of all weights of ours."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in OpenDetector(config).state_dict().items()}


def from_mmdet(state: Mapping[str, Tensor], config: MMGroundingDinoConfig) -> Converted:
    """Weights of mmdet as ours. Raises FormatError that names what is missing, unknown or of another shape."""
    wanted = shapes(config)
    table = list(pairs(config, wanted))
    known = {pair.mmdet for pair in table}
    _refuse("has no place for", (name for name in state if name not in known and not EXTRA.fullmatch(name)))
    _refuse("lacks", (pair.mmdet for pair in table if pair.mmdet not in state and pair.kind != "computed"))
    weights = {name: torch.full(tuple(wanted[name]), value) for name, value in UNUSED.items() if name in wanted}
    for pair in table:
        if pair.mmdet in state:
            weights |= _taken_apart(pair, state[pair.mmdet], config)
    _refuse("has in another shape", (name for name in weights if weights[name].shape != wanted[name]))
    return Converted(weights, {name: state[name] for name in state if name not in known})


def to_mmdet(
    weights: Mapping[str, Tensor], extra: Mapping[str, Tensor], config: MMGroundingDinoConfig
) -> dict[str, Tensor]:
    """Ours as weights of mmdet, with what was kept aside; without that, denoising labels are drawn anew (seed 0)."""
    table = list(pairs(config, weights))
    used = {name for pair in table for name in pair.ours}
    _refuse("has no place for", (name for name in weights if name not in used and name not in UNUSED))
    _refuse("lacks", (name for name in used if name not in weights))
    state = {pair.mmdet: _put_together(pair, weights, config) for pair in table}
    labels = torch.randn(256, config.d_model, generator=torch.Generator().manual_seed(0))
    return {LABELS: labels} | state | dict(extra)


def _refuse(why: str, names: Iterable[str]) -> None:
    found = list(names)
    if found:
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise FormatError(f"the checkpoint {why} {', '.join(found[:5])}{more}")


# --- tensors --------------------------------------------------------------------------------------------------------


def _taken_apart(pair: Pair, tensor: Tensor, config: MMGroundingDinoConfig) -> dict[str, Tensor]:
    """Ours that a tensor of mmdet is made of."""
    if pair.kind == "computed":
        if not torch.equal(tensor, window_index(config)):
            raise FormatError(f"{pair.mmdet} is not the index of windows of {swin_of(config).window_size}")
        return {}
    if pair.kind == "stacked":
        return dict(zip(pair.ours, (part.clone() for part in tensor.chunk(len(pair.ours))), strict=True))
    if pair.kind == "merged":
        tensor = tensor[..., merge_order(tensor.shape[-1])]
    if pair.kind == "scalar":
        tensor = tensor.squeeze()
    return dict.fromkeys(pair.ours, tensor)


def _put_together(pair: Pair, weights: Mapping[str, Tensor], config: MMGroundingDinoConfig) -> Tensor:
    """The tensor of mmdet that ours make."""
    if pair.kind == "computed":
        return window_index(config)
    first = weights[pair.ours[0]]
    if pair.kind == "stacked":
        return torch.cat([weights[name] for name in pair.ours])
    if pair.kind == "merged":
        return first[..., merge_order(first.shape[-1]).argsort()]
    if not all(torch.equal(first, weights[name]) for name in pair.ours[1:]):
        raise FormatError(f"{' and '.join(pair.ours)} should be the same weights and are not")
    return first[None] if pair.kind == "scalar" else first


def merge_order(channels: int) -> Tensor:
    """Where Swin's merged patch has in mmdet what it has at 0, 1, ... in transformers, (channels,) int64.

    mmdet unfolds: channel c of the pixel (row, column) of four stands at 4c + 2 row + column. transformers puts the
    pixels (0, 0), (1, 0), (0, 1), (1, 1) behind each other, each with all its channels.
    """
    return torch.arange(channels).reshape(channels // 4, 4)[:, [0, 2, 1, 3]].T.reshape(-1)


def window_index(config: MMGroundingDinoConfig) -> Tensor:
    """Which row of the table of position biases two pixels of a window use, (side * side, side * side) int64."""
    side = swin_of(config).window_size
    place = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")).flatten(1)
    apart = place[:, :, None] - place[:, None, :] + side - 1
    return apart[0] * (2 * side - 1) + apart[1]


# --- names ----------------------------------------------------------------------------------------------------------

_THEIR_BERT = "language_model.language_backbone.body.model."
_WORDS = "embeddings.word_embeddings.weight"


def pairs(config: MMGroundingDinoConfig, names: Iterable[str]) -> Iterator[Pair]:
    """Every tensor of mmdet for a configuration; `names` are those of ours, of which BERT's are taken as they are."""
    swin = swin_of(config)
    yield from _backbone(swin)
    yield from _neck(len(swin.out_features), config.num_feature_levels)
    for name in names:
        if name.startswith(_BERT):
            yield Pair(_THEIR_BERT + name.removeprefix(_BERT), (name,))
    yield from _both("text_feat_map", "model.text_projection")
    for number in range(config.encoder_layers):
        yield from _encoder(number)
    for number in range(config.decoder_layers):
        yield from _decoder(number)
    yield from _heads(config.decoder_layers)
    yield from _both("decoder.norm", "model.decoder.layer_norm")
    for number in range(2):
        yield from _both(
            f"decoder.ref_point_head.layers.{number}", f"model.decoder.reference_points_head.layers.{number}"
        )
    yield from _both("memory_trans_fc", "model.enc_output")
    yield from _both("memory_trans_norm", "model.enc_output_norm")
    yield Pair("query_embedding.weight", ("model.query_position_embeddings.weight",))
    yield Pair("level_embed", ("model.level_embed",))


def _both(mmdet: str, ours: str, kind: Kind = "same") -> Iterator[Pair]:
    for end in _BOTH:
        yield Pair(f"{mmdet}.{end}", (f"{ours}.{end}",), kind)


def _renamed(mmdet: str, ours: str, names: Mapping[str, str]) -> Iterator[Pair]:
    """Weight and bias of parts below two places."""
    for theirs, own in names.items():
        yield from _both(f"{mmdet}.{theirs}", f"{ours}.{own}")


def swin_of(config: MMGroundingDinoConfig) -> SwinConfig:
    """The image backbone. Raises FormatError for one of another kind."""
    backbone = config.backbone_config
    if not isinstance(backbone, SwinConfig):
        kind = getattr(backbone, "model_type", "unknown one")
        raise FormatError(f"the image backbone is a {kind}; mmdet has names for MM-Grounding-DINO with Swin only")
    return backbone


def _backbone(swin: SwinConfig) -> Iterator[Pair]:
    yield from _both("backbone.patch_embed.projection", f"{_SWIN}.embeddings.patch_embeddings.projection")
    yield from _both("backbone.patch_embed.norm", f"{_SWIN}.embeddings.norm")
    for stage, depth in enumerate(swin.depths):
        for block in range(depth):
            yield from _block(
                f"backbone.stages.{stage}.blocks.{block}", f"{_SWIN}.encoder.layers.{stage}.blocks.{block}"
            )
        if stage + 1 < len(swin.depths):
            mmdet, ours = f"backbone.stages.{stage}.downsample", f"{_SWIN}.encoder.layers.{stage}.downsample"
            yield from _both(f"{mmdet}.norm", f"{ours}.norm", "merged")
            yield Pair(f"{mmdet}.reduction.weight", (f"{ours}.reduction.weight",), "merged")
    for name in swin.out_features:  # "stage1" is what mmdet counts as 0
        number = int(name.removeprefix("stage"))
        yield from _both(f"backbone.norm{number - 1}", f"model.backbone.conv_encoder.model.hidden_states_norms.{name}")


def _block(mmdet: str, ours: str) -> Iterator[Pair]:
    window = f"{mmdet}.attn.w_msa"
    bias = "relative_position_bias_table"
    yield Pair(f"{window}.{bias}", (f"{ours}.attention.relative_position_bias.{bias}",))
    yield Pair(f"{window}.relative_position_index", (), "computed")
    for end in _BOTH:
        yield Pair(f"{window}.qkv.{end}", tuple(f"{ours}.attention.{one}_proj.{end}" for one in "qkv"), "stacked")
    yield from _both(f"{window}.proj", f"{ours}.attention.o_proj")
    yield from _renamed(
        mmdet,
        ours,
        {
            "norm1": "layernorm_before",
            "norm2": "layernorm_after",
            "ffn.layers.0.0": "mlp.fc1",
            "ffn.layers.1": "mlp.fc2",
        },
    )


def _neck(stages: int, levels: int) -> Iterator[Pair]:
    for level in range(levels):
        mmdet = f"neck.convs.{level}" if level < stages else f"neck.extra_convs.{level - stages}"
        yield from _renamed(mmdet, f"model.input_proj_vision.{level}", {"conv": "0", "gn": "1"})


def _attention(mmdet: str, ours: str) -> Iterator[Pair]:
    """torch's attention, which has query, key and value in one."""
    for end in _BOTH:
        yield Pair(
            f"{mmdet}.attn.in_proj_{end}", tuple(f"{ours}.{one}.{end}" for one in ("query", "key", "value")), "stacked"
        )
    yield from _both(f"{mmdet}.attn.out_proj", f"{ours}.out_proj")


_DEFORMABLE = {name: name for name in ("sampling_offsets", "attention_weights", "value_proj", "output_proj")}


def _encoder(number: int) -> Iterator[Pair]:
    ours = f"model.encoder.layers.{number}"
    fusion = f"encoder.fusion_layers.{number}"
    yield Pair(f"{fusion}.gamma_v", (f"{ours}.fusion_layer.vision_param",))
    yield Pair(f"{fusion}.gamma_l", (f"{ours}.fusion_layer.text_param",))
    yield from _renamed(
        fusion,
        f"{ours}.fusion_layer",
        {
            "layer_norm_v": "layer_norm_vision",
            "layer_norm_l": "layer_norm_text",
            "attn.v_proj": "attn.vision_proj",
            "attn.l_proj": "attn.text_proj",
            "attn.values_v_proj": "attn.values_vision_proj",
            "attn.values_l_proj": "attn.values_text_proj",
            "attn.out_v_proj": "attn.out_vision_proj",
            "attn.out_l_proj": "attn.out_text_proj",
        },
    )
    text = f"encoder.text_layers.{number}"
    yield from _attention(f"{text}.self_attn", f"{ours}.text_enhancer_layer.self_attn")
    yield from _renamed(
        text,
        f"{ours}.text_enhancer_layer",
        {"norms.0": "layer_norm_before", "norms.1": "layer_norm_after", "ffn.layers.0.0": "fc1", "ffn.layers.1": "fc2"},
    )
    image = f"encoder.layers.{number}"
    yield from _renamed(f"{image}.self_attn", f"{ours}.deformable_layer.self_attn", _DEFORMABLE)
    yield from _renamed(
        image,
        f"{ours}.deformable_layer",
        {
            "norms.0": "self_attn_layer_norm",
            "norms.1": "final_layer_norm",
            "ffn.layers.0.0": "fc1",
            "ffn.layers.1": "fc2",
        },
    )


def _decoder(number: int) -> Iterator[Pair]:
    mmdet, ours = f"decoder.layers.{number}", f"model.decoder.layers.{number}"
    yield from _attention(f"{mmdet}.self_attn", f"{ours}.self_attn")
    yield from _attention(f"{mmdet}.cross_attn_text", f"{ours}.encoder_attn_text")
    yield from _renamed(f"{mmdet}.cross_attn", f"{ours}.encoder_attn", _DEFORMABLE)
    yield from _renamed(
        mmdet,
        ours,
        {
            "norms.0": "self_attn_layer_norm",
            "norms.1": "encoder_attn_text_layer_norm",
            "norms.2": "encoder_attn_layer_norm",
            "norms.3": "final_layer_norm",
            "ffn.layers.0.0": "fc1",
            "ffn.layers.1": "fc2",
        },
    )


def _heads(layers: int) -> Iterator[Pair]:
    """One head per decoder layer, which the model and its decoder both name, and one more for the encoder."""
    for number in range(layers):
        places = tuple(f"{start}class_embed.{number}.bias" for start in ("", "model.decoder."))
        yield Pair(f"bbox_head.cls_branches.{number}.bias", places, "scalar")
        for layer in range(3):
            for end in _BOTH:
                places = tuple(f"{start}bbox_embed.{number}.layers.{layer}.{end}" for start in ("", "model.decoder."))
                yield Pair(f"bbox_head.reg_branches.{number}.{2 * layer}.{end}", places)
    yield Pair(f"bbox_head.cls_branches.{layers}.bias", ("model.encoder_output_class_embed.bias",), "scalar")
    for layer in range(3):
        yield from _both(
            f"bbox_head.reg_branches.{layers}.{2 * layer}", f"model.encoder_output_bbox_embed.layers.{layer}"
        )
