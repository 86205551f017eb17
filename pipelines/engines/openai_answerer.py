"""A worker of the `openai` engine: connections, tries, and which address a request goes to."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from llmdet.errors import ImageError, MissingError, SettingError
from pipelines.engines.chat import Failure, answer_of, body_of, data_url
from pipelines.engines.clock import Clock
from pipelines.engines.engine import STOPPED, Answer, Job, Request, Usage, image_key
from pipelines.engines.lmm import Pictures
from pipelines.stop import until_stop

if TYPE_CHECKING:
    from llmdet.prompts.prompt import View
    from pipelines.engines.openai import OpenAiEngine

T = TypeVar("T")
Reply = tuple[int, Mapping[str, str], bytes]  # status, headers, body

_LONGEST_BACKOFF_S = 30.0
_CONNECT_S = 10.0
_LONGEST_REPLY = 4 << 20  # bytes: some hundred times what an answer needs
_FAILURES = 3  # of an address in a row, before others take its share
_DEAD = 50  # failures in a row, after which a request is tried once: a long list of them should not take days to fail
_REST_S = 30.0
_BAD_SERVER = ("timeout", "server_error", "connection_failed")  # reasons that speak against an address


class Endpoint:
    """One address, and whether it works."""

    def __init__(self, url: str, concurrency: int) -> None:
        self.url = url
        self.slots = asyncio.Semaphore(concurrency)
        self.rests_until = 0.0
        self.proxy = _proxy(url)
        self.failures = 0  # in a row

    def worked(self) -> None:
        self.failures, self.rests_until = 0, 0.0

    def failed(self) -> None:
        """Let it rest when it has failed several times in a row."""
        self.failures += 1
        if self.failures >= _FAILURES:
            self.rests_until = time.monotonic() + _REST_S


class OpenAiAnswerer:
    """Answers in a thread of its own with an event loop, so that chunks of several threads share the connections."""

    def __init__(self, engine: OpenAiEngine) -> None:
        """Greet the servers. Raises MissingError where none answers, SettingError where one refuses key or model."""
        self._settings = engine
        self._frame = engine.frame()
        self._key = os.environ.get(engine.api_key_variable, "").strip()
        self._left = engine.max_total_tokens and engine.max_total_tokens // engine.processes
        self._opening = ThreadPoolExecutor(engine.threads, thread_name_prefix="photos")
        self._clock = Clock()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="openai", daemon=True).start()
        self._backoff = wait_random_exponential(multiplier=engine.backoff_s, max=_LONGEST_BACKOFF_S)
        self._wait(self._connect())
        try:
            self._wait(self._greet_all())
        except BaseException:
            self.close()
            raise

    def answer(self, jobs: Sequence[Job]) -> list[list[Answer]]:
        return self._wait(self._answer(jobs))

    def usage(self) -> Usage:
        return self._clock.usage()

    def close(self) -> None:
        """Close the connections."""
        self._wait(self._session.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._opening.shutdown(wait=False)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _connect(self) -> None:
        settings = self._settings
        self._endpoints = [Endpoint(url, settings.concurrency) for url in settings.urls]
        slots = settings.concurrency * len(self._endpoints)
        self._images = asyncio.Semaphore(slots + settings.threads)  # photos that are held at once
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    # --- jobs ------------------------------------------------------------------------------------------------------

    async def _answer(self, jobs: Sequence[Job]) -> list[list[Answer]]:
        answers = [[STOPPED for _ in job.requests] for job in jobs]
        with self._clock.chunk():
            await until_stop(self._job(job, mine) for job, mine in zip(jobs, answers, strict=True))
        return answers

    async def _job(self, job: Job, answers: list[Answer]) -> None:
        """Fill in the answers to a job as they come."""

        async def put(number: int, request: Request) -> None:
            answers[number] = await self._one(request, shown[request.ask.view], order)

        async with self._images:
            if self._spent():
                answers[:] = [self._over() for _ in job.requests]
                return
            try:
                shown = await self._loop.run_in_executor(self._opening, self._open, job)
            except ImageError as error:
                answers[:] = [Answer(error=error.reason, detail=error.detail) for _ in job.requests]
                return
            order = self._order(image_key(job.record))
            await asyncio.gather(*(put(number, request) for number, request in enumerate(job.requests)))

    def _open(self, job: Job) -> dict[View, str | ImageError]:
        """What the requests show, every view made once; a view that cannot be made does not harm the others."""
        pictures = Pictures(job, self._frame)
        views = {view: pictures.of(view) for view in dict.fromkeys(request.ask.view for request in job.requests)}
        return {
            view: shown if isinstance(shown, ImageError) else data_url(shown, self._settings)
            for view, shown in views.items()
        }

    def _order(self, key: str) -> list[Endpoint]:
        """The addresses as this image prefers them; when one comes or goes, only its own images move."""
        return sorted(self._endpoints, key=lambda one: hashlib.blake2b(f"{key} {one.url}".encode()).digest())

    async def _one(self, request: Request, picture: str | ImageError, order: list[Endpoint]) -> Answer:
        if isinstance(picture, ImageError):
            return Answer(error=picture.reason, detail=picture.detail)
        body = body_of(self._settings, request, picture)
        # A request that waits for its next try keeps its place: a server that is busy gets fewer of them.
        async with _awake(order).slots:
            with self._clock.request():
                return await self._tries(request, body, order)

    # --- tries -----------------------------------------------------------------------------------------------------

    async def _tries(self, request: Request, body: bytes, order: list[Endpoint]) -> Answer:
        tries = AsyncRetrying(
            stop=self._enough,
            wait=self._pause,
            retry=retry_if_exception(lambda error: isinstance(error, Failure) and error.again),
            reraise=True,
        )
        try:
            return await tries(self._try, request, body, order)
        except Failure as failure:
            count = tries.statistics["attempt_number"]
            detail = f"{count} tries, the last: {failure.detail}" if count > 1 else failure.detail
            return Answer(error=failure.reason, detail=detail)

    def _enough(self, state: RetryCallState) -> bool:
        dead = all(endpoint.failures >= _DEAD for endpoint in self._endpoints)
        return dead or state.attempt_number >= self._settings.attempts

    def _pause(self, state: RetryCallState) -> float:
        """Seconds before the next try."""
        failure = state.outcome.exception() if state.outcome else None
        told = failure.wait_s if isinstance(failure, Failure) else 0.0
        return max(self._backoff(state), min(told, self._settings.longest_wait_s))

    async def _try(self, request: Request, body: bytes, order: list[Endpoint]) -> Answer:
        if self._spent():
            answer = self._over()
            raise Failure(answer.error, answer.detail, again=False)
        endpoint = _awake(order)
        try:
            answer = answer_of(*await self._post(endpoint, body, request.id.hex()))
        except Failure as failure:
            self._spend(failure.tokens)
            if failure.reason in _BAD_SERVER:
                endpoint.failed()
            raise
        endpoint.worked()
        self._spend(answer.prompt_tokens + answer.answer_tokens)
        return answer

    async def _post(self, endpoint: Endpoint, body: bytes, name: str) -> Reply:
        """The reply to a chat completion. Raises Failure."""
        headers = {"Content-Type": "application/json", "X-Request-Id": name}
        return await self._fetch(endpoint, "POST", "/chat/completions", data=body, headers=headers)

    async def _fetch(self, endpoint: Endpoint, method: str, path: str, **values: Any) -> Reply:
        """A whole reply, bounded in bytes and time, without the key in it. Raises Failure."""
        # A redirect could lead the key to another host.
        values |= {"allow_redirects": False, "proxy": endpoint.proxy}
        try:
            async with (
                asyncio.timeout(self._settings.timeout_s),
                self._session.request(method, endpoint.url + path, **values) as response,
            ):
                data = bytearray()
                async for piece in response.content.iter_any():
                    data += piece
                    if len(data) > _LONGEST_REPLY:
                        raise Failure("answer_endless", f"more than {_LONGEST_REPLY} bytes")
                return response.status, response.headers, self._redact(bytes(data))
        except aiohttp.ClientError as error:  # also where connecting takes too long
            raise self._unconnected(error) from None
        except TimeoutError:
            raise Failure("timeout", f"no whole answer within {self._settings.timeout_s:g} s") from None
        except OSError as error:
            raise self._unconnected(error) from None

    def _unconnected(self, error: Exception) -> Failure:
        told = self._redact(f"{type(error).__name__}: {error}".encode()).decode(errors="replace")
        return Failure("connection_failed", " ".join(told.split())[:300])

    def _redact(self, data: bytes) -> bytes:
        """Servers quote keys in their errors, and some echo what they get."""
        return data.replace(self._key.encode(), b"[key]") if self._key else data

    # --- tokens ----------------------------------------------------------------------------------------------------

    def _spent(self) -> bool:
        return self._left is not None and self._left <= 0

    def _spend(self, tokens: int) -> None:
        if self._left is not None:
            self._left -= tokens

    def _over(self) -> Answer:
        return Answer(error="budget", detail=f"max_total_tokens {self._settings.max_total_tokens} are spent")

    # --- greeting --------------------------------------------------------------------------------------------------

    async def _greet_all(self) -> None:
        """Find out now what would fail every request."""
        problems = await asyncio.gather(*(self._greet(endpoint) for endpoint in self._endpoints))
        if all(problems):
            raise MissingError(f"no server answers at {', '.join(self._settings.urls)}: {problems[0]}")
        for endpoint, problem in zip(self._endpoints, problems, strict=True):
            if problem:
                endpoint.rests_until = time.monotonic() + _REST_S

    async def _greet(self, endpoint: Endpoint) -> str:
        """Why an address does not answer, empty where it does. Raises SettingError."""
        try:
            status, _, data = await self._fetch(endpoint, "GET", "/models")
            self._check_key(endpoint.url, status)
            there = _names(data) if status == 200 else []
            if self._settings.model not in there:
                await self._ask_once(endpoint, there)  # not every server lists all that it serves
        except Failure as failure:
            return failure.detail
        return ""

    async def _ask_once(self, endpoint: Endpoint, there: list[str]) -> None:
        """The shortest question there is. Raises SettingError where the model is not known."""
        settings = self._settings
        body = {"model": settings.model, "messages": [{"role": "user", "content": "ok"}], "max_tokens": 1}
        wanted = {name: value for name, value in (body | settings.extra).items() if value is not None}
        status, _, _ = await self._post(endpoint, orjson.dumps(wanted), "greeting")
        self._check_key(endpoint.url, status)
        if status == 404 and there:
            raise SettingError(f"{endpoint.url} has no model {settings.model!r}; it has: {', '.join(there[:8])}")
        if status == 404:
            raise SettingError(
                f"{endpoint.url}/chat/completions is not there (HTTP 404): is the model {settings.model!r} served, "
                "and does the address end with /v1?"
            )

    def _check_key(self, url: str, status: int) -> None:
        if status in (401, 403):
            name = self._settings.api_key_variable
            told = f"does not take the key in {name}" if self._key else f"wants a key: set {name} where workers run"
            raise SettingError(f"{url} {told} (HTTP {status})")


def _awake(order: Sequence[Endpoint]) -> Endpoint:
    """The first address that works; where none does, the one that has rested longest."""
    now = time.monotonic()
    return next((one for one in order if one.rests_until <= now), min(order, key=lambda one: one.rests_until))


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for an address. aiohttp's own `trust_env` would read ~/.netrc as well."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


def _names(data: bytes) -> list[str]:
    """Models in a server's list."""
    try:
        return [str(one["id"]) for one in orjson.loads(data)["data"]]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return []
