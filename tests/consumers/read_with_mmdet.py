"""A process that reads with mmdet's own classes: one JSON request a line comes in, one JSON answer a line goes out.

    python read_with_mmdet.py < requests

    {"do": "odvg", "ann_file": "odvg.jsonl", "images": "photos/", "label_map": "label_map.json"}
    {"do": "config", "path": "mm_grounding_dino.py", "train": true}
    {"do": "convert", "tool": "coco2odvg.py", "options": ["in.json", "-d", "coco", "-o", "out.jsonl"]}
    {"do": "detect", "swin": {}, "bert": "bert/", "inputs": "in.npz", "text": "dog.", "out": "out.npz", "save": "x.pth"}

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


def detect(
    swin: dict[str, Any],
    bert: str,
    inputs: str,
    text: str,
    out: str,
    queries: int = 900,
    weights: str = "",
    save: str = "",
) -> dict[str, Any]:
    """Logits and boxes of MM-Grounding-DINO for normalised pixels of which the left part is the image.

    The configuration is mmdet's Swin-T with changes; the weights are random, or those of the file `weights`, which has
    to fit to the last name. `save` writes them as mmengine writes a checkpoint. Answers with names and shapes.
    """
    import numpy as np
    import torch
    from mmdet.structures import DetDataSample

    detector = _detector(swin, bert, queries)
    if weights:
        detector.load_state_dict(torch.load(weights, weights_only=True)["state_dict"])
    if save:
        _save(detector, save)
    given = np.load(inputs)
    sample = DetDataSample()
    height, width = given["pixels"].shape[-2:]
    shape = (height, int(given["width"]))
    sample.set_metainfo({"batch_input_shape": (height, width), "img_shape": shape})
    with torch.no_grad():
        words = detector.language_model([text])
        words["embedded"] = detector.text_feat_map(words["embedded"])
        features = detector.extract_feat(torch.from_numpy(given["pixels"]))
        logits, boxes = detector.bbox_head(**detector.forward_transformer(features, words, [sample]))
    np.savez(out, logits=logits[-1].numpy(), boxes=boxes[-1].numpy())
    return {"names": {name: list(tensor.shape) for name, tensor in detector.state_dict().items()}}


def _detector(swin: dict[str, Any], bert: str, queries: int) -> Any:
    """mmdet's own Swin-T configuration with another backbone, in which no weight is zero or one."""
    import mmdet
    import torch
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine.config import Config

    register_all_modules(init_default_scope=True)
    configs = Path(mmdet.__file__).parent / ".mim/configs/mm_grounding_dino"
    model = Config.fromfile(configs / "grounding_dino_swin-t_pretrain_obj365.py").model
    model.num_queries = queries
    model.language_model.name = bert
    model.backbone.update(init_cfg=None, with_cp=False, **swin)
    stages = model.backbone.out_indices
    levels = len(stages) + 1
    model.neck.update(in_channels=[model.backbone.embed_dims * 2**stage for stage in stages], num_outs=levels)
    model.num_feature_levels = levels
    model.encoder.num_cp = 0
    model.encoder.layer_cfg.self_attn_cfg.num_levels = levels
    model.decoder.layer_cfg.cross_attn_cfg.num_levels = levels
    torch.manual_seed(0)
    torch.set_num_threads(1)
    detector = MODELS.build(model)
    detector.init_weights()
    for parameter in detector.parameters():
        parameter.data += 0.03 * torch.randn_like(parameter)
    return detector.eval()


def _save(detector: Any, path: str) -> None:
    """A checkpoint with what mmengine's runner puts in one: its message hub has objects of a class of its own."""
    from mmengine.logging import MessageHub
    from mmengine.runner import save_checkpoint

    hub = MessageHub.get_instance("weights")
    for step in range(20):
        hub.update_scalar("train/loss", 1.0 / (step + 1))
    content = {"meta": {"epoch": 1}, "state_dict": detector.state_dict(), "message_hub": hub.state_dict()}
    save_checkpoint(content, path)


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


COMMANDS = {"odvg": read_odvg, "config": build_config, "convert": convert, "detect": detect}


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
