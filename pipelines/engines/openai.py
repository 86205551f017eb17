"""Any server that speaks the chat-completions form of OpenAI: vLLM, SGLang, llama.cpp, hosted models.

All requests of an image go to one address, so that its prefix cache serves the second and later ones; while that
address is down they go to another. Only workers read the key, from their environment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from llmdet.errors import ExtraError, SettingError
from llmdet.prompts.frames import FAMILIES
from pipelines.engines.engine import Answerer, Identity
from pipelines.engines.lmm import Lmm
from pipelines.engines.models import Model
from pipelines.parts import Workers


@dataclass(frozen=True, kw_only=True)
class OpenAiEngine(Lmm):
    """A model behind an OpenAI-compatible address. `revision` is what you call the weights that are served there."""

    base_url: str | tuple[str, ...] = ""  # such as http://host:8000/v1; several, also in one text with commas
    api_key_variable: str = "OPENAI_API_KEY"  # environment variable of the workers with the key; unset: no key is sent
    concurrency: int = 32  # requests of a worker that are under way at each address
    timeout_s: float = 300.0  # of one try
    attempts: int = 5  # tries of a request in one run
    backoff_s: float = 0.5  # longest wait before the second try; it doubles, up to 30 s
    longest_wait_s: float = 120.0  # that a server's Retry-After is obeyed
    max_total_tokens: int | None = None  # of questions and answers in one run; the rest then fail with `budget`
    structured: Literal["json_schema", "json_object", "none"] = "json_schema"  # what holds an answer to its schema
    image_format: Literal["jpeg", "png"] = "jpeg"  # in which pictures are sent; png loses nothing and is 5 times larger
    jpeg_quality: int = 90  # 1 to 100
    extra: dict[str, Any] = field(default_factory=dict)  # of the request's body; a field that is null is left out
    processes: int = 1  # workers; they share max_total_tokens
    threads: int = 4  # of a worker, that open and resize photos
    chunk_images: int = 32  # of a unit of work: what a kill can cost
    chunks: int = 4  # of a worker at once

    def __post_init__(self) -> None:
        for url in self.urls:
            _check_url(url)
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.api_key_variable):
            # Not shown: it may be the key itself.
            raise SettingError("api_key_variable must be the name of an environment variable, not the key")
        least_one = ("concurrency", "attempts", "processes", "threads", "chunk_images", "chunks")
        if low := [name for name in least_one if getattr(self, name) < 1]:
            raise SettingError(f"{low[0]} must be at least 1; got {getattr(self, low[0])}")
        if not 1 <= self.jpeg_quality <= 100 or self.timeout_s <= 0:
            raise SettingError("jpeg_quality must be 1 to 100, timeout_s above 0")

    @property
    def urls(self) -> tuple[str, ...]:
        """The addresses, without a slash at their ends."""
        given = self.base_url.split(",") if isinstance(self.base_url, str) else self.base_url
        return tuple(dict.fromkeys(url.strip().rstrip("/") for url in given if url.strip()))

    def found(self) -> Model:
        """What is served: a name alone, whose family is guessed from it. Raises SettingError."""
        if not self.urls:
            raise SettingError("which server? give --base-url, such as http://localhost:8000/v1")
        if not self.model:
            raise SettingError("which model? give --model with a name that the server knows")
        return Model(self.model, self.revision, family_in(self.model))

    def identity(self) -> Identity:
        model = self.found()
        picture = f"jpeg {self.jpeg_quality}" if self.image_format == "jpeg" else "png"
        return Identity(
            "openai",
            model=model.name,
            revision=model.revision,
            sampling={**vars(self.sampling), "structured": self.structured, "extra": self.extra},
            preprocessing={**self.preprocessing(), "picture": picture},
        )

    def workers(self) -> Workers:
        return Workers(count=self.processes, items=self.chunks, item_images=self.chunk_images)

    def start(self) -> Answerer:
        try:
            from pipelines.engines.openai_answerer import OpenAiAnswerer
        except ImportError as error:
            raise ExtraError.of("aiohttp", "openai") from error
        return OpenAiAnswerer(self)


def family_in(name: str) -> str:
    """The family that a model's name tells of: Qwen/Qwen2.5-VL-7B-Instruct is qwen2_5_vl. Empty where it tells none."""
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower())
    return max((family for family in FAMILIES if family in plain), key=len, default="")


def _check_url(url: str) -> None:
    """Raises SettingError. A refused address is not shown whole: it may hold a password."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingError("base_url must begin with http:// or https:// and a host, such as http://localhost:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise SettingError(
            f"base_url of {parts.hostname} must not hold a name, password, ? or #: it is written down; "
            "the key belongs into the environment"
        )
