"""A TCP proxy on this machine that delays HTTP PUTs, to measure what a distant S3 costs."""

import socket
import socketserver
import threading
import time
from types import TracebackType
from typing import Self

PART_BYTES = 65_536


class SlowLink:
    """Forwards the connections to a port of its own to the server at `port`; each PUT waits `delay_s` first."""

    def __init__(self, port: int, *, delay_s: float) -> None:
        class Handler(socketserver.BaseRequestHandler):
            """Forwards one connection."""

            def handle(self) -> None:
                with socket.create_connection(("127.0.0.1", port)) as server:
                    threading.Thread(target=_forward, args=(server, self.request, 0.0), daemon=True).start()
                    _forward(self.request, server, delay_s)

        self._listener = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._listener.daemon_threads = True
        self._thread = threading.Thread(target=self._listener.serve_forever, name="slow link", daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._listener.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown()
        self._listener.server_close()


def _forward(source: socket.socket, target: socket.socket, delay_s: float) -> None:
    """Forward until either side closes. A client begins a request only after the response to the one before it."""
    try:
        while part := source.recv(PART_BYTES):
            if part.startswith(b"PUT "):
                time.sleep(delay_s)
            target.sendall(part)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the other side closed first
