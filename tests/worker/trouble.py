"""An S3 server that gives wrong answers: it stands before the real one, and passes on what it does not spoil."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass(kw_only=True)
class Trouble:
    """Answers some requests with an error of S3."""

    endpoint: str = ""
    status: int = 503
    code: str = "SlowDown"
    times: int = 0
    """How many requests are answered so; then everything passes."""
    place: str = ""
    """Only puts of keys that hold this."""
    answered: list[str] = field(default_factory=list)
    """The keys that got an error."""

    def takes(self, method: str, path: str) -> bool:
        """Whether this request is answered with the error; then it counts."""
        if method != "PUT" or self.place not in path or not self.times:
            return False
        self.times -= 1
        self.answered.append(path)
        return True


@contextmanager
def troubled(upstream: str) -> Iterator[Trouble]:
    """A server before `upstream` (http://host:port)."""
    trouble = Trouble()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(trouble, urlsplit(upstream).netloc))
    server.daemon_threads = True
    trouble.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield trouble
    server.shutdown()
    thread.join()
    server.server_close()


def _handler(trouble: Trouble, upstream: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # else a client that asks whether to go on waits a second for the answer

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if trouble.takes(self.command, self.path):
                error = f"<Error><Code>{trouble.code}</Code><Message>as the test wants</Message></Error>"
                self.reply(trouble.status, [("Content-Type", "application/xml")], error.encode())
                return
            connection = http.client.HTTPConnection(upstream, timeout=20)
            connection.request(self.command, self.path, body, dict(self.headers.items()))
            told = connection.getresponse()
            kept = [one for one in told.getheaders() if one[0].lower() not in {"content-length", "connection"}]
            self.reply(told.status, kept, told.read(), length=told.getheader("Content-Length"))
            connection.close()

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = answer  # noqa: N815 - http.server's names

        def reply(self, status: int, headers: list[tuple[str, str]], body: bytes, *, length: str | None = None) -> None:
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", length or str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

    return Handler
