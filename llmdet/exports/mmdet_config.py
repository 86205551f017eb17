"""A training configuration of mmdetection's MM-Grounding-DINO that points at ODVG files written beside it.

    odvg.jsonl (and label_map.json in the OD form)   mm_grounding_dino.py   images/<root>/...

    mim train mmdet OUT/mm_grounding_dino.py

The configuration inherits the Swin-T pre-training one of mmdet 3.x and changes what is about data: one ODVGDataset with
the exported lines. Cannot hold: what ODVG cannot (see `llmdet.exports.odvg`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import pyarrow as pa

from llmdet import files
from llmdet.errors import SettingError
from llmdet.exports.exporter import Exported, Images, Sources
from llmdet.exports.odvg import Odvg

BASE = "mmdet::mm_grounding_dino/grounding_dino_swin-t_pretrain_obj365.py"


@dataclass(frozen=True, kw_only=True)
class MmdetConfig:
    """Writes `mm_grounding_dino.py` and what `Odvg` writes."""

    cannot_hold: ClassVar[str] = Odvg.cannot_hold

    form: Literal["vg", "od"] = "vg"
    split: str | None = None
    images: Images = "none"
    base: str = BASE  # any MM-Grounding-DINO configuration that mmdet can resolve
    load_from: str = ""  # checkpoint to begin with; empty: the one of `base`
    batch_size: int = 4  # images a GPU
    epochs: int = 12
    learning_rate: float = 1e-4

    def write(self, batches: Iterable[pa.RecordBatch], out: str, sources: Sources) -> Exported:
        exporter = Odvg(form=self.form, split=self.split, images=self.images)
        folders = self._folders(sources)
        written = exporter.write(batches, out, sources)
        files.write_bytes(files.join(out, "mm_grounding_dino.py"), self._text(files.absolute(out), folders).encode())
        return written + Exported(("mm_grounding_dino.py",))

    def _folders(self, sources: Sources) -> str:
        """Where the picture names of the lines begin. Raises SettingError where one prefix cannot serve them all."""
        if self.images != "none":
            return "images/"
        addresses = {info.images for info in sources.values()}
        if len(addresses) != 1:
            raise SettingError(
                f"an mmdet configuration has one picture folder, and the sources have {sorted(addresses)}; "
                "export with --images link, or one --source at a time"
            )
        return files.absolute(addresses.pop()).rstrip("/") + "/"

    def _text(self, root: str, pictures: str) -> str:
        label_map = "'label_map.json'" if self.form == "od" else "None"
        load_from = f"\nload_from = {self.load_from!r}" if self.load_from else ""
        return f"""# MM-Grounding-DINO on ODVG lines written by llmdet-data. Train with: mim train mmdet THIS_FILE
_base_ = {self.base!r}

data_root = {root.rstrip("/") + "/"!r}
max_epochs = {self.epochs}

train_dataloader = dict(
    _delete_=True,
    batch_size={self.batch_size},
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(
        type='ODVGDataset',
        data_root=data_root,
        ann_file='odvg.jsonl',
        label_map_file={label_map},  # None: each line has a text of its own
        data_prefix=dict(img={pictures!r}),
        filter_cfg=dict(filter_empty_gt=False),
        pipeline={{{{_base_.train_pipeline}}}},
        return_classes=True,
        backend_args=None))

optim_wrapper = dict(optimizer=dict(lr={self.learning_rate!r}))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs + 1)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True,
         milestones=[max(1, max_epochs * 2 // 3), max(2, max_epochs * 11 // 12)], gamma=0.1),
]

# The lines are for training; score checkpoints with `llmdet-data evaluate`, or set val_dataloader here.
val_dataloader = None
val_evaluator = None
val_cfg = None
test_dataloader = None
test_evaluator = None
test_cfg = None{load_from}
"""
