"""The published sizes of MM-Grounding-DINO, Swin-T, Swin-B and Swin-L, as configured by mmdet and LLMDet.

What differs from the defaults of transformers' configuration, which are for running published weights: dropout, drop
path and the weight of the class cost are those of the training recipe, and every decoder layer has heads of its own,
as all published weights have.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

from transformers import BertConfig, MMGroundingDinoConfig, SwinConfig

BERT_TOKENS = 30522  # of bert-base-uncased
# Of fusion, text layers, encoder and decoder, as mmdet trains them; BERT keeps its own 0.1.
NOISE = {
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "text_enhancer_dropout": 0.0,
    "fusion_dropout": 0.1,
    "fusion_droppath": 0.0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What one size has of its own."""

    width: int  # channels of the first Swin stage; a size is known by it
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    window: int
    pretrained_side: int  # pixels of the images that the backbone was first trained on
    drop_path: float
    stages: tuple[int, ...]  # of Swin, from 1, that are levels of the detector; a coarser one is added to them
    short_side: int = 800  # images are resized to this shorter side
    long_side: int = 1333

    @property
    def levels(self) -> int:
        return len(self.stages) + 1


SIZES = {
    "swin-t": Size(
        width=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24), window=7, pretrained_side=224, drop_path=0.2,
        stages=(2, 3, 4),
    ),
    "swin-b": Size(
        width=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32), window=12, pretrained_side=384, drop_path=0.3,
        stages=(2, 3, 4),
    ),
    "swin-l": Size(
        width=192, depths=(2, 2, 18, 2), heads=(6, 12, 24, 48), window=12, pretrained_side=384, drop_path=0.2,
        stages=(1, 2, 3, 4), short_side=1000, long_side=1560,
    ),
}  # fmt: skip


def config_of(size: Size, vocabulary: int = BERT_TOKENS, queries: int = 900) -> MMGroundingDinoConfig:
    """The configuration of a size. `vocabulary` is the number of tokens that its BERT-base knows."""
    backbone = SwinConfig(
        image_size=size.pretrained_side,
        window_size=size.window,
        embed_dim=size.width,
        depths=list(size.depths),
        num_heads=list(size.heads),
        drop_path_rate=size.drop_path,
        out_features=[f"stage{number}" for number in size.stages],  # type: ignore[call-arg]
    )
    config = MMGroundingDinoConfig(
        backbone_config=backbone,
        text_config=BertConfig(vocab_size=vocabulary),
        num_queries=queries,
        num_feature_levels=size.levels,
        class_cost=2.0,
        decoder_bbox_embed_share=False,
        decoder_cls_embed_share=False,
        auxiliary_loss=True,
    )
    config.update(NOISE)
    return config


def for_training(config: MMGroundingDinoConfig) -> MMGroundingDinoConfig:
    """The configuration with the dropout of the recipe, where it is one of the published sizes.

    Folders of the hub carry what transformers' configuration happens to begin with: dropout 0.1 in the decoder and
    dropped fusion paths, which these weights were never trained with. Other models keep what their folder says.
    """
    size = next((one for one in SIZES.values() if _is(config.backbone_config, one)), None)
    if size is None:
        return config
    own = copy.deepcopy(config)
    own.update(NOISE)
    swin = own.backbone_config
    assert isinstance(swin, SwinConfig)
    swin.hidden_dropout_prob = swin.attention_probs_dropout_prob = 0.0
    swin.drop_path_rate = size.drop_path
    return own


def _is(backbone: object, size: Size) -> bool:
    if not isinstance(backbone, SwinConfig):
        return False
    return (backbone.embed_dim, tuple(backbone.depths)) == (size.width, size.depths)
