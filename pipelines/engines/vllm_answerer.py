"""A started vLLM engine: the half of the `vllm` engine that imports vLLM."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import VLLMClientError
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from llmdet.errors import ImageError, LlmdetError, SettingError
from pipelines.engines.clock import Clock
from pipelines.engines.engine import STOPPED, Answer, Job, Request, Usage, image_key
from pipelines.engines.lmm import Pictures
from pipelines.stop import until_stop

if TYPE_CHECKING:
    from PIL import Image

    from pipelines.engines.vllm import VllmEngine

T = TypeVar("T")
_MARK = "THE-QUESTION-STANDS-HERE"
_RESTARTS = 3  # in a row, without an answer between them: then the run ends
_DEATHS = 3  # of the engine under one request: it may be the one that kills it
_WATCH_S = 1.0


class VllmAnswerer:
    """Answers in a thread of its own with an event loop, so that chunks of several threads share one engine."""

    def __init__(self, engine: VllmEngine) -> None:
        """Load the model. Raises LlmdetError where vLLM cannot."""
        self._settings = engine
        self._frame = engine.frame()
        self._opening = ThreadPoolExecutor(engine.threads, thread_name_prefix="photos")
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True).start()
        self._numbers = itertools.count()
        self._clock = Clock()
        self._restarts = 0
        self._open_requests = 0
        self._last_answer = time.monotonic()  # or since when there are requests
        self._images = asyncio.Semaphore(engine.images_in_flight)
        self._starting = asyncio.Lock()
        self._llm = self._wait(self._load())
        self._before, self._after, self._image_token = self._wait(self._template())
        self._watch = asyncio.run_coroutine_threadsafe(self._watchdog(), self._loop)

    def answer(self, jobs: Sequence[Job]) -> list[list[Answer]]:
        return self._wait(self._answer(jobs))

    def usage(self) -> Usage:
        return self._clock.usage()

    def close(self) -> None:
        """Free the GPU."""
        self._watch.cancel()
        self._llm.shutdown(timeout=10)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    # --- the engine ------------------------------------------------------------------------------------------------

    async def _load(self) -> AsyncLLM:
        arguments = self._settings.arguments()
        try:
            return AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
        except TypeError as error:
            raise SettingError(f"vLLM does not take these engine arguments: {error}") from error
        except Exception as error:  # of vLLM, transformers, the hub, CUDA: all mean that this model cannot be used
            raise LlmdetError(f"vLLM cannot load {arguments['model']}: {_line(error)}") from error

    async def _template(self) -> tuple[str, str, int | None]:
        """What the model's chat template puts before and after the question, and the token that stands for pictures."""
        from transformers import AutoProcessor

        settings = self._settings
        content = [{"type": "image"}, {"type": "text", "text": _MARK}]
        try:
            processor = AutoProcessor.from_pretrained(
                settings.found().name, revision=settings.revision or None, trust_remote_code=settings.trust_remote_code
            )
            text = processor.apply_chat_template(
                [{"role": "user", "content": content}],
                tokenize=False,
                add_generation_prompt=True,
                **settings.chat_template_kwargs,
            )
        except (OSError, ValueError) as error:  # no processor, or one without a chat template
            raise LlmdetError(f"{settings.model} cannot be asked in a chat: {_line(error)}") from error
        before, mark, after = text.partition(_MARK)
        if not mark:
            raise LlmdetError(f"the chat template of {settings.model} does not show the question that it is given")
        token = getattr(processor, "image_token_id", None)
        return before, after, token if isinstance(token, int) else None

    async def _revive(self, dead: AsyncLLM) -> None:
        """Start another engine in the place of a dead one, once for all requests that met it."""
        async with self._starting:
            if self._llm is not dead:
                return
            self._restarts += 1
            if self._restarts > _RESTARTS:
                raise LlmdetError(
                    f"vLLM died {self._restarts} times in a row without one answer; see Ray's worker logs"
                )
            dead.shutdown(timeout=5)
            self._llm = await self._load()
            self._last_answer = time.monotonic()

    async def _watchdog(self) -> None:
        """Kill an engine that has requests and finishes none: they all learn that it is dead, and it is revived."""
        while True:
            await asyncio.sleep(_WATCH_S)
            silent = time.monotonic() - self._last_answer
            if self._open_requests and silent > self._settings.watchdog_s and not self._starting.locked():
                for process in _children():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
                self._last_answer = time.monotonic()

    # --- jobs ------------------------------------------------------------------------------------------------------

    async def _answer(self, jobs: Sequence[Job]) -> list[list[Answer]]:
        answers = [[STOPPED for _ in job.requests] for job in jobs]
        with self._clock.chunk():
            await until_stop(self._job(job, mine) for job, mine in zip(jobs, answers, strict=True))
        return answers

    async def _job(self, job: Job, answers: list[Answer]) -> None:
        """Fill in the answers to a job as they come."""

        async def put(number: int, picture: Image.Image | ImageError) -> None:
            answers[number] = await self._one(job.requests[number], picture, key)

        async with self._images:
            try:
                shown = await self._loop.run_in_executor(self._opening, self._open, job)
            except ImageError as error:
                answers[:] = [Answer(error=error.reason, detail=error.detail) for _ in job.requests]
                return
            key = image_key(job.record)
            await asyncio.gather(*(put(number, picture) for number, picture in enumerate(shown)))

    def _open(self, job: Job) -> list[Image.Image | ImageError]:
        """What each request shows, every view made once."""
        pictures = Pictures(job, self._frame)
        return [pictures.of(request.ask.view) for request in job.requests]

    async def _one(self, request: Request, picture: Image.Image | ImageError, key: str) -> Answer:
        if isinstance(picture, ImageError):
            return Answer(error=picture.reason, detail=picture.detail)
        with self._clock.request(), self._counted():
            try:
                async with asyncio.timeout(self._settings.timeout_s):
                    return await self._answered(request, picture, key)
            except TimeoutError:
                return Answer(error="timeout", detail=f"no answer within {self._settings.timeout_s:g} s")
            except (VLLMClientError, ValueError) as error:
                return Answer(error=_refusal(str(error)), detail=_line(error))
            except (EngineGenerateError, RuntimeError) as error:
                return Answer(error="engine_failed", detail=_line(error))

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        if not self._open_requests:
            self._last_answer = time.monotonic()
        self._open_requests += 1
        try:
            yield
        finally:
            self._open_requests -= 1

    async def _answered(self, request: Request, picture: Image.Image, key: str) -> Answer:
        prompt = {
            "prompt_token_ids": self._tokens(request.ask.text),
            "multi_modal_data": {"image": picture},
            # Says that the requests of an image show the same picture, without hashing its pixels for each.
            "multi_modal_uuids": {"image": _uuid(key, request, picture.size)},
        }
        for _ in range(_DEATHS):
            async with self._starting:  # not while another engine takes a dead one's place
                llm = self._llm
            last = None
            try:
                name = f"{request.id.hex()}-{next(self._numbers)}"
                async for output in llm.generate(prompt, self._parameters(request), name):
                    last = output
            except EngineDeadError:
                await self._revive(llm)
                continue
            assert last is not None
            self._restarts, self._last_answer = 0, time.monotonic()
            return self._told(last, picture)
        return Answer(error="engine_died", detail=f"vLLM died {_DEATHS} times while this request was under way")

    def _tokens(self, question: str) -> list[int]:
        """The whole prompt as numbers. (Text with a picture's mark makes processors look for a picture beside it.)"""
        text = f"{self._before}{question}{self._after}"
        return list(self._llm.get_tokenizer().encode(text, add_special_tokens=False))

    def _parameters(self, request: Request) -> SamplingParams:
        values = self._settings.sampling.of(request)
        schema = request.ask.schema
        return SamplingParams(
            temperature=values["temperature"],
            top_p=values["top_p"],
            max_tokens=values["max_tokens"],
            # vLLM on a CPU dies of a seeded request whose prompt comes in two portions.
            seed=values["seed"] if values["temperature"] > 0 and not current_platform.is_cpu() else None,
            repetition_penalty=self._settings.sampling.repetition_penalty,
            output_kind=RequestOutputKind.FINAL_ONLY,
            structured_outputs=StructuredOutputsParams(json=schema) if schema else None,
        )

    def _told(self, output: Any, picture: Image.Image) -> Answer:
        """The answer; an engine that gave up says so in its finish reason."""
        best = output.outputs[0]
        tokens = output.prompt_token_ids or []
        if self._image_token is not None:
            self._clock.pictures(self._frame.image_tokens(*picture.size), tokens.count(self._image_token))
        error = "engine_failed" if best.finish_reason in ("abort", "error") else ""
        return Answer(
            best.text,
            error or ("" if best.text.strip() else "answer_empty"),
            detail=f"finish reason {best.finish_reason}" if error else "",
            finish=best.finish_reason or "stop",
            prompt_tokens=len(tokens),
            cached_tokens=output.num_cached_tokens or 0,
            answer_tokens=len(best.token_ids),
        )


def _uuid(key: str, request: Request, size: tuple[int, int]) -> str:
    return hashlib.sha256(f"{key} {size} {request.ask.view}".encode()).hexdigest()


def _refusal(message: str) -> str:
    """The reason word of a request that vLLM does not take."""
    words = message.lower()
    too_long = "max_model_len" in words or "maximum model length" in words or "longer than the maximum" in words
    return "prompt_too_long" if too_long or "context length" in words else "engine_refused"


def _line(error: BaseException) -> str:
    """What happened, in one line; vLLM's own wrapper says nothing, its cause does."""
    told = error.__cause__ if isinstance(error, EngineGenerateError) and error.__cause__ else error
    return f"{type(told).__name__}: {told}".strip().split("\n", 1)[0][:300]


def _children() -> list[int]:
    """Processes of vLLM's engine core and its workers; Python's own tracker of shared memory is none of them."""
    import psutil

    children = psutil.Process().children(recursive=True)
    return [child.pid for child in children if "resource_tracker" not in " ".join(child.cmdline())]
