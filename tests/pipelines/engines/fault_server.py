"""An OpenAI-compatible server that fails in every way that real ones do, and counts what it is asked."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

# Fault -> the reason word that a client should give for it.
FAULTS = {
    "rate_limit": "rate_limited",
    "error": "server_error",
    "hang": "timeout",
    "cut": "connection_failed",
    "broken": "answer_unreadable",
    "empty": "answer_empty",
    "endless": "answer_endless",
}
_END = b"\r\n\r\n"
_PIECE = b"10000\r\n" + b" " * 0x10000 + b"\r\n"


@dataclass(frozen=True)
class Call:
    """One POST that came in."""

    name: str  # X-Request-Id
    fault: str  # that it got; empty: an answer
    body: dict[str, Any]
    authorization: str
    at: float  # seconds, of the server's clock

    @property
    def picture(self) -> str:
        address: str = self.body["messages"][0]["content"][0]["image_url"]["url"]
        return address


def fixed(body: dict[str, Any]) -> str:
    """A sentence, or the list that a schema asks for."""
    form = body.get("response_format", {})
    if form.get("type") != "json_schema":
        return "A dog lies on green grass beside a small red ball in the sun."
    items = form["json_schema"]["schema"]["prefixItems"]
    numbers = [item["properties"]["id"]["const"] for item in items]
    return orjson.dumps([{"id": number, "caption": f"thing {number} is a brown dog"} for number in numbers]).decode()


@dataclass
class FaultServer:
    """Use it as a context manager: `with FaultServer() as server: ... server.url`."""

    share: float = 0.0  # of the replies that are faults
    hopeless: Callable[[str], bool] = lambda name: False  # requests that only get faults
    faults: Sequence[str] = tuple(FAULTS)
    retry_after: str = "0.05"
    models: Sequence[str] = ("tiny",)
    reply: Callable[[dict[str, Any]], str] = fixed
    status: int = 200  # of every POST, where it is not a fault
    says: str = ""  # the body of a POST with another status; {key} is what it came with
    finish: str = "stop"
    delay_s: float = 0.0
    calls: list[Call] = field(default_factory=list)
    most: int = 0  # POSTs at once
    _open: int = 0

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._wait(asyncio.start_server(self._connection, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._wait(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def stop(self) -> None:
        """Take no more connections, and close those that are open."""
        self._loop.call_soon_threadsafe(self._server.close)
        self._wait(self._end())

    async def _end(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _wait(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def tries(self) -> Counter[str]:
        """Number of POSTs of each request."""
        return Counter(call.name for call in self.calls if call.name != "greeting")

    def last(self) -> dict[str, str]:
        """What each request got in the end: a fault, or an answer where it is empty."""
        return {call.name: call.fault for call in self.calls if call.name != "greeting"}

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._exchange(reader, writer):
                pass
        writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its reply; whether the connection can be used again."""
        head = (await reader.readuntil(_END)).decode()
        lines = [line.partition(":") for line in head.split("\r\n")[1:]]
        headers = {name.strip().lower(): value.strip() for name, _, value in lines}
        data = await reader.readexactly(int(headers.get("content-length", 0)))
        if head.startswith("GET"):
            listed = orjson.dumps({"object": "list", "data": [{"id": name} for name in self.models]})
            return await _send(writer, 200 if self.models else 404, listed)
        self._open += 1
        self.most = max(self.most, self._open)
        try:
            return await self._post(headers, data, reader, writer)
        finally:
            self._open -= 1

    async def _post(
        self, headers: dict[str, str], data: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        name, key = headers["x-request-id"], headers.get("authorization", "")
        fault = self._fault(name)
        body = orjson.loads(data)
        self.calls.append(Call(name, fault, body, key, self._loop.time()))
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if not fault and self.status != 200:
            return await _send(writer, self.status, self.says.replace("{key}", key).encode())
        good = _completion(self.reply(body), self.finish)
        if fault == "hang":
            return bool(await reader.read(1))  # until the client gives up
        if fault == "endless":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                writer.write(_PIECE)
                await writer.drain()
        if fault == "cut":
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(good)}\r\n\r\n".encode() + good[: len(good) // 2])
            return False
        status, says, more = {
            "": (200, good, ""),
            "rate_limit": (429, b'{"error": {"message": "slow down"}}', f"Retry-After: {self.retry_after}\r\n"),
            "error": (500, b"<html>Internal Server Error</html>", ""),
            "broken": (200, good[:-7], ""),
            "empty": (200, _completion(" \n", "stop"), ""),
        }[fault]
        return await _send(writer, status, says, more)

    def _fault(self, name: str) -> str:
        """Chosen by the request and the number of the try alone, so that a test repeats itself."""
        draw = hashlib.blake2b(f"{name} {self.tries()[name]}".encode(), digest_size=8).digest()
        hopeless = self.hopeless(name)
        fails = hopeless or int.from_bytes(draw[:4], "little") / 2**32 < self.share
        one = hashlib.blake2b(name.encode(), digest_size=4).digest() if hopeless else draw[4:]
        return self.faults[int.from_bytes(one, "little") % len(self.faults)] if fails else ""


def _completion(text: str, finish: str) -> bytes:
    usage = {"prompt_tokens": 30, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 20}}
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return orjson.dumps({"object": "chat.completion", "choices": [choice], "usage": usage})


async def _send(writer: asyncio.StreamWriter, status: int, body: bytes, more: str = "") -> bool:
    head = f"HTTP/1.1 {status} Told\r\nContent-Type: application/json\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    return True
