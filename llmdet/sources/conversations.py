"""LLaVA conversations: `[{"from": "human", "value": "<image>\\nDescribe ..."}, {"from": "gpt", "value": "A dog ..."}]`.

The first answer is the caption. `extra` keeps what an exporter needs to give the row back: `human`, the first question,
and `conversations`, all turns as they came, where there is more than one question and its answer.
"""

from __future__ import annotations

from typing import Any

from llmdet.record import Caption
from llmdet.sources.fields import FieldError, extra, shown, text


def own_caption(value: str) -> Caption:
    """A caption that the source itself has."""
    return Caption(text=value, raw=value)


def read_conversation(value: Any) -> tuple[str, dict[str, Any]]:
    """The first answer of a conversation, and the `extra` that gives the turns back.

    Raises FieldError: conversation_malformed, caption_missing (no answer in it), caption_empty.
    """
    turns = _turns(value)
    answers = [said for speaker, said in turns if speaker == "gpt"]
    if not answers:
        raise FieldError("caption_missing", f"no turn from gpt in {shown(value)}")
    if not answers[0].strip():
        raise FieldError("caption_empty", f"the answer of gpt is {answers[0]!r}")
    plain = [speaker for speaker, _ in turns] == ["human", "gpt"] and all(
        set(turn) == {"from", "value"} for turn in value
    )
    asked = next((said for speaker, said in turns if speaker == "human"), None)
    return answers[0], extra({"human": asked, "conversations": None if plain else value})


def _turns(value: Any) -> list[tuple[str, str]]:
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise FieldError("conversation_malformed", f"conversations must be a list of turns, got {shown(value)}")
    try:
        return [(text(turn.get("from"), "from"), text(turn.get("value"), "value")) for turn in value]
    except FieldError as error:
        reason = error.reason if error.reason == "text_not_unicode" else "conversation_malformed"
        raise FieldError(reason, f"in a turn of the conversation {error.detail}") from error
