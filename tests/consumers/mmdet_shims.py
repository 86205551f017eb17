"""What mmdet 3.3 needs to run with mmcv-lite 2.2 and transformers 5: four shims, to be put in place before its import.

Run by the Python of an environment that has mmdet; nothing here knows llmdet.
"""

from __future__ import annotations

import importlib.machinery
import sys
import types
from typing import Any

CLAIMED_MMCV = "2.1.0"  # mmdet 3.3 refuses 2.2.0, and uses nothing of it that 2.1.0 has not


class NoOperators(types.ModuleType):
    """Stands in for `mmcv._ext`, the compiled operators that mmcv-lite lacks: each raises when it is called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def operator(*args: object, **kwargs: object) -> None:
            raise RuntimeError(f"mmcv-lite has no compiled operator {name}")

        return operator


def put_in_place() -> None:
    """Put all four in place. Must come before the first `import mmdet`."""
    operators = NoOperators("mmcv._ext")
    operators.__spec__ = importlib.machinery.ModuleSpec("mmcv._ext", None)
    sys.modules["mmcv._ext"] = operators
    import mmcv

    mmcv.__version__ = CLAIMED_MMCV
    _encode_batches()
    _accept_square_masks()


def _encode_batches() -> None:
    """transformers 5 took `batch_encode_plus` away; calling the tokenizer does the same."""
    from transformers import PreTrainedTokenizerBase

    PreTrainedTokenizerBase.batch_encode_plus = PreTrainedTokenizerBase.__call__


def _accept_square_masks() -> None:
    """mmdet gives BERT a mask (batch, tokens, tokens); transformers 5 wants the axis of the heads in it."""
    from transformers import BertModel

    original = BertModel.forward

    def forward(self: Any, input_ids: Any = None, attention_mask: Any = None, **others: Any) -> Any:
        if attention_mask is not None and attention_mask.dim() == 3:
            attention_mask = attention_mask[:, None].bool()
        return original(self, input_ids, attention_mask=attention_mask, **others)

    BertModel.forward = forward
