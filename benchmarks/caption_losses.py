"""What the caption losses cost: regions packed into few rows beside a padded sequence for each region.

    OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/caption_losses.py --hidden 256 --layers 8 --repeats 5

One image of 20 x 20 + 1 + 27 x 27 = 1130 tokens, or fewer with `--grids`, and 16 regions, forward and backward, with
the same random-weight Qwen2, LoRA and looks in both. The padded way is LLMDet's: every region a row of its own with
the whole question before it, scores over the vocabulary for every token. Losses are compared first. One JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import MMGroundingDinoConfig, Qwen2Config, Qwen2ForCausalLM

from detector.captions.connectors import Glance
from detector.captions.heads import CaptionHeads
from detector.captions.llm import LanguageModel
from detector.captions.packing import Rows, Tail, pack
from detector.captions.tiny import make_tokenizer
from detector.config import CaptionSettings
from detector.criterion import corners
from detector.model import Features
from detector.words import Words

PHRASES = ("Young man in a red coat.", "Car.", "Tall tree behind the house.", "Dog.")
CAPTION = "Two girls in yellow raincoats jump over a puddle on a paved road while a wooden fence runs behind them. " * 5
SHAPES = ((60, 80), (30, 40), (15, 20), (8, 10))


def heads_of(arguments: argparse.Namespace) -> CaptionHeads:
    """Caption heads of LLMDet's geometry around a language model of the chosen size."""
    tokenizer = make_tokenizer([CAPTION, *PHRASES], 1000)
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=arguments.vocabulary, hidden_size=arguments.hidden, num_hidden_layers=arguments.layers,
            num_attention_heads=4, num_key_value_heads=2, intermediate_size=4 * arguments.hidden,
            bos_token_id=None, eos_token_id=2, pad_token_id=0,
        )
    )  # fmt: skip
    settings = CaptionSettings(
        levels=(-2, -3)[: len(arguments.grids)], grids=tuple(arguments.grids), lora_rank=16, region_tokens=100
    )
    config = MMGroundingDinoConfig(d_model=256, num_feature_levels=4)
    return CaptionHeads(LanguageModel(model, tokenizer, recompute=False), config, settings).train()


def features_of() -> Features:
    """Random features of one image of 480 x 640 pixels."""
    cells = sum(height * width for height, width in SHAPES)
    memory, states = torch.randn(1, cells, 256), torch.randn(1, 900, 256)
    return Features(
        memory.requires_grad_(), torch.ones(1, cells, dtype=torch.bool), SHAPES, torch.ones(1, 4, 2),
        states.requires_grad_(), torch.rand(1, 900, 4),
    )  # fmt: skip


def padded_loss(made: CaptionHeads, hidden: Tensor, rows: Rows) -> Tensor:
    """Mean cross-entropy with the scores of all tokens in memory."""
    scores = made.llm.head(hidden).float()
    return F.cross_entropy(scores.flatten(0, 1), rows.targets_RL.flatten())


def padded(made: CaptionHeads, seen: Features, match: Tensor, words: Sequence[Words]) -> Tensor:
    """Loss of the regions, and of the image where it has a text, one row for each sequence."""
    regions = made.choose(match, words)
    script = made.region_script
    rows = pack(script.before, [Tail(1, script.after + script.answer(text)) for text in regions.texts], 0)
    boxes = seen.boxes_BQ4[regions.image_N, regions.query_N]
    assert made.region_connector is not None
    tokens = made.region_connector(seen.states_BQC[regions.image_N, regions.query_N], corners(boxes))
    loss = _through(made, tokens, rows, made.glance(seen, regions.image_N, boxes, rows))
    if words[0].image is None:
        return loss
    script, tokens = made.image_script, made.image_tokens(seen, 0)
    rows = pack(script.before, [Tail(len(tokens), script.after + script.answer(words[0].image))], 0)
    return loss + _through(made, tokens, rows, None)


def _through(made: CaptionHeads, tokens: Tensor, rows: Rows, glance: Glance | None) -> Tensor:
    embeds = made.llm.embed(rows.ids_RL).index_put(tuple(rows.images_N2.unbind(1)), tokens)
    return padded_loss(made, made.llm(embeds, rows, glance), rows)


def seconds(run: Callable[[], Tensor], repeats: int) -> float:
    """Median of forward and backward, in CPU seconds of this process: other programs do not count."""
    taken = []
    for _ in range(repeats + 1):
        began = time.process_time()
        run().backward()  # type: ignore[no-untyped-call]
        taken.append(time.process_time() - began)
    return statistics.median(taken[1:])


def main() -> None:
    """Run the command of the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--grids", type=int, nargs="+", default=[20, 27])
    parser.add_argument("--regions", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    made, seen = heads_of(arguments), features_of()
    match = torch.full((1, 900), -1)
    match[0, 100 : 100 + arguments.regions] = torch.arange(arguments.regions)
    texts = tuple(PHRASES[number % len(PHRASES)] for number in range(arguments.regions))
    figures: dict[str, float] = {}
    for name, image in (("regions", None), ("regions_and_image", CAPTION)):
        words = (Words(image, texts, (0,)),)

        def ours(words: tuple[Words, ...] = words) -> Tensor:
            return torch.stack(list(made(seen, match, words).values())).sum()

        def theirs(words: tuple[Words, ...] = words) -> Tensor:
            return padded(made, seen, match, words)

        with torch.no_grad():
            figures[f"{name}_difference"] = abs(float(ours()) - float(theirs()))
        a, b = seconds(ours, arguments.repeats), seconds(theirs, arguments.repeats)
        figures |= {f"{name}_packed_s": round(a, 3), f"{name}_padded_s": round(b, 3), f"{name}_ratio": round(a / b, 3)}
    print(json.dumps(vars(arguments) | figures))


if __name__ == "__main__":
    main()
