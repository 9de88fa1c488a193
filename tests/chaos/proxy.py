"""Stands between the workers and S3, and spoils what passes."""

import asyncio
import contextlib
import random
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

Mode: TypeAlias = Literal["clear", "latency", "resets", "503", "truncated", "off"]
LATENCY_S = 0.2
SHARE = 0.2
"""Of the parts that pass, how many are spoilt."""
PART_BYTES = 65_536
REFUSAL = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class FaultProxy:
    """A TCP proxy on loopback, in a thread of its own, whose `mode` may be set at any time.

    latency: every part of an answer is late. resets: connections are reset, in the middle of a request or of its
    answer, so that some requests succeed unheard. 503: requests are refused. truncated: answers end too soon.
    off: whoever connects is reset.
    """

    def __init__(self, port: int, *, seed: int) -> None:
        self.mode: Mode = "clear"
        self._upstream_port = port
        self._rng = random.Random(f"proxy/{seed}")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self._server: asyncio.Server | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._connected, "127.0.0.1", 0))
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
        passing = asyncio.all_tasks() - {asyncio.current_task()}
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode == "off":
            writer.transport.abort()
            return
        try:
            from_s3, to_s3 = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        except OSError:
            writer.transport.abort()
            return
        ways = [
            asyncio.ensure_future(self._requests(reader, writer, to_s3)),
            asyncio.ensure_future(self._answers(from_s3, writer)),
        ]
        # Cancelled when the proxy ends; asyncio's own callback would complain about a connection that ends so.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        to_s3.transport.abort()
        writer.close()

    async def _requests(
        self, reader: asyncio.StreamReader, back: asyncio.StreamWriter, to_s3: asyncio.StreamWriter
    ) -> None:
        while part := await reader.read(PART_BYTES):
            if self.mode == "off" or (self.mode == "resets" and self._spoils()):
                back.transport.abort()
                return
            if self.mode == "503" and self._spoils():
                back.write(REFUSAL)
                await back.drain()
                return
            to_s3.write(part)
            await to_s3.drain()

    async def _answers(self, from_s3: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while part := await from_s3.read(PART_BYTES):
            if self.mode == "latency":
                await asyncio.sleep(LATENCY_S)
            if self.mode == "off" or (self.mode == "resets" and self._spoils()):
                writer.transport.abort()
                return
            if self.mode == "truncated" and self._spoils():
                writer.write(part[: len(part) // 2])
                await writer.drain()
                return
            writer.write(part)
            await writer.drain()

    def _spoils(self) -> bool:
        return self._rng.random() < SHARE
