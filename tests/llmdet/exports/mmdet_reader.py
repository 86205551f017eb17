"""Run by a Python that has mmdet: read an exported configuration with mmengine and its lines with ODVGDataset.

    python mmdet_reader.py OUT/mm_grounding_dino.py

Prints what the data set holds as JSON. mmdet 3.3 with mmcv-lite 2.2: mmcv's version is stated lower and its compiled
operators, which no data set calls, are a module that raises when one is called.
"""

import importlib.machinery
import json
import sys
import types


class NoOperators(types.ModuleType):
    """Stands in for `mmcv._ext`."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)

        def operator(*args: object, **kwargs: object) -> None:
            raise RuntimeError(f"mmcv-lite has no operator {name}")

        return operator


def main(path: str) -> None:
    stand_in = NoOperators("mmcv._ext")
    stand_in.__spec__ = importlib.machinery.ModuleSpec("mmcv._ext", None)
    sys.modules["mmcv._ext"] = stand_in
    import mmcv

    mmcv.__version__ = "2.1.0"
    from mmdet.datasets import ODVGDataset
    from mmengine.config import Config

    config = Config.fromfile(path)
    given = dict(config.train_dataloader.dataset)
    assert given.pop("type") == "ODVGDataset"
    steps = [step["type"] for step in given.pop("pipeline")]
    dataset = ODVGDataset(pipeline=[], lazy_init=False, **given)
    held = [dataset.get_data_info(index) for index in range(len(dataset))]
    print(json.dumps({"steps": steps, "model": config.model.type, "records": held}))


if __name__ == "__main__":
    main(sys.argv[1])
