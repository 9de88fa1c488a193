"""A TCP proxy between the code under test and a service: it delays, breaks, refuses or silences what passes."""

import asyncio
import random
import re
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, NoReturn, Self, TypeAlias

Mode: TypeAlias = Literal["clear", "latency", "resets", "403", "503", "truncated", "off", "silent"]
LATENCY_S = 0.2
SHARE = 0.2
"""The share of parts that a mode with random faults spoils."""
PART_BYTES = 65_536
HELD_CHECK_S = 0.02
_REQUEST = re.compile(rb"(GET|HEAD|PUT|POST|DELETE) (/[^ ]*) HTTP/1\.1\r\n")
_PUT = re.compile(rb"PUT (/[^ ?]+)[^ ]* HTTP/1\.1\r\n")
_STATUS = re.compile(rb"HTTP/1\.1 ([2-5]\d\d) ")


@dataclass(frozen=True, kw_only=True)
class Put:
    """An HTTP PUT that passed, and its response."""

    key: str
    """The path without its first slash: of an object in S3, its bucket and key."""
    status: int
    at: float
    """When the response came, in seconds of the monotonic clock."""


@dataclass(kw_only=True)
class Refusal:
    """An S3 error that answers the next PUTs in place of the service."""

    status: int
    code: str
    path: str
    """Only PUTs whose path contains this."""
    times: int
    """How many PUTs it still answers."""


class _ConnectionBrokenError(Exception):
    """A fault ended this connection."""


class FaultProxy:
    """Listens on a port of its own, in a thread of its own. Its public attributes may be set at any time.

    Modes: `latency` delays each part of a response. `resets` resets connections within a request or its response, so
    that some requests succeed unheard. `403` refuses every request. `503` answers some requests with that status.
    `truncated` ends responses too soon. `off` resets every connection. `silent` accepts connections and passes nothing
    on, like a cut cable; what was sent meanwhile passes afterwards, however late, as TCP retransmits it.
    """

    def __init__(self, port: int, *, host: str = "127.0.0.1", seed: int = 0) -> None:
        self.host = host
        self.port = 0
        self.refusal: Refusal | None = None
        self.refused: list[str] = []
        """The paths of the PUTs that `refusal` answered."""
        self.puts: list[Put] = []
        self.requests: list[str] = []
        """Those that passed or are held, as "GET /path?query"."""
        self.hold = ""
        """Requests that contain this are accepted and wait, unless it is empty. Released, they pass."""
        self.held: list[str] = []
        """The requests that wait."""
        self.delay_s = 0.0
        """How long each request waits."""
        self._mode: Mode = "clear"
        self.upstream_port = port
        """Where new connections go."""
        self._rng = random.Random(f"proxy/{seed}")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self._server: asyncio.Server | None = None
        self._passing = asyncio.Event()

    @property
    def endpoint(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def mode(self) -> Mode:
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        async def change() -> None:
            self._mode = mode
            if mode == "silent":
                self._passing.clear()
            else:
                self._passing.set()

        self._do(change())

    def __enter__(self) -> Self:
        self._thread.start()
        self.mode = "clear"
        self._server = self._do(asyncio.start_server(self._connected, self.host, 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)  # a connection that was accepted before gets its task now

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_service: asyncio.StreamWriter | None = None
        try:
            await self._passing.wait()
            if self._mode == "off":
                _reset(writer)
            from_service, to_service = await asyncio.open_connection("127.0.0.1", self.upstream_port)
            pending: deque[bytes] = deque()
            async with asyncio.TaskGroup() as both:
                both.create_task(self._requests(reader, writer, to_service, pending))
                both.create_task(self._responses(from_service, writer, pending))
        except* (OSError, _ConnectionBrokenError):
            pass
        except* asyncio.CancelledError:
            pass  # the proxy closes; asyncio's own callback would log an error for this
        finally:
            if to_service is not None:
                to_service.transport.abort()
            writer.close()

    async def _requests(
        self,
        reader: asyncio.StreamReader,
        back: asyncio.StreamWriter,
        to_service: asyncio.StreamWriter,
        pending: deque[bytes],
    ) -> None:
        async for part in self._parts(reader, back):
            if self._mode == "403":
                await _refuse(reader, back, 403, "InvalidAccessKeyId")
            if self._mode == "503" and self._spoils():
                await _refuse(reader, back, 503, "SlowDown")
            if request := _REQUEST.match(part):
                await self._pass(f"{request[1].decode()} {request[2].decode()}")
            if put := _PUT.match(part):
                path = put[1].decode()
                if refusal := self._refusal_of(path):
                    self.refused.append(path)
                    await _refuse(reader, back, refusal.status, refusal.code)
                pending.append(put[1])
            to_service.write(part)
            await to_service.drain()
        to_service.write_eof()

    async def _responses(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pending: deque[bytes]
    ) -> None:
        async for part in self._parts(reader, writer):
            if pending and (status := _STATUS.match(part)):
                key = pending.popleft().decode().lstrip("/")
                self.puts.append(Put(key=key, status=int(status[1]), at=time.monotonic()))
            if self._mode == "latency":
                await asyncio.sleep(LATENCY_S)
            if self._mode == "truncated" and self._spoils():
                writer.write(part[: len(part) // 2])
                raise _ConnectionBrokenError
            writer.write(part)
            await writer.drain()
        writer.write_eof()

    async def _parts(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> AsyncIterator[bytes]:
        """What comes, part by part; nothing while the proxy is silent. Resets the connection where the mode says so."""
        while True:
            await self._passing.wait()
            part = await reader.read(PART_BYTES)
            if not part:
                return
            await self._passing.wait()
            if self._mode == "off" or (self._mode == "resets" and self._spoils()):
                _reset(client)
            yield part

    async def _pass(self, request: str) -> None:
        """Wait as long as the request is to wait."""
        self.requests.append(request)
        await asyncio.sleep(self.delay_s)
        if not (self.hold and self.hold in request):
            return
        self.held.append(request)
        try:
            while self.hold and self.hold in request:
                await asyncio.sleep(HELD_CHECK_S)
        finally:
            self.held.remove(request)

    def _refusal_of(self, path: str) -> Refusal | None:
        refusal = self.refusal
        if refusal is None or refusal.path not in path or not refusal.times:
            return None
        refusal.times -= 1
        return refusal

    def _spoils(self) -> bool:
        return self._rng.random() < SHARE


def _reset(client: asyncio.StreamWriter) -> NoReturn:
    client.transport.abort()
    raise _ConnectionBrokenError


async def _refuse(reader: asyncio.StreamReader, client: asyncio.StreamWriter, status: int, code: str) -> NoReturn:
    """Answer with an S3 error in place of the service, and end the connection once the client has read it."""
    body = f"<Error><Code>{code}</Code><Message>from the fault proxy</Message></Error>"
    head = f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
    client.write(f"{head}Connection: close\r\n\r\n{body}".encode())
    client.write_eof()
    while await reader.read(PART_BYTES):  # a close with unread data would reset the connection before that
        pass
    raise _ConnectionBrokenError
