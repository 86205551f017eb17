"""Settings of the model and of training, and the tiny configuration that learns on a CPU.

Settings are frozen dataclasses of plain values: they compare, print, and travel to other processes as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from llmdet.errors import SettingError

if TYPE_CHECKING:
    from transformers import MMGroundingDinoConfig

Precision = Literal["fp32", "bf16"]
RegionTarget = Literal["phrase", "caption", "mixed"]
LabelMask = Literal["upstream", "answer"]
Schedule = Literal["cosine", "steps"]
Frozen = Literal["backbone", "neck", "text_backbone"]
Logger = Literal["tensorboard", "wandb"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CriterionSettings:
    """Weights of matching and loss; the defaults are those of MM-Grounding-DINO's mmdet recipe."""

    alpha: float = 0.25  # focal
    gamma: float = 2.0  # focal
    class_cost: float = 2.0
    l1_cost: float = 5.0
    giou_cost: float = 2.0
    class_weight: float = 1.0
    l1_weight: float = 5.0
    giou_weight: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DenoisingSettings:
    """Noised copies of the true boxes as extra training queries (DINO)."""

    groups: int = 2  # copies of every box; 0 turns denoising off
    box_noise: float = 1.0  # positives move by less than this share of half a side, negatives by one to two shares


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """How records become samples; the defaults take them as they are."""

    # what is to be said of a box: its phrase, its own caption (its phrase where it has none), or either by chance
    region_target: RegionTarget = "mixed"
    short_sides: tuple[int, ...] = ()  # pixels, one drawn for each sample; empty: the one size of the model
    long_side: int = 0  # pixels that the longer side may have then; 0: that of the model
    flip: float = 0.0  # share of samples that are mirrored, with left and right swapped in all their words
    group_by_aspect: bool = False  # upright photos share batches with upright ones, others with others
    # of detection records: `frozen` as the text has them, `dynamic` drawn anew from the source's names each time
    negatives: Literal["frozen", "dynamic"] = "frozen"
    negative_names: int = 85  # at most so many names that the photo does not show (`dynamic`)
    weights: dict[str, float] = field(default_factory=dict)  # how often a source's records come; 1 where not named
    # records of these splits are learned from ("" are those that have none), others are held out; empty: all of them
    splits: tuple[str, ...] = ("", "train", "trainval")

    def __post_init__(self) -> None:
        """Raise SettingError for numbers that cannot be meant."""
        if not 0 <= self.flip <= 1:
            raise SettingError(f"data.flip is a share from 0 to 1; got {self.flip}")
        if min((*self.short_sides, 1)) < 1 or self.long_side < 0:
            raise SettingError(f"data.short_sides and long_side are pixels; got {self.short_sides}, {self.long_side}")
        if self.negative_names < 0:
            raise SettingError(f"data.negative_names is a number from 0 on; got {self.negative_names}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionSettings:
    """Losses of a language model that reads the detector's features (LLMDet); the defaults are those of its recipe."""

    # a folder or hub id of a causal language model, alone or inside a LLaVA; `tiny`: made from the records' own texts
    llm: str = "tiny"
    # `full`: everything learns; `align`: the image connector alone, with detector and language model frozen
    stage: Literal["full", "align"] = "full"
    start: str = ""  # folder of a run whose connectors, looks and LoRA this one begins with, such as an `align` run
    levels: tuple[int, ...] = (-2, -3)  # feature levels that describe the image, counted from the coarsest (-1)
    grids: tuple[int, ...] = (20, 27)  # cells along a side of each of them; 20 and 27 are 1130 tokens
    image_weight: float = 1.0  # of the loss; 0 turns it off
    region_weight: float = 1.0  # of the loss; 0 turns it off
    max_regions: int = 16  # boxes of an image that are described in a step
    labels: LabelMask = "upstream"  # tokens to learn: those of the chat's frame too, or `answer`
    image_tokens: int = 1600  # longest sequence of an image, image tokens counted; the text is cut
    region_tokens: int = 40  # longest sequence of a region
    row_tokens: int = 1024  # sequences of regions share rows of about this length
    lora_rank: int = 128  # 0: no LoRA
    lora_alpha: float = 256.0  # LoRA is scaled by alpha / rank
    # regions look at the image inside the language model: `added` changes nothing at first, `normed` as LLMDet does
    looks: Literal["added", "normed", "off"] = "added"
    look_layers: int = 6  # layers with a look, spread evenly
    recompute: bool = True  # keep no activations of the language model: less memory, a third more time in it
    rate: float = 1.0  # factor of the learning rate


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """One training run. Bounded by steps, never by time."""

    steps: int = 1000
    batch_size: int = 8  # images of one step, over all processes
    accumulate: int = 1  # parts that a step is computed in, one after another, with less memory
    learning_rate: float = 1e-4
    slow_rate: float = 0.1  # factor for the image backbone and the text encoder
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4
    decay: Literal["all", "matrices"] = "all"  # `matrices`: not of biases and norms
    schedule: Schedule = "cosine"  # down to 0, or in `steps` at the milestones
    milestones: tuple[float, ...] = (0.8, 0.933)  # steps, or below 1 shares of all; LLMDet: 120k and 140k of 150k
    milestone_factor: float = 0.1  # of the rate at each milestone
    warmup: int = 50  # steps
    warmup_start: float | None = None  # factor of the first step's rate; none: 1 / warmup
    clip: float = 0.1  # global L2 norm of the gradient
    freeze: tuple[Frozen, ...] = ()  # parts that do not learn; LLMDet: backbone and neck
    frozen_noise: bool = False  # frozen parts keep dropout and drop path, as LLMDet's do
    ema: float = 0.0  # decay of the running mean of the weights, which is then what is kept and used; 0: none
    precision: Precision = "fp32"
    compile: bool = False  # torch.compile of backbones and layers
    seed: int = 0
    checkpoint_every: int = 500  # steps; the last step always writes one
    evaluate_every: int = 0  # steps after which the checkpoint is evaluated on the sets of the recipe; 0: never
    keep: int = 2  # newest checkpoints that stay on disk
    log_every: int = 10
    log_records: bool = False  # each process writes which records a step had: `records-RANK.jsonl`
    loggers: tuple[Logger, ...] = ("tensorboard",)  # where figures are drawn; `wandb` needs the extra of that name
    readers: int = 0  # processes that open images beside each training process
    threads: int = 0  # of torch in each training process; 0 leaves it alone
    criterion: CriterionSettings = CriterionSettings()
    denoising: DenoisingSettings = DenoisingSettings()
    data: DataSettings = DataSettings()
    captions: CaptionSettings | None = None  # caption losses; none: the detector learns from boxes alone

    def __post_init__(self) -> None:
        """Raise SettingError for numbers that cannot be meant."""
        if self.accumulate < 1 or self.batch_size % self.accumulate:
            raise SettingError(f"batch_size {self.batch_size} must be a multiple of accumulate {self.accumulate}")
        if not 0 <= self.ema < 1:
            raise SettingError(f"ema is a decay from 0 to below 1; got {self.ema}")
        if min(self.milestones, default=1) <= 0:
            raise SettingError(f"milestones are steps or shares above 0; got {self.milestones}")
        for name in ("checkpoint_every", "keep", "log_every"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is a number from 1 on; got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Where the model comes from: a checkpoint folder or hub id, or fresh weights: tiny, swin-t, swin-b or swin-l."""

    start: str = "tiny"
    short_side: int = 800  # images are resized to this shorter side (only where `start` is "tiny")
    long_side: int = 1333


def quickstart_model() -> ModelSettings:
    """The tiny model on scenes of 128 by 128 pixels."""
    return ModelSettings(start="tiny", short_side=128, long_side=128)


def quickstart_settings(steps: int = 900, seed: int = 0) -> TrainSettings:
    """The recipe of the quickstart: a tiny model from scratch on small scenes, on a CPU.

    A high rate with a short memory of the second moment is what makes it learn in minutes. Boxes and colours are
    learned first; the larger class weight and the gently noised boxes are for the shapes, which come last.
    """
    return TrainSettings(
        steps=steps,
        seed=seed,
        learning_rate=4e-3,
        slow_rate=0.5,
        betas=(0.9, 0.98),
        warmup=50,
        clip=10.0,
        checkpoint_every=max(steps // 2, 1),
        threads=1,
        criterion=CriterionSettings(class_weight=4.0),
        denoising=DenoisingSettings(groups=4, box_noise=0.5),
    )


def tiny_settings(steps: int = 1200, seed: int = 0) -> TrainSettings:
    """The same for data of one's own: more noise in the gradient, hence a gentler rate."""
    return replace(quickstart_settings(steps, seed), learning_rate=2e-3)


def tiny_captions() -> CaptionSettings:
    """For the tiny model: one grid of its coarser level and one look.

    No LoRA: the language model that is made for it has learned to read what stands in the image's place.
    """
    return CaptionSettings(
        llm="tiny",
        levels=(-1,),
        grids=(8,),
        max_regions=4,
        labels="answer",
        image_tokens=320,
        region_tokens=96,
        lora_rank=0,
        look_layers=1,
        recompute=False,
    )


def tiny_config(vocabulary: int) -> MMGroundingDinoConfig:
    """About half a million weights, strides 8 and 16: learns coloured shapes on a CPU in minutes.

    `d_model` is a multiple of 32 because upstream normalises in 32 groups. `vocabulary` is the number of tokens.
    """
    from transformers import BertConfig, BitConfig, MMGroundingDinoConfig

    backbone = BitConfig(
        embedding_size=32,
        hidden_sizes=[64, 128, 256],
        depths=[1, 1, 2],
        num_groups=8,
        layer_type="preactivation",
        out_features=["stage2", "stage3"],  # type: ignore[call-arg]
    )
    text = BertConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=256,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return MMGroundingDinoConfig(
        backbone_config=backbone,
        text_config=text,
        d_model=64,
        num_queries=30,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        num_feature_levels=2,
        dropout=0.0,
        fusion_droppath=0.0,
        decoder_bbox_embed_share=False,
        decoder_cls_embed_share=False,
        auxiliary_loss=True,
    )
