"""The caption losses: a frozen language model says what is in the image and in each box, from the detector's features.

LLMDet's two tasks (arXiv 2501.18954, section 3): the image from a grid of tokens, a box from the one query that was
matched to it, which may look back at the image. Their loss reaches the detector through the features.
"""

# B images   Q queries   N texts   M regions of an image   V levels   C channels of the detector   H of the LLM

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import orjson
import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import MMGroundingDinoConfig

from detector.captions.connectors import Connector, Glance, Look, grid_boxes, level_map, sine_code
from detector.captions.llm import LanguageModel
from detector.captions.packing import Rows, Tail, pack
from detector.captions.scripts import IMAGE_PROMPT, REGION_PROMPT, Script
from detector.config import CaptionSettings
from detector.criterion import corners
from detector.model import Features
from detector.words import Words
from llmdet.errors import FormatError, MissingError, SettingError

WEIGHTS, FACTS = "captions.safetensors", "captions.json"
_STREAM = 2  # of the random numbers of a sample; its noise and its words have others


@dataclass(frozen=True, slots=True)
class Regions:
    """Boxes whose text is to be said: image and matched query of each, and the texts."""

    image_N: Tensor
    query_N: Tensor
    texts: tuple[str, ...]


class CaptionHeads(nn.Module):
    """Connectors, looks and LoRA around a frozen language model; see `forward`.

    Raises SettingError where settings and detector do not fit.
    """

    def __init__(self, llm: LanguageModel, config: MMGroundingDinoConfig, settings: CaptionSettings) -> None:
        super().__init__()
        _check(config, settings)
        self.settings, self.llm = settings, llm
        self.connector = Connector(config.d_model, llm.hidden_size)
        self.separator = nn.Parameter(torch.randn(1, llm.hidden_size)) if len(settings.levels) > 1 else None
        self.image_script = Script(llm.tokenizer, IMAGE_PROMPT, settings.labels)
        self.region_script = Script(llm.tokenizer, REGION_PROMPT, settings.labels)
        self.region_connector: Connector | None = None
        self.reference: nn.Sequential | None = None
        if settings.stage == "align":
            return
        self.region_connector = Connector(config.d_model, llm.hidden_size)
        self.region_connector.load_state_dict(self.connector.state_dict())
        if settings.lora_rank:
            llm.add_lora(settings.lora_rank, settings.lora_alpha)
        if settings.looks != "off":
            llm.add_looks(settings.look_layers, partial(Look, config, llm.hidden_size, settings.looks == "normed"))
            wide, d = 2 * config.d_model, config.d_model
            self.reference = nn.Sequential(nn.Linear(wide, d), nn.ReLU(), nn.Linear(d, d))
        self._freeze_idle()

    def train(self, mode: bool = True) -> CaptionHeads:
        """The language model stays in evaluation mode."""
        super().train(mode)
        self.llm.eval()
        return self

    def forward(self, features: Features, match_BQ: Tensor, words: Sequence[Words]) -> dict[str, Tensor]:
        """Weighted losses by name, to be added to the detector's.

        `match_BQ` is the box of each ordinary query after the last decoder layer, or -1. Each loss is the mean over
        the tokens to predict; with several processes the sum divided by the mean of their counts.
        """
        device = features.memory_BSC.device
        wanted = [(number, one.image) for number, one in enumerate(words) if one.image and self.settings.image_weight]
        regions = self.choose(match_BQ, words)
        losses = {"loss/caption_image": self.image_loss(features, wanted) * self.settings.image_weight}
        if self.region_connector is not None:
            losses["loss/caption_region"] = self.region_loss(features, regions) * self.settings.region_weight
        if not (wanted and regions.texts):  # other processes wait for the gradient of every weight
            idle = torch.stack([parameter.sum() for parameter in self.trained().values()]).sum() * 0.0
            losses["loss/caption_image"] = losses["loss/caption_image"] + idle.to(device)
        return losses

    def image_tokens(self, features: Features, image: int) -> Tensor:
        """Tokens of an image, (cells of all grids + separators, H), in the order of `settings.levels`."""
        parts: list[Tensor] = []
        for level, cells in zip(self.settings.levels, self.settings.grids, strict=True):
            if parts and self.separator is not None:
                parts.append(self.separator)
            seen = level_map(features, image, level, cells)
            parts.append(self.connector(seen, grid_boxes(cells).to(seen.device)))
        return torch.cat(parts)

    def image_loss(self, features: Features, wanted: Sequence[tuple[int, str]]) -> Tensor:
        """Mean cross-entropy of the texts of images."""
        if not wanted:
            return self._mean(features.memory_BSC.new_zeros(()), 0)
        tokens = [self.image_tokens(features, image) for image, _ in wanted]
        before, after = self.image_script.before, self.image_script.after
        room = self.settings.image_tokens - len(before) - len(tokens[0])
        tails = [Tail(len(tokens[0]), (after + self.image_script.answer(text)).cut(room)) for _, text in wanted]
        rows = pack(before, tails, row_tokens=0).to(tokens[0].device)
        return self._loss(torch.cat(tokens), rows)

    def choose(self, match_BQ: Tensor, words: Sequence[Words]) -> Regions:
        """At most `max_regions` boxes of each image that have a text and a query, drawn by the sample's own seed."""
        found: list[tuple[int, int, str]] = []
        for image, (one, match) in enumerate(zip(words, match_BQ.tolist(), strict=True)):
            query_of = {box: query for query, box in enumerate(match) if box >= 0}
            boxes = [box for box, text in enumerate(one.regions) if text and box in query_of]
            drawn = np.random.default_rng((*one.seed, _STREAM)).permutation(len(boxes))[: self.settings.max_regions]
            found += [(image, query_of[boxes[n]], one.regions[boxes[n]] or "") for n in drawn]
        if not self.settings.region_weight:
            found = []
        places = torch.tensor([(image, query) for image, query, _ in found], dtype=torch.long).reshape(-1, 2)
        image_N, query_N = places.to(match_BQ.device).unbind(1)
        return Regions(image_N, query_N, tuple(text for *_, text in found))

    def region_loss(self, features: Features, regions: Regions) -> Tensor:
        """Mean cross-entropy of the texts of boxes. A box is the predicted one, without gradient (LLMDet)."""
        if not regions.texts or self.region_connector is None:
            return self._mean(features.memory_BSC.new_zeros(()), 0)
        rows = self.region_rows(regions.texts).to(regions.image_N.device)
        tokens, glance = self.region_tokens(features, regions.image_N, regions.query_N, rows)
        return self._loss(tokens, rows, glance)

    def region_tokens(
        self, features: Features, image_N: Tensor, query_N: Tensor, rows: Rows
    ) -> tuple[Tensor, Glance | None]:
        """Tokens (N, H) of boxes by their queries, and where they look."""
        assert self.region_connector is not None
        boxes_N4 = features.boxes_BQ4[image_N, query_N].detach()
        tokens = self.region_connector(features.states_BQC[image_N, query_N], corners(boxes_N4))
        return tokens, self.glance(features, image_N, boxes_N4, rows)

    def region_rows(self, texts: Sequence[str]) -> Rows:
        """Sequences of regions, packed."""
        before, after = self.region_script.before, self.region_script.after
        room = self.settings.region_tokens - len(before) - 1
        tails = [Tail(1, (after + self.region_script.answer(text)).cut(room)) for text in texts]
        return pack(before, tails, self.settings.row_tokens)

    def trained(self) -> dict[str, nn.Parameter]:
        """Weights that training changes, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def own(self) -> dict[str, Tensor]:
        """Everything that is not the language model's: connectors, looks and LoRA."""
        return {name: tensor for name, tensor in self.state_dict().items() if _is_own(name)}

    def glance(self, features: Features, image_N: Tensor, boxes_N4: Tensor, rows: Rows) -> Glance | None:
        """Where the tokens of regions look: at boxes (N, 4), cxcywh, of images (N,). None where looks are off."""
        if self.reference is None:
            return None
        images = len(features.memory_BSC)
        before = torch.nn.functional.one_hot(image_N, images).cumsum(0)
        slot_N = before.gather(1, image_N[:, None])[:, 0] - 1
        boxes_BM4 = boxes_N4.new_full((images, int(before[-1].max()), 4), 0.5)
        boxes_BM4 = boxes_BM4.index_put((image_N, slot_N), boxes_N4)
        ratios_BV4 = torch.cat([features.ratios_BV2, features.ratios_BV2], -1).to(boxes_N4.dtype)
        references = boxes_BM4[:, :, None] * ratios_BV4[:, None]
        first = self.reference[0]
        assert isinstance(first, nn.Linear)
        codes = self.reference(sine_code(references[:, :, 0].to(first.weight.dtype), first.in_features // 4))
        return Glance(rows.images_N2[:, 0], rows.images_N2[:, 1], image_N, slot_N, codes, references, features)

    def embed(self, tokens_NH: Tensor, rows: Rows) -> Tensor:
        """Rows as the language model sees them, the image tokens in their places, (R, L, H)."""
        embeds = self.llm.embed(rows.ids_RL)
        return embeds.index_put(tuple(rows.images_N2.unbind(1)), tokens_NH.to(embeds.dtype))

    def _loss(self, tokens_NH: Tensor, rows: Rows, glance: Glance | None = None) -> Tensor:
        hidden = self.llm(self.embed(tokens_NH, rows), rows, glance)
        total = self.llm.loss(hidden, rows)
        return self._mean(total, int(rows.weights_RL[rows.targets_RL >= 0].sum()))

    def _mean(self, total: Tensor, count: int) -> Tensor:
        """The sum divided by the count of tokens, over all processes."""
        counts = torch.tensor(float(count), device=total.device)
        world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        if world > 1:
            dist.all_reduce(counts)
        return total / max(float(counts) / world, 1.0)

    def _freeze_idle(self) -> None:
        """Weights of a task that has no weight in the loss."""
        image = [*self.connector.parameters(), *([] if self.separator is None else [self.separator])]
        region = [parameter for name, parameter in self.named_parameters() if _is_of_regions(name)]
        for weight, parameters in ((self.settings.image_weight, image), (self.settings.region_weight, region)):
            for parameter in parameters:
                parameter.requires_grad_(bool(weight))


def _is_own(name: str) -> bool:
    return not name.startswith("llm.") or "lora_" in name or ".look." in name


def _is_of_regions(name: str) -> bool:
    return name.startswith(("region_connector.", "reference.")) or ".look." in name


def _check(config: MMGroundingDinoConfig, settings: CaptionSettings) -> None:
    levels = config.num_feature_levels
    wrong = [level for level in settings.levels if not -levels <= level < levels]
    if wrong:
        raise SettingError(f"captions.levels names level {wrong[0]}; the detector has {levels}")
    if not settings.levels or len(settings.levels) != len(settings.grids) or min(settings.grids) < 1:
        raise SettingError(
            f"captions.grids needs a number of cells for each of captions.levels; got {list(settings.grids)} "
            f"for {list(settings.levels)}"
        )
    tokens = sum(cells * cells for cells in settings.grids) + len(settings.grids) - 1
    if settings.image_weight and tokens + 64 > settings.image_tokens:
        raise SettingError(f"captions.image_tokens {settings.image_tokens} leaves no room beside {tokens} image tokens")


def write(folder: Path, heads: CaptionHeads) -> None:
    """Connectors, looks and LoRA as safetensors, and what they belong to as JSON; never the language model."""
    save_file({name: tensor.contiguous() for name, tensor in heads.own().items()}, folder / WEIGHTS)
    facts = {"version": 1, "hidden_size": heads.llm.hidden_size, "settings": asdict(heads.settings)}
    (folder / FACTS).write_bytes(orjson.dumps(facts, option=orjson.OPT_INDENT_2))


def load(folder: str | Path, heads: CaptionHeads) -> None:
    """Weights that `write` left in a folder. A connector that was aligned serves images and regions.

    Raises MissingError where there are none, FormatError where they do not fit.
    """
    place = Path(folder) / WEIGHTS
    if not place.is_file():
        raise MissingError(f"{folder} holds no {WEIGHTS}: it is not the folder of a training run with captions")
    try:
        found = load_file(place)
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{place} cannot be read: {error}") from error
    if not any(name.startswith("region_connector.") for name in found):
        found |= {f"region_{name}": tensor for name, tensor in found.items() if name.startswith("connector.")}
    own = heads.own()
    wrong = [name for name in found.keys() & own.keys() if found[name].shape != own[name].shape]
    if wrong or not found.keys() & own.keys():
        raise FormatError(
            f"{place} does not fit this language model and detector: {', '.join(wrong[:3]) or 'no weight'}"
        )
    heads.load_state_dict({name: found[name] for name in found.keys() & own.keys()}, strict=False)
