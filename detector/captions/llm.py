"""A frozen causal language model of transformers that trains small additions: LoRA, and looks at the image."""

# R rows   L tokens of a row   H channels   N tokens to predict

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    Cache,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.pytorch_utils import Conv1D

from detector.captions.connectors import Glance, Look
from detector.captions.packing import IGNORED, Rows
from llmdet.errors import FormatError, MissingError, SettingError

CHUNK = 512  # tokens whose scores over the vocabulary are in memory at a time


class Layer(nn.Module):
    """A layer of the language model, with a look at the image between attention and feed-forward in some of them.

    With `recompute` nothing inside is kept for the backward pass, which runs the layer again. The model stays in
    evaluation mode, where transformers' own switch for this does nothing.
    """

    def __init__(self, layer: nn.Module, recompute: bool) -> None:
        super().__init__()
        self.layer, self.recompute = layer, recompute
        self.look: Look | None = None
        self.glance: Glance | None = None
        self.attention_type = getattr(layer, "attention_type", None)  # some models ask their layers for it

    def forward(self, hidden_RLH: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        # The glance is bound here: when the backward pass runs this again, another one may be in its place.
        run: Callable[..., Tensor] = partial(self._run, self.glance, **kwargs)
        if self.recompute and torch.is_grad_enabled():
            return cast(Tensor, checkpoint(run, hidden_RLH, *args, use_reentrant=False, preserve_rng_state=False))
        return run(hidden_RLH, *args)

    def _run(self, glance: Glance | None, hidden_RLH: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.look is None or glance is None:
            out = self.layer(hidden_RLH, *args, **kwargs)
            return cast(Tensor, out[0] if isinstance(out, tuple) else out)
        layer = cast(Any, self.layer)
        hidden = hidden_RLH + layer.self_attn(layer.input_layernorm(hidden_RLH), *args, **kwargs)[0]
        hidden = self.look(hidden, glance)
        return cast(Tensor, hidden + layer.mlp(layer.post_attention_layernorm(hidden)))


class LanguageModel(nn.Module):
    """The decoder of a causal language model and its output head, frozen."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, recompute: bool = True) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.body = cast(Any, model.get_decoder())
        self.head = cast(nn.Module, model.get_output_embeddings())
        self.requires_grad_(False)
        for number, layer in enumerate(self.layers):
            self.layers[number] = Layer(layer, recompute)
        self.eval()

    @property
    def layers(self) -> nn.ModuleList:
        """The list of layers, whatever a model calls it. Raises SettingError."""
        count = self.body.config.num_hidden_layers
        for module in self.body.children():
            if isinstance(module, nn.ModuleList) and len(module) == count:
                return module
        raise SettingError(f"{type(self.body).__name__} has no list of {count} layers, as causal language models have")

    @property
    def hidden_size(self) -> int:
        return int(self.body.config.hidden_size)

    def embed(self, ids: Tensor) -> Tensor:
        """Tokens as the model sees them, (..., H)."""
        return cast(Tensor, self.body.get_input_embeddings()(ids))

    def add_lora(self, rank: int, alpha: float) -> None:
        """Low-rank additions, scaled by alpha / rank, to every projection of every layer, in float32."""
        from peft import LoraConfig, inject_adapter_in_model

        kinds = (nn.Linear, Conv1D)
        linear = {name.rsplit(".", 1)[-1] for name, one in self.layers.named_modules() if isinstance(one, kinds)}
        inject_adapter_in_model(
            LoraConfig(r=rank, lora_alpha=cast(int, alpha), target_modules=sorted(linear)), self.layers
        )
        for name, parameter in self.layers.named_parameters():
            if "lora_" in name:
                parameter.data = parameter.data.float()

    def add_looks(self, count: int, make: partial[Look]) -> None:
        """A look in every (layers / count)-th layer, from the first. Raises SettingError for layers of another kind."""
        needed = ("self_attn", "input_layernorm", "post_attention_layernorm", "mlp")
        stride = max(len(self.layers) // count, 1)
        for layer in list(self.layers)[::stride][:count]:
            inner = cast(Layer, layer)
            if not all(hasattr(inner.layer, name) for name in needed) or hasattr(
                inner.layer, "pre_feedforward_layernorm"
            ):
                raise SettingError(
                    f"looks at the image need a language model with layers like Qwen2's; {type(inner.layer).__name__} "
                    "is none: set captions.looks to off"
                )
            inner.look = make()

    def forward(self, embeds_RLH: Tensor, rows: Rows, glance: Glance | None = None) -> Tensor:
        """States of all tokens, after the last norm, (R, L, H)."""
        with self._glancing(glance):
            out = self.body(
                inputs_embeds=embeds_RLH, attention_mask=rows.mask(), position_ids=rows.positions_RL, use_cache=False
            )
        return cast(Tensor, out.last_hidden_state)

    def next_scores(
        self, embeds_RLH: Tensor, positions_RL: Tensor, past: Cache, glance: Glance | None = None
    ) -> Tensor:
        """Scores (R, vocabulary) of the token after these, which come after those in `past` and are added to it."""
        with self._glancing(glance):
            out = self.body(inputs_embeds=embeds_RLH, position_ids=positions_RL, past_key_values=past, use_cache=True)
        return cast(Tensor, self.head(out.last_hidden_state[:, -1]))

    @contextmanager
    def _glancing(self, glance: Glance | None) -> Iterator[None]:
        for layer in self.layers:
            cast(Layer, layer).glance = glance
        try:
            yield
        finally:
            for layer in self.layers:
                cast(Layer, layer).glance = None

    def loss(self, hidden_RLH: Tensor, rows: Rows) -> Tensor:
        """Weighted sum of the cross-entropy of all targets; scores exist for the targets only, a chunk at a time."""
        chosen = rows.targets_RL != IGNORED
        whole = hidden_RLH[chosen], rows.targets_RL[chosen], rows.weights_RL[chosen]
        parts = zip(*(one.split(CHUNK) for one in whole), strict=True)
        sums = [cast(Tensor, _CrossEntropy.apply(self.head, *part)) for part in parts]
        return torch.stack(sums).sum()


class _CrossEntropy(torch.autograd.Function):
    """Weighted sum of the cross-entropy of targets (N,), from states (N, H) through a frozen head.

    As the head learns nothing, the gradient of the states is known at once: no scores wait for the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, head: nn.Module, hidden_NH: Tensor, targets_N: Tensor, weights_N: Tensor) -> Tensor:
        learned = ctx.needs_input_grad[1]
        with torch.set_grad_enabled(learned):
            states = hidden_NH.detach().requires_grad_(learned)
            scores = head(states)
        logs = scores.detach().to(torch.promote_types(scores.dtype, torch.float32)).log_softmax(-1)
        total = -(logs.gather(1, targets_N[:, None])[:, 0] * weights_N).sum()
        if learned:
            slope = logs.exp_()  # of each score: its probability, less 1 for the target
            slope[torch.arange(len(slope), device=slope.device), targets_N] -= 1
            slope *= weights_N[:, None]
            ctx.save_for_backward(*torch.autograd.grad(scores, states, slope.to(scores.dtype)))
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None, None]:
        (of_hidden,) = ctx.saved_tensors
        return None, gradient.to(of_hidden.dtype) * of_hidden, None, None


def read(name: str, dtype: torch.dtype, recompute: bool = True) -> LanguageModel:
    """A language model of a folder or hub id, the one inside where it is that of a vision-language model.

    Raises MissingError where there is none or it has no tokenizer, FormatError where it cannot be read.
    """
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        there = "" if Path(name).exists() else "no such folder is there, and as an id of the hub: "
        raise MissingError(f"no language model can be read from {name}: {there}{_first_line(error)}") from error
    tokenizer = _tokenizer(name)
    kind: Any = AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM
    try:
        model = kind.from_pretrained(name, config=config, dtype=dtype)
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError) as error:
        raise FormatError(f"{name} holds no whole causal language model: {_first_line(error)}") from error
    return LanguageModel(model, tokenizer, recompute)


def _tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Raises MissingError: without its files transformers fails in several ways, or makes an empty tokenizer."""
    missing = (
        f"the language model {name} has no tokenizer beside it: put its tokenizer.json and tokenizer_config.json there"
    )
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except Exception as error:  # OSError, ValueError, ImportError, TypeError, AttributeError: as the model class has it
        raise MissingError(f"{missing} ({_first_line(error)})") from error
    if not tokenizer("a b c", add_special_tokens=False)["input_ids"]:
        raise MissingError(missing)
    return cast(PreTrainedTokenizerBase, tokenizer)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
