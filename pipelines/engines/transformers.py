"""A model in plain transformers, in Ray actors: slower than vLLM by far, and runs wherever torch does."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from llmdet.errors import ExtraError, SettingError
from pipelines.engines.engine import Answerer, Identity
from pipelines.engines.lmm import Lmm
from pipelines.parts import Workers


@dataclass(frozen=True, kw_only=True)
class TransformersEngine(Lmm):
    """An image-text-to-text model in transformers, for small jobs. Nothing holds its answers to a JSON schema."""

    batch_size: int = 8  # requests that are answered at once; halved where memory does not suffice
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"  # auto: bfloat16 on a GPU, float32 on a CPU
    device: Literal["auto", "cuda", "cpu"] = "auto"  # auto: a GPU for each worker where the cluster has any
    replicas: int | None = None  # workers; None: as many as the cluster's GPUs allow, one without
    cpus: float = 1  # that Ray gives a worker; without a GPU the model runs on them
    attention: str | None = None  # transformers' attn_implementation, such as sdpa or flash_attention_2
    # what the model's chat template is told, where it knows of it
    chat_template_kwargs: dict[str, Any] = field(default_factory=lambda: {"enable_thinking": False})
    trust_remote_code: bool = False  # run Python that comes with the model
    chunk_images: int = 32  # of a unit of work: what a kill can cost

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.chunk_images < 1:
            raise SettingError("batch_size and chunk_images must be at least 1")

    def identity(self) -> Identity:
        model = self.found()
        return Identity(
            "transformers",
            _version(),
            model.name,
            model.revision,
            sampling=vars(self.sampling),
            preprocessing={**self.preprocessing(), "dtype": self.dtype, "chat": self.chat_template_kwargs},
        )

    def workers(self) -> Workers:
        gpus = 0 if self.device == "cpu" else 1 if self.device == "cuda" else _gpus()
        # Two chunks: the photos of one are opened while the model answers the other.
        return Workers(count=self.replicas, num_cpus=self.cpus, num_gpus=gpus, items=2, item_images=self.chunk_images)

    def start(self) -> Answerer:
        for package in ("torch", "torchvision", "transformers"):  # most processors want torchvision
            _require(package)
        from pipelines.engines.transformers_answerer import TransformersAnswerer

        return TransformersAnswerer(self)


def _gpus() -> int:
    import ray

    return int(ray.is_initialized() and ray.cluster_resources().get("GPU", 0) > 0)


def _require(package: str) -> None:
    try:
        version(package)
    except PackageNotFoundError as error:
        raise ExtraError.of(package, "transformers") from error


def _version() -> str:
    try:
        return version("transformers")
    except PackageNotFoundError:
        return ""  # a driver need not have it
