"""The example of a web backend answers its own page only, and reads no more than it should."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.worker.serving import env_of, eventually, recipe
from worker.local.identity import free_ports
from worker.local.services import LocalServices
from worker.settings import PROJECT

DATABASE = 10
TIMEOUT_S = 20.0


@pytest.fixture(scope="module")
def port(services: LocalServices) -> Iterator[int]:
    """That of the running example."""
    port = free_ports(1, None)
    command = [sys.executable, str(PROJECT / "examples" / "web_backend.py"), str(port)]
    env = {**os.environ, **env_of(services, DATABASE), "PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(command, env=env, cwd=PROJECT) as backend:
        try:
            eventually(lambda: is_up(port) or backend.poll() is not None, "a backend that answers")
            yield port
        finally:
            backend.terminate()


def is_up(port: int) -> bool:
    try:
        return ask(port)[0] == 200
    except OSError:
        return False


def ask(port: int, method: str = "GET", path: str = "/", body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    """The answer to a request with exactly these headers, and by default its own Host."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": f"127.0.0.1:{port}", **headers}.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def post(port: int, body: bytes, **headers: str) -> tuple[int, bytes]:
    return ask(port, "POST", "/runs", body, Content_Length=str(len(body)), **headers)


def error_of(answer: bytes) -> str:
    error = json.loads(answer)["error"]
    assert isinstance(error, str)
    return error


def test_its_own_page_may_submit_and_cancel(port: int) -> None:
    for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
        status, answer = post(port, json.dumps({"recipe": recipe()}).encode(), Host=host, Origin=f"http://{host}")
        assert status == 202
        assert ask(port, "DELETE", f"/runs/{json.loads(answer)['run_id']}", Host=host) == (200, b'{"cancelled": true}')


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_other_sites_are_refused(port: int, method: str) -> None:
    own, foreign = f"127.0.0.1:{port}", f"evil.example:{port}"
    for host in (foreign, "127.0.0.1", f"127.0.0.1:{port + 1}", f"127.0.0.1.evil.example:{port}", ""):
        status, answer = ask(port, method, "/runs", Host=host, Content_Length="0")
        assert (status, "Host or Origin" in error_of(answer)) == (403, True)
    for origin in (f"http://{foreign}", "null", f"https://{own}", f"http://localhost:{port}", "http://127.0.0.1"):
        assert ask(port, method, "/runs", Origin=origin, Content_Length="0")[0] == 403


@pytest.mark.parametrize(
    ("length", "status"),
    [
        *((None, 411), ("-1", 400), ("+5", 400), ("1_0", 400), ("", 400), ("\u00b2", 400), ("9" * 5000, 400)),
        *((str(2**20 + 1), 413), (str(300 * 2**20), 413)),
    ],
)
def test_a_body_of_no_sane_length_is_not_read(port: int, length: str | None, status: int) -> None:
    headers = {} if length is None else {"Content_Length": length}
    answered, answer = ask(port, "POST", "/runs", b"", **headers)
    assert (answered, bool(error_of(answer))) == (status, True)


@pytest.mark.parametrize("body", [b"[" * 500_000, b'{"recipe":' * 90_000, b"{", b"\xff", b"[]", b"{}", b"5", b""])
def test_a_body_that_is_no_request_gets_an_answer(port: int, body: bytes) -> None:
    status, answer = post(port, body)
    assert (status, bool(error_of(answer))) == (400, True)


def test_a_recipe_that_is_nested_deeply_is_refused_in_words(port: int) -> None:
    body = b'{"recipe": {"name": ' + b"[" * 500 + b"]" * 500 + b"}}"
    status, answer = post(port, body)
    assert (status, "nested too deep" in error_of(answer)) == (422, True)
