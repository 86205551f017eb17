"""ONNX files with a fault, for what has to notice it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from torch import Tensor


def with_weight_off(path: Path, weight: Tensor, other: Path, factor: float = 1.01) -> Path:
    """Write the same file with one weight times a factor; linear layers are stored transposed."""
    document = onnx.load(path)
    wanted = weight.detach().numpy()
    shapes = (list(wanted.shape), list(wanted.T.shape))
    (found,) = (
        one
        for one in document.graph.initializer
        if list(one.dims) in shapes and any(np.array_equal(numpy_helper.to_array(one), w) for w in (wanted, wanted.T))
    )
    found.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(found) * np.float32(factor), found.name))
    onnx.save(document, other)
    return other
