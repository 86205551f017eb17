"""What all engines with a language model share: which model, which prompts, how it samples, what pictures it gets."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from PIL import Image
from pydantic import ConfigDict

from llmdet.errors import ImageError, SettingError
from llmdet.images import open_sized
from llmdet.prompts import PROMPTS
from llmdet.prompts.frames import Frame, frame_of
from llmdet.prompts.prompt import Prompt, Task, View
from llmdet.prompts.views import view_of
from pipelines.engines.engine import Job, Request
from pipelines.engines.models import Model, find_model


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How answers are drawn. A first answer is nearly the likeliest one; one that was sent back needs another."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # a typo in a recipe fails

    temperature: float = 0.2
    retry_temperature: float = 0.7
    top_p: float = 0.9
    repetition_penalty: float = 1.0
    max_tokens: int = 1024  # of prompts that do not say what their longest answer needs

    def of(self, request: Request) -> dict[str, Any]:
        """temperature, top_p, max_tokens and seed of one request."""
        return {
            "temperature": self.retry_temperature if request.attempt else self.temperature,
            "top_p": self.top_p,
            "max_tokens": request.ask.max_tokens or self.max_tokens,
            "seed": request.seed,
        }


@dataclass(frozen=True, kw_only=True)
class Lmm:
    """The settings of a language model that sees. What changes an answer is part of the ledger's fingerprint."""

    model: str = ""  # hub id or folder
    revision: str = ""  # of a hub id; empty: its main branch, as it is now
    image_prompt: str = "image-detailed"
    region_prompt: str = "region-batch"
    prompt_settings: dict[str, dict[str, Any]] = field(default_factory=dict)  # prompt id -> its fields
    family: str = ""  # how it sees pictures and writes boxes (llmdet.prompts.frames); empty: as its config.json says
    min_pixels: int | None = None  # of a picture as the model gets it; None: as suits the family
    max_pixels: int | None = None
    sampling: Sampling = Sampling()

    @property
    def deterministic(self) -> bool:
        return False

    def found(self) -> Model:
        """The model itself. Raises MissingError, SettingError."""
        if not self.model:
            raise SettingError("which model? give --model with a hub id or a folder")
        return find_model(self.model, self.revision)

    def frame(self) -> Frame:
        """How the model sees a picture."""
        frame = frame_of(self.family or self.found().model_type)
        return replace(
            frame,
            min_pixels=frame.min_pixels if self.min_pixels is None else self.min_pixels,
            max_pixels=frame.max_pixels if self.max_pixels is None else self.max_pixels,
        )

    def prompts(self) -> dict[Task, Prompt]:
        return {"image": self._prompt("image", self.image_prompt), "region": self._prompt("region", self.region_prompt)}

    def _prompt(self, task: Task, name: str) -> Prompt:
        if name not in PROMPTS:
            raise SettingError(f"there is no prompt {name!r}; prompts: {', '.join(PROMPTS)}")
        kind: Any = PROMPTS[name]
        known = [one.name for one in fields(kind)]
        values = dict(self.prompt_settings.get(name, {}))
        if unknown := set(values) - set(known):
            raise SettingError(f"prompt {name} has no setting {sorted(unknown)}; it has: {', '.join(known)}")
        if "frame" in known:
            values.setdefault("frame", self.frame())
        prompt: Prompt = kind(**values)
        if prompt.task != task:
            raise SettingError(f"prompt {name} asks about {prompt.task}s; expected one for the task {task}")
        return prompt

    def preprocessing(self) -> dict[str, Any]:
        """What is done to a picture before the model gets it, for the fingerprint."""
        return asdict(self.frame())


class Pictures:
    """The photo of a job: opened and resized once, however many requests there are."""

    def __init__(self, job: Job, frame: Frame) -> None:
        """Open it at the size that its record's boxes are measured in. Raises ImageError."""
        self._frame = frame
        size = job.record.width, job.record.height
        self._photo = open_sized(job.image, size, job.record.orientation)
        self._views: dict[View, Image.Image | ImageError] = {}

    def of(self, view: View) -> Image.Image | ImageError:
        """What a request shows, at the size of the model; the error of what is too narrow, which harms no other."""
        if view not in self._views:
            try:
                self._views[view] = self._frame.fit(view_of(self._photo, view))
            except ImageError as error:
                self._views[view] = error
        return self._views[view]
