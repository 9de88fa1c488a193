"""Stands between one worker and one service: may fall silent, as a cut cable does, and remembers what was stored."""

import asyncio
import re
import threading
import time
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

PART_BYTES = 65_536
_PUT = re.compile(rb"PUT (/[^ ?]+)[^ ]* HTTP/1\.1\r\n")
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


@dataclass(frozen=True, kw_only=True)
class Put:
    """An object that a worker put into S3, and what S3 said."""

    key: str
    """With its bucket."""
    status: int
    at: float
    """When it was answered, in seconds of the monotonic clock."""


class Forwarder:
    """A TCP forwarder in a thread of its own.

    Silent, it takes connections and answers nothing, and nothing that was sent is lost: all of it goes on once it is no
    longer silent, however late, as a packet does that is sent again and again.
    """

    def __init__(self, port: int, *, host: str = "127.0.0.1") -> None:
        self.host = host
        self.port = 0
        self.puts: list[Put] = []
        self._upstream_port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="forwarder")
        self._server: asyncio.Server | None = None
        self._clear = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        self._clear.set()
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

    def silence(self, *, on: bool) -> None:
        """Fall silent, or speak again."""

        async def change() -> None:
            if on:
                self._clear.clear()
            else:
                self._clear.set()

        self._do(change())

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        passing = asyncio.all_tasks() - {asyncio.current_task()}
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._clear.wait()
            from_service, to_service = await asyncio.open_connection("127.0.0.1", self._upstream_port)
            asked: deque[bytes] = deque()
            ways = (self._requests(reader, to_service, asked), self._answers(from_service, writer, asked))
            try:
                await asyncio.gather(*ways)
            finally:
                to_service.transport.abort()
        except (
            OSError,
            asyncio.CancelledError,
        ):  # asyncio's own callback would complain about a connection that ends so
            pass
        finally:
            writer.transport.abort()

    async def _requests(
        self, reader: asyncio.StreamReader, to_service: asyncio.StreamWriter, asked: deque[bytes]
    ) -> None:
        async for part in self._parts(reader):
            if put := _PUT.match(part):
                asked.append(put[1])
            to_service.write(part)
            await to_service.drain()
        to_service.write_eof()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: deque[bytes]) -> None:
        async for part in self._parts(reader, remember=asked):
            writer.write(part)
            await writer.drain()
        writer.write_eof()

    async def _parts(self, reader: asyncio.StreamReader, *, remember: deque[bytes] | None = None) -> Any:
        """What comes, part by part, none while it is silent; answers are remembered when they are given."""
        while True:
            await self._clear.wait()
            part = await reader.read(PART_BYTES)
            if not part:
                return
            if remember and (answer := _STATUS.match(part)):
                key = remember.popleft().decode().lstrip("/")
                self.puts.append(Put(key=key, status=int(answer[1]), at=time.monotonic()))
            await self._clear.wait()
            yield part
