"""A process that reads with mmdet's own classes: one JSON request a line comes in, one JSON answer a line goes out.

    python read_with_mmdet.py < requests

    {"do": "odvg", "ann_file": "odvg.jsonl", "images": "photos/", "label_map": "label_map.json"}
    {"do": "config", "path": "mm_grounding_dino.py"}
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
    steps = [LoadAnnotations(with_bbox=True), RandomSamplingNegPos(tokenizer_name=tokenizer_folder(), max_tokens=256)]
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


def build_config(path: str, images: bool) -> dict[str, Any]:
    """The training data set of a configuration as mmdet builds it; with `images`, one sample through its pipeline."""
    from mmdet.registry import DATASETS
    from mmdet.utils import register_all_modules
    from mmengine.config import Config

    register_all_modules(init_default_scope=True)
    config = Config.fromfile(path)
    settings = config.train_dataloader.dataset
    steps = [step["type"] for step in settings.pipeline]
    for step in settings.pipeline:
        if step.get("tokenizer_name") == TOKENIZER_OF_CONFIG:
            step["tokenizer_name"] = tokenizer_folder()
    dataset = DATASETS.build(settings)
    answer = {"class": type(dataset).__name__, "model": config.model.type, "steps": steps, "samples": len(dataset)}
    answer |= {"epochs": config.train_cfg.max_epochs, "learning_rate": config.optim_wrapper.optimizer.lr}
    if images:
        packed = dataset[0]
        answer |= {
            "pixels": list(packed["inputs"].shape),
            "boxes": len(packed["data_samples"].gt_instances),
            "text": packed["data_samples"].text,
        }
    return answer


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
def tokenizer_folder() -> str:
    """A BERT tokenizer that knows letters, digits and punctuation, each alone and inside a word."""
    from transformers import BertTokenizer

    pieces = string.ascii_lowercase + string.digits + string.punctuation
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces, *(f"##{piece}" for piece in pieces)]
    folder = tempfile.mkdtemp(prefix="tokenizer-", dir=os.environ.get("LLMDET_MMDET_SCRATCH"))
    BertTokenizer(vocab={word: index for index, word in enumerate(words)}).save_pretrained(folder)
    (Path(folder) / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": len(words)}))
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
