"""The chat-completions form: a request as JSON, and what a reply means. No network in here.

Reasons of failures: rate_limited (429), server_error (5xx), key_refused (401, 403), model_missing (404),
prompt_too_long and refused (other 4xx, content filters), answer_unreadable (no JSON, or not of this form),
answer_empty.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import orjson
from PIL import Image

from pipelines.engines.engine import Answer, Request

if TYPE_CHECKING:
    from pipelines.engines.openai import OpenAiEngine

_TOO_LONG = ("context_length", "context length", "maximum context", "max_model_len", "too long", "longer than the max")
_SHOWN = 300  # characters of a server's own words


class Failure(Exception):
    """A request without an answer, and whether asking again may help."""

    def __init__(
        self, reason: str, detail: str = "", *, again: bool = True, wait_s: float = 0.0, tokens: int = 0
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail
        self.again = again
        self.wait_s = wait_s  # that the server asks for
        self.tokens = tokens  # that were spent nevertheless


def data_url(image: Image.Image, settings: OpenAiEngine) -> str:
    """A picture inside its own address."""
    target = io.BytesIO()
    if settings.image_format == "png":
        image.save(target, "PNG", compress_level=1)
    else:
        image.save(target, "JPEG", quality=settings.jpeg_quality)
    return f"data:image/{settings.image_format};base64,{base64.b64encode(target.getbuffer()).decode()}"


def body_of(settings: OpenAiEngine, request: Request, picture: str) -> bytes:
    """The body of a POST to /chat/completions: the picture first, so that prefix caches can hold it."""
    values = settings.sampling.of(request)
    shown = {"type": "image_url", "image_url": {"url": picture}}
    text = request.ask.text.encode(errors="replace").decode()  # half of a surrogate pair is no JSON
    body: dict[str, Any] = {
        "model": settings.model,
        "messages": [{"role": "user", "content": [shown, {"type": "text", "text": text}]}],
        **values,
        **_format(settings.structured, request.ask.schema),
    }
    if settings.sampling.repetition_penalty != 1:
        body["repetition_penalty"] = settings.sampling.repetition_penalty
    body |= settings.extra
    return orjson.dumps({name: value for name, value in body.items() if value is not None})


def _format(structured: str, schema: str) -> dict[str, Any]:
    if not schema or structured == "none":
        return {}
    if structured == "json_object":
        return {"response_format": {"type": "json_object"}}
    form = {"name": "answer", "schema": orjson.loads(schema), "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": form}}


def answer_of(status: int, headers: Mapping[str, str], data: bytes) -> Answer:
    """What a reply says. Raises Failure."""
    if status != 200:
        raise _failure(status, headers, data)
    try:
        reply = orjson.loads(data)
        choice = reply["choices"][0]
        message = choice["message"]
        text = _text(message.get("content"))
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError) as error:
        raise Failure("answer_unreadable", f"{type(error).__name__} in {_words(data)}") from error
    prompt, cached, said = _tokens(reply.get("usage"))
    finish = str(choice.get("finish_reason") or "stop")
    if finish == "content_filter" or message.get("refusal"):
        told = str(message.get("refusal") or "content filter")[:_SHOWN]
        raise Failure("refused", told, again=False, tokens=prompt + said)
    if not text.strip():
        # Cut off before the first word (a model that thinks too long), it would be so again.
        raise Failure("answer_empty", f"finish reason {finish}", again=finish != "length", tokens=prompt + said)
    return Answer(text, finish=finish, prompt_tokens=prompt, cached_tokens=cached, answer_tokens=said)


def _text(content: object) -> str:
    """Text as it is, or the texts of a list of parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content)
    return content if isinstance(content, str) else ""


def _tokens(usage: object) -> tuple[int, int, int]:
    """Tokens of the question, those of them that were cached, those of the answer; 0 where the server does not say."""
    if not isinstance(usage, dict):
        return 0, 0, 0
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    values = (usage.get("prompt_tokens"), cached, usage.get("completion_tokens"))
    prompt, cached, said = (value if isinstance(value, int) and 0 <= value < 2**31 else 0 for value in values)
    return prompt, cached, said


def _failure(status: int, headers: Mapping[str, str], data: bytes) -> Failure:
    told = f"HTTP {status}: {_words(data)}"
    if status == 429:
        return Failure("rate_limited", told, wait_s=seconds_until(headers.get("Retry-After")))
    if status >= 500 or status in (408, 409, 425):
        return Failure("server_error", told, wait_s=seconds_until(headers.get("Retry-After")))
    if status in (401, 403):
        return Failure("key_refused", told, again=False)
    if status == 404:
        return Failure("model_missing", told, again=False)
    long = status == 413 or any(words in data.decode(errors="replace").lower() for words in _TOO_LONG)
    return Failure("prompt_too_long" if long else "refused", told, again=False)


def seconds_until(retry_after: str | None) -> float:
    """Seconds that a Retry-After header asks for, in either of its forms (RFC 9110, 10.2.3); 0 where it says none."""
    if not retry_after:
        return 0.0
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass  # then it is a date
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _words(data: bytes) -> str:
    """What a server says of an error, on one line."""
    try:
        reply = orjson.loads(data)
        error = reply.get("error", reply) if isinstance(reply, dict) else reply
        said = error.get("message") or error.get("detail") if isinstance(error, dict) else error
        text = str(said or reply)
    except orjson.JSONDecodeError:
        text = data[: 4 * _SHOWN].decode(errors="replace")
    return " ".join(text.split())[:_SHOWN]
