"""Rules that clean captions: small frozen dataclasses, callable on a Record."""

from llmdet.rules.chain import DEFAULT_CHAIN, RULES, build_chain, check_chain, run_chain
from llmdet.rules.outcome import Drop, Kept, Loss, Outcome, Retry

__all__ = [
    "DEFAULT_CHAIN",
    "RULES",
    "Drop",
    "Kept",
    "Loss",
    "Outcome",
    "Retry",
    "build_chain",
    "check_chain",
    "run_chain",
]
