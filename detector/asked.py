"""How something is asked for: a name as it stands in a prompt, with the words around it. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from llmdet.record import Span


@dataclass(frozen=True, slots=True)
class Asked:
    """How a category stands in the prompt: only `name` is scored, the words around it are context."""

    name: str
    prefix: str = ""
    suffix: str = ""

    @property
    def text(self) -> str:
        return self.prefix + self.name + self.suffix

    @property
    def span(self) -> Span:
        """Place of the name in the text."""
        return len(self.prefix), len(self.prefix) + len(self.name)
