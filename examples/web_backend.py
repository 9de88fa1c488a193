"""A web backend with the standard library and without torch: submits recipes, streams their progress to browsers.

python examples/web_backend.py, then open http://127.0.0.1:8000/. It uses the worker's settings for Redis and S3.

    POST   /runs               {"recipe": ..., "overrides": ..., "variables": ...}  ->  202 {"run_id": ...}
    GET    /runs/<id>/events   Server-Sent Events; a browser that lost its connection resumes with Last-Event-ID
    DELETE /runs/<id>          cancels

It listens on loopback only and has no authentication: put your own in front of it.
"""

import json
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

ADDRESS = ("127.0.0.1", 8000)
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


class Handler(BaseHTTPRequestHandler):
    """One request."""

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
        except (ValueError, KeyError) as error:
            self._refuse(HTTPStatus.BAD_REQUEST, f'expected {{"recipe": a name or a recipe}}: {error}')
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
        size = int(self.headers.get("Content-Length", 0))
        if size > MAX_BODY_BYTES:
            raise ValueError(f"{size:,} bytes are more than {MAX_BODY_BYTES:,}")
        body = json.loads(self.rfile.read(size))
        if not isinstance(body, Mapping):
            raise ValueError("not a JSON object")  # noqa: TRY004 - the value is wrong, not the program
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
    ThreadingHTTPServer(ADDRESS, Handler).serve_forever()
