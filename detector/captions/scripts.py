"""How a caption is asked for and answered, in tokens of a language model, and which of them are learned.

As in LLaVA: system, user with the image, assistant, each message tokenised by itself. Models without the markers
`<|im_start|>` and `<|im_end|>` get image, question and answer on lines of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from detector.config import LabelMask

SYSTEM = "You are a helpful assistant."
IMAGE_PROMPT = "Describe the image in detail."
REGION_PROMPT = "Describe the region in a phrase."
START, END = "<|im_start|>", "<|im_end|>"


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens, and which of them are to be predicted."""

    ids: tuple[int, ...] = ()
    wanted: tuple[bool, ...] = ()

    def __add__(self, other: Piece) -> Piece:
        return Piece(self.ids + other.ids, self.wanted + other.wanted)

    def __len__(self) -> int:
        return len(self.ids)

    def cut(self, length: int) -> Piece:
        """The first tokens of it."""
        return Piece(self.ids[: max(length, 0)], self.wanted[: max(length, 0)])


class Script:
    """One question with a place for the image: `before` it, `after` it, and `answer(text)`.

    An answer begins with `opening` and is over with any of `ends`.

    Labels `upstream`: the whole of the assistant's message, and markers and line ends of the others (LLMDet trains on
    these too). `answer`: the answer and the token that ends it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: str, labels: LabelMask) -> None:
        self.tokenizer, self.labels = tokenizer, labels
        self.chat = all(len(self._ids(marker)) == 1 for marker in (START, END))
        newline = self._ids("\n")
        markers = [self._ids(START), self._ids(END), *([newline] if len(newline) == 1 else [])]
        self.opening = Piece()
        self.ends = frozenset(self._ids(END) if self.chat else ()) | {tokenizer.eos_token_id} - {None}
        self.structure = frozenset(ids[0] for ids in markers) if self.chat else frozenset()
        if self.chat:
            self.before = self._asked(f"{START}system\n{SYSTEM}{END}\n") + self._asked(f"{START}user\n")
            self.after = self._asked(f"\n{prompt}{END}\n")
            self.opening = self._asked(f"{START}assistant\n")
        else:
            begin = tokenizer.bos_token_id
            self.before = Piece() if begin is None else Piece((begin,), (False,))
            self.after = self._asked(f"\n{prompt}\n")

    def answer(self, text: str) -> Piece:
        """The assistant's message."""
        if not self.chat:
            end = self.tokenizer.eos_token_id
            ids = self._ids(text) + ([] if end is None else [end])
            return Piece(tuple(ids), (True,) * len(ids))
        ids = self._ids(f"{START}assistant\n{text}{END}\n")
        if self.labels == "upstream":
            return Piece(tuple(ids), (True,) * len(ids))
        head = len(self.opening)
        tail = len(self._ids("\n"))
        return Piece(tuple(ids), tuple(head <= place < len(ids) - tail for place in range(len(ids))))

    def _asked(self, text: str) -> Piece:
        ids = self._ids(text)
        return Piece(tuple(ids), tuple(self.labels == "upstream" and one in self.structure for one in ids))

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
