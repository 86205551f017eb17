"""A loaded model: the half of the `transformers` engine that imports torch.

Every row of a batch draws with a generator of its own, seeded by its request, so that an answer does not depend on who
else is in the batch; only rounding does, which differs with the shape of a batch.

B rows (requests)   T tokens so far
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteriaList,
)

from llmdet.errors import ImageError, LlmdetError
from pipelines.engines.clock import Clock
from pipelines.engines.drawing import OwnLength, SeededDraw
from pipelines.engines.engine import STOPPED, Answer, Job, Request, Usage
from pipelines.engines.lmm import Pictures
from pipelines.stop import stopping

if TYPE_CHECKING:
    from pipelines.engines.transformers import TransformersEngine

_OPENING = 2  # threads that open photos


@dataclass(frozen=True, slots=True)
class _Question:
    """A request with its picture and its place in the result."""

    job: int
    number: int
    request: Request
    picture: Image.Image
    sampling: dict[str, Any]


class TransformersAnswerer:
    """One batch at a time; photos of the next chunk are opened meanwhile."""

    def __init__(self, engine: TransformersEngine) -> None:
        """Load the model. Raises LlmdetError where transformers cannot."""
        self._settings = engine
        self._frame = engine.frame()
        self._device = _device(engine.device)
        self._processor, self._model = _load(engine, self._device)
        # Pictures come at their final size: the processor's own limits must not resize them again.
        limits = {"shortest_edge": self._frame.factor**2, "longest_edge": max(self._frame.max_pixels, 1 << 24)}
        self._sizes = {"images_kwargs": {"size": limits}} if self._frame.layout == "patches" else {}
        # What a template does not know would be taken for a setting of the processor.
        known = str(self._processor.chat_template)
        self._template_settings = {name: v for name, v in engine.chat_template_kwargs.items() if name in known}
        self._most = engine.batch_size
        self._one_at_a_time = threading.Lock()
        self._opening = ThreadPoolExecutor(_OPENING, thread_name_prefix="photos")
        self._clock = Clock()

    def answer(self, jobs: Sequence[Job]) -> list[list[Answer]]:
        with self._clock.chunk():
            answers = [[STOPPED for _ in job.requests] for job in jobs]
            questions = [one for found in self._opening.map(self._open, range(len(jobs)), jobs) for one in found]
            open_ = [one for one in questions if isinstance(one, _Question)]
            for one in questions:
                if not isinstance(one, _Question):
                    job, number, error = one
                    answers[job][number] = Answer(error=error.reason, detail=error.detail)
            with self._one_at_a_time:
                self._answer_all(open_, answers)
            return answers

    def usage(self) -> Usage:
        return self._clock.usage()

    # --- pictures --------------------------------------------------------------------------------------------------

    def _open(self, number: int, job: Job) -> list[_Question | tuple[int, int, ImageError]]:
        """The questions of a job, or why they cannot be asked."""
        try:
            pictures = Pictures(job, self._frame)
        except ImageError as error:
            return [(number, i, error) for i in range(len(job.requests))]
        return [self._question(number, i, request, pictures) for i, request in enumerate(job.requests)]

    def _question(
        self, job: int, number: int, request: Request, pictures: Pictures
    ) -> _Question | tuple[int, int, ImageError]:
        picture = pictures.of(request.ask.view)
        if isinstance(picture, ImageError):
            return job, number, picture
        return _Question(job, number, request, picture, self._settings.sampling.of(request))

    # --- batches ---------------------------------------------------------------------------------------------------

    def _answer_all(self, questions: list[_Question], answers: list[list[Answer]]) -> None:
        # The longest answer of a batch is waited for, so those of a kind go together.
        waiting = sorted(questions, key=lambda one: one.sampling["max_tokens"])
        while waiting and not stopping():
            batch, waiting = waiting[: self._most], waiting[self._most :]
            with self._clock.request():
                told = self._answer_batch(batch)
            for one, answer in zip(batch, told, strict=True):
                answers[one.job][one.number] = answer

    def _answer_batch(self, batch: list[_Question]) -> list[Answer]:
        """Answers to a batch. What fails is asked in halves, so that one bad request costs the others nothing."""
        try:
            return self._generate(batch)
        except Exception as error:
            memory = _out_of_memory(error)
            told = f"{type(error).__name__}: {str(error).strip()}".split("\n", 1)[0][:300]
        if memory:
            torch.cuda.empty_cache()
            self._most = max(1, len(batch) // 2)
        if len(batch) == 1:
            return [Answer(error="out_of_memory" if memory else "engine_refused", detail=told)]
        half = len(batch) // 2
        return self._answer_batch(batch[:half]) + self._answer_batch(batch[half:])

    def _generate(self, batch: list[_Question]) -> list[Answer]:
        inputs = self._inputs(batch).to(self._device, self._model.dtype)
        prompts = inputs["attention_mask"].sum(1).tolist()
        limits = [one.sampling["max_tokens"] for one in batch]
        if self._too_long(max(prompts) + max(limits)):
            if len(batch) > 1:
                raise ValueError("one of them is too long")  # asked one by one, only that one fails
            return [Answer(error="prompt_too_long", detail=f"{prompts[0]} tokens and {limits[0]} for the answer")]
        length = inputs["input_ids"].shape[1]
        self._count_pictures(batch, inputs["input_ids"])
        with torch.inference_mode():
            rows = self._model.generate(
                **inputs,
                generation_config=self._config(max(limits)),
                logits_processor=LogitsProcessorList([SeededDraw([one.sampling for one in batch], self._device)]),
                stopping_criteria=StoppingCriteriaList([OwnLength(length, limits, self._device)]),
            )
        said = rows[:, length:].tolist()
        return [self._told(*one) for one in zip(said, limits, prompts, strict=True)]

    def _inputs(self, batch: list[_Question]) -> Any:
        """What the model gets: the picture first, shorter rows filled up on the left."""
        conversations = [
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "image": one.picture},
                        {"type": "text", "text": one.request.ask.text},
                    ],
                }
            ]
            for one in batch
        ]
        return self._processor.apply_chat_template(
            conversations,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True, "padding_side": "left", **self._sizes},
            **self._template_settings,
        )

    def _config(self, longest: int) -> GenerationConfig:
        """Greedy to transformers: `SeededDraw` has drawn before it chooses."""
        model = self._model.generation_config
        return GenerationConfig(
            max_new_tokens=longest,
            do_sample=False,
            repetition_penalty=self._settings.sampling.repetition_penalty,
            eos_token_id=model.eos_token_id,
            pad_token_id=self._pad(),
        )

    def _pad(self) -> int:
        tokenizer = self._processor.tokenizer
        return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self._ends()[0])

    def _ends(self) -> list[int]:
        ends = self._model.generation_config.eos_token_id
        return ends if isinstance(ends, list) else [ends]

    def _told(self, tokens: list[int], limit: int, prompt: int) -> Answer:
        ends = [place for place, token in enumerate(tokens[:limit]) if token in self._ends()]
        count = ends[0] if ends else min(limit, len(tokens))
        text = self._processor.tokenizer.decode(tokens[:count], skip_special_tokens=True)
        return Answer(
            text,
            "" if text.strip() else "answer_empty",
            finish="stop" if ends else "length",
            prompt_tokens=prompt,
            answer_tokens=count + bool(ends),
        )

    def _too_long(self, tokens: int) -> bool:
        longest = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        return longest is not None and tokens > longest

    def _count_pictures(self, batch: list[_Question], ids_BT: Tensor) -> None:
        token = getattr(self._processor, "image_token_id", None)
        if isinstance(token, int):
            predicted = sum(self._frame.image_tokens(*one.picture.size) for one in batch)
            self._clock.pictures(predicted, int((ids_BT == token).sum()))


def _device(wanted: str) -> torch.device:
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise LlmdetError("device is cuda, and torch sees no GPU in this worker")
    return torch.device("cuda" if there and wanted != "cpu" else "cpu")


def _load(engine: TransformersEngine, device: torch.device) -> tuple[Any, Any]:
    """Processor and model. Raises LlmdetError."""
    auto = torch.bfloat16 if device.type == "cuda" else torch.float32
    name = engine.found().name
    shared: Any = {"revision": engine.revision or None, "trust_remote_code": engine.trust_remote_code}
    try:
        processor = AutoProcessor.from_pretrained(name, **shared)
        model: Any = AutoModelForImageTextToText.from_pretrained(
            name,
            dtype=auto if engine.dtype == "auto" else getattr(torch, engine.dtype),
            attn_implementation=engine.attention,
            use_safetensors=True,  # the other form is a pickle
            **shared,
        )
        return processor, model.to(device).eval()
    except (OSError, ValueError, ImportError, RuntimeError, KeyError) as error:
        first = str(error).strip().split("\n", 1)[0]
        raise LlmdetError(f"transformers cannot load {name}: {first}") from error


def _out_of_memory(error: Exception) -> bool:
    """On a GPU a type of its own, on a CPU a RuntimeError that says so."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
