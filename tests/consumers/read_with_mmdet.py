"""A process that reads with mmdet's own classes: one JSON request a line comes in, one JSON answer a line goes out.

    python read_with_mmdet.py < requests

    {"do": "odvg", "ann_file": "odvg.jsonl", "images": "photos/", "label_map": "label_map.json"}
    {"do": "config", "path": "mm_grounding_dino.py", "train": true}
    {"do": "convert", "tool": "coco2odvg.py", "options": ["in.json", "-d", "coco", "-o", "out.jsonl"]}

Run by the Python of an environment that has mmdet (`.ci/mmdet_env`); nothing here knows llmdet. What mmdet prints goes
to standard error. A request that fails is answered by {"error": traceback}.
"""

from __future__ import annotations

import functools
import json
import os
import random
import runpy
import string
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import mmdet_shims

TOKENIZER_OF_CONFIG = "bert-base-uncased"  # a name on the hub, which tests do not reach


def read_odvg(ann_file: str, images: str = "", label_map: str | None = None) -> dict[str, Any]:
    """Every sample as ODVGDataset parsed it, and again after the training transform that makes its text."""
    import numpy as np
    from mmdet.datasets import ODVGDataset
    from mmdet.datasets.transforms import LoadAnnotations, RandomSamplingNegPos

    dataset = ODVGDataset(
        ann_file=ann_file,
        label_map_file=label_map,
        data_prefix={"img": images},
        filter_cfg={"filter_empty_gt": False},
        pipeline=[],
        return_classes=True,
    )
    steps = [LoadAnnotations(with_bbox=True), RandomSamplingNegPos(tokenizer_name=language_model(), max_tokens=256)]
    samples = []
    for index in range(len(dataset)):
        random.seed(index)
        np.random.seed(index)
        info = dataset.get_data_info(index)
        parsed = {key: info.get(key) for key in ("img_path", "height", "width", "text", "instances", "phrases")}
        samples.append({"parsed": parsed, "transformed": _after(steps, dataset.get_data_info(index))})
    return {"samples": samples}


def _after(steps: list[Any], sample: dict[str, Any]) -> dict[str, Any]:
    for step in steps:
        sample = step(sample)
    return {
        "text": sample["text"],
        "boxes": sample["gt_bboxes"].tolist(),
        "labels": sample["gt_bboxes_labels"].tolist(),
        "spans": {str(label): spans for label, spans in sample["tokens_positive"].items()},
    }


def build_config(path: str, train: bool = False) -> dict[str, Any]:
    """The training data set of a configuration as mmdet builds it; with `train`, also one step of its model."""
    import numpy as np
    from mmdet.registry import DATASETS
    from mmdet.utils import register_all_modules
    from mmengine.config import Config

    register_all_modules(init_default_scope=True)
    config = Config.fromfile(path)
    settings = config.train_dataloader.dataset
    for step in settings.pipeline:
        if step.get("tokenizer_name") == TOKENIZER_OF_CONFIG:
            step.tokenizer_name = language_model()
    dataset = DATASETS.build(settings)
    random.seed(0)
    np.random.seed(0)
    samples = [dataset[index] for index in range(2)]
    answer = {
        "class": type(dataset).__name__,
        "length": len(dataset),
        "steps": [step.type for step in settings.pipeline],
        "model": config.model.type,
        "batch_size": config.train_dataloader.batch_size,
        "epochs": config.train_cfg.max_epochs,
        "learning_rate": config.optim_wrapper.optimizer.lr,
        "load_from": config.load_from,
        "texts": [sample["data_samples"].text for sample in samples],
        "boxes": [len(sample["data_samples"].gt_instances) for sample in samples],
    }
    return answer | (_one_step(config.model, samples) if train else {})


def _one_step(model: Any, samples: list[dict[str, Any]]) -> dict[str, Any]:
    """The losses of a model of the same parts but small, and how many of its parameters learn."""
    import torch
    from mmdet.registry import MODELS
    from mmengine.dataset import pseudo_collate

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model.num_queries = 20
    model.language_model.name = language_model()
    model.backbone.update(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], init_cfg=None, with_cp=False)
    model.neck.in_channels = [16, 32, 64]
    model.encoder.update(num_layers=1, num_cp=0)
    model.decoder.num_layers = 2
    for part in (model.encoder, model.decoder):
        part.layer_cfg.ffn_cfg.feedforward_channels = 64
    model.encoder.fusion_layer_cfg.embed_dim = 64
    detector = MODELS.build(model)
    detector.init_weights()  # some of its parameters are memory as found until then
    batch = detector.data_preprocessor(pseudo_collate(samples), training=True)
    loss, parts = detector.parse_losses(detector(**batch, mode="loss"))
    loss.backward()
    learning = [p for p in detector.parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)]
    return {"losses": {name: float(value) for name, value in parts.items()}, "learning": len(learning)}


def convert(tool: str, options: list[str]) -> dict[str, Any]:
    """Run one of mmdet's converters as its command line would."""
    import mmdet
    import numpy as np

    for alias, kind in (("float", float), ("int", int)):  # lvis-api is older than numpy 1.24
        if not hasattr(np, alias):
            setattr(np, alias, kind)
    script = Path(mmdet.__file__).parent / ".mim/tools/dataset_converters" / tool
    before = sys.argv
    sys.argv = [str(script), *options]
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        sys.argv = before
    return {"tool": tool}


@functools.cache
def language_model() -> str:
    """The folder of a BERT that knows letters, digits and punctuation, each alone and inside a word; random weights."""
    from transformers import BertConfig, BertModel, BertTokenizer

    pieces = string.ascii_lowercase + string.digits + string.punctuation
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces, *(f"##{piece}" for piece in pieces)]
    folder = tempfile.mkdtemp(prefix="bert-", dir=os.environ.get("LLMDET_MMDET_SCRATCH"))
    BertTokenizer(vocab={word: index for index, word in enumerate(words)}).save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(words), **sizes), add_pooling_layer=False).save_pretrained(folder)
    return folder


COMMANDS = {"odvg": read_odvg, "config": build_config, "convert": convert}


def answer_to(line: str) -> dict[str, Any]:
    """What a request is answered by."""
    request = json.loads(line)
    try:
        return COMMANDS[request.pop("do")](**request)
    except (Exception, SystemExit):
        return {"error": traceback.format_exc()}


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    mmdet_shims.put_in_place()
    for line in sys.stdin:
        print(json.dumps(answer_to(line)), file=answers, flush=True)


if __name__ == "__main__":
    main()
