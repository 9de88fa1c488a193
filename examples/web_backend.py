"""A web backend with the standard library and without torch: submits recipes, streams their progress to browsers.

python examples/web_backend.py [PORT], then open http://127.0.0.1:8000/. It uses the worker's settings for Redis and S3.

    POST   /runs               {"recipe": ..., "overrides": ..., "variables": ...}  ->  202 {"run_id": ...}
    GET    /runs/<id>/events   Server-Sent Events; a browser that lost its connection resumes with Last-Event-ID
    DELETE /runs/<id>          cancels

It listens on loopback only and has no authentication: put your own in front of it. It answers only requests whose Host
is its own address, so that no other web site can use it through a browser; a proxy has to set that Host.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from recipes.faults import RecipeError
from storage.errors import InvalidNameError, RunNotFoundError, StoreUnavailableError
from storage.redis.follow import START
from worker.client import Client
from worker.connections import ServiceUnavailableError
from worker.jobs.inputs import InputError
from worker.settings import settings

PORT = 8000
PAGE = Path(__file__).with_name("web_page.html")
MAX_BODY_BYTES = 1024 * 1024
QUIET_S = 5.0
"""Time without an event after which a comment is sent, which fails if the browser has left."""
STATUS: dict[type[Exception], HTTPStatus] = {
    InputError: HTTPStatus.UNPROCESSABLE_ENTITY,
    InvalidNameError: HTTPStatus.BAD_REQUEST,
    RunNotFoundError: HTTPStatus.NOT_FOUND,
    ServiceUnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
    StoreUnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
}
REFUSALS = tuple(STATUS)

client = Client(settings())


def server_sent_events(run_id: str, after: str) -> Iterator[bytes]:
    """The run's events after the event id `after` until its end, as Server-Sent Events."""
    while True:
        try:
            for event in client.watch(run_id, after=after, timeout_s=QUIET_S):
                after = event.id
                yield f"id: {event.id}\ndata: {event.to_json()}\n\n".encode()
        except TimeoutError:
            yield b": nothing new\n\n"
        else:
            return


class BodyError(Exception):
    """The body of a request can't be used."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    """One request."""

    def parse_request(self) -> bool:
        """Refuse requests of other web sites: DNS rebinding shows in Host, a cross-site request in Origin."""
        if not super().parse_request():
            return False
        port, host = self.server.server_address[1], self.headers.get("Host", "")
        if host in (f"127.0.0.1:{port}", f"localhost:{port}") and self.headers.get("Origin") in (
            None,
            f"http://{host}",
        ):
            return True
        self._refuse(HTTPStatus.FORBIDDEN, f"Host or Origin is not http://127.0.0.1:{port} or http://localhost:{port}")
        return False

    def do_GET(self) -> None:
        match self.path.strip("/").split("/"):
            case [""]:
                self._send(HTTPStatus.OK, PAGE.read_bytes(), "text/html; charset=utf-8")
            case ["runs", run_id, "events"]:
                self._stream(run_id, self.headers.get("Last-Event-ID", START))
            case _:
                self._refuse(HTTPStatus.NOT_FOUND, f"there is nothing at {self.path}")

    def do_POST(self) -> None:
        if self.path != "/runs":
            self._refuse(HTTPStatus.NOT_FOUND, f"there is nothing at {self.path}")
            return
        try:
            body = self._body()
            run_id = client.submit(body["recipe"], overrides=body.get("overrides"), variables=body.get("variables"))
        except RecipeError as error:
            self._answer(HTTPStatus.UNPROCESSABLE_ENTITY, {"error": str(error), "faults": error.to_data()})
        except REFUSALS as error:
            self._refuse(STATUS[type(error)], str(error))
        except BodyError as error:
            self._refuse(error.status, str(error))
        else:
            self._answer(HTTPStatus.ACCEPTED, {"run_id": run_id})

    def do_DELETE(self) -> None:
        try:
            cancelled = client.cancel(self.path.removeprefix("/runs/"))
        except REFUSALS as error:
            self._refuse(STATUS[type(error)], str(error))
        else:
            self._answer(HTTPStatus.OK, {"cancelled": cancelled})

    def _stream(self, run_id: str, after: str) -> None:
        events = server_sent_events(run_id, after)
        try:
            first = next(events)  # refuse an unknown run or id before the stream starts
        except REFUSALS as error:
            self._refuse(STATUS[type(error)], str(error))
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        try:
            self.wfile.write(first)
            for event in events:
                self.wfile.write(event)
        except (ConnectionError, StoreUnavailableError):
            return  # the browser left, or it reconnects with its Last-Event-ID

    def _body(self) -> Mapping[str, Any]:
        size = self.headers.get("Content-Length")
        if size is None:
            raise BodyError(HTTPStatus.LENGTH_REQUIRED, "the request has no Content-Length")
        if not re.fullmatch("[0-9]{1,18}", size):
            raise BodyError(HTTPStatus.BAD_REQUEST, "Content-Length is not a number of bytes")
        if int(size) > MAX_BODY_BYTES:
            raise BodyError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has more than {MAX_BODY_BYTES:,} bytes")
        try:
            body = json.loads(self.rfile.read(int(size)))
        except (ValueError, RecursionError) as error:
            raise BodyError(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {error}") from None
        if not isinstance(body, Mapping) or "recipe" not in body:
            raise BodyError(HTTPStatus.BAD_REQUEST, 'expected {"recipe": a name or a recipe}')
        return body

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._answer(status, {"error": why})

    def _answer(self, status: HTTPStatus, answer: Mapping[str, Any]) -> None:
        self._send(status, json.dumps(answer).encode(), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else PORT), Handler).serve_forever()
