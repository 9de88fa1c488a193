"""What only a real server shows: checksums, signed addresses, outages and refusals told apart."""

import http.client
import socket
import urllib.parse
from contextlib import suppress
from dataclasses import replace
from threading import Thread
from typing import Any

import pytest

from storage.errors import ObjectExistsError, StoreAccessError, StoreRefusedError, StoreUnavailableError
from storage.objects.s3 import S3Store
from tests.faults.proxy import FaultProxy, Refusal
from worker.local.services import LocalServices


def fetch(url: str) -> tuple[int, str | None, bytes]:
    parts = urllib.parse.urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=5)
    connection.request("GET", f"{parts.path}?{parts.query}")
    answer = connection.getresponse()
    found = answer.status, answer.getheader("content-type"), answer.read()
    connection.close()
    return found


def test_a_signed_address_serves_the_object_with_its_type(s3_store: S3Store, prefix: str) -> None:
    s3_store.put(f"{prefix}/ä.html", b"<p>hello", content_type="text/html; charset=utf-8")
    assert fetch(s3_store.url(f"{prefix}/ä.html")) == (200, "text/html; charset=utf-8", b"<p>hello")


def test_addresses_are_signed_for_the_endpoint_that_browsers_reach(services: LocalServices, prefix: str) -> None:
    outside = services.s3_settings.endpoint.replace("127.0.0.1", "localhost")  # type: ignore[union-attr]  # it is set
    store = S3Store(replace(services.s3_settings, public_endpoint=outside))
    store.put(f"{prefix}/a.txt", b"seen from outside", content_type="text/plain")
    address = store.url(f"{prefix}/a.txt")
    assert address.startswith(f"{outside}/")
    assert fetch(address) == (200, "text/plain", b"seen from outside")
    store.close()


def test_a_public_address_is_not_signed(services: LocalServices) -> None:
    store = S3Store(replace(services.s3_settings, public_url="https://cdn.example/pictures/"))
    assert store.url("runs/r1/ä b.png") == "https://cdn.example/pictures/runs/r1/%C3%A4%20b.png"


def test_the_server_verifies_the_checksum(s3_store: S3Store, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = type("Wrong", (), {"digest": lambda self: bytes(32)})  # noqa: ARG005 - called as a method
    monkeypatch.setattr("storage.objects.s3.hashlib.sha256", lambda _data: wrong())
    with pytest.raises(StoreUnavailableError, match="BadDigest"):
        s3_store.put(f"{prefix}/a", b"damaged on the way", content_type="text/plain")
    assert not s3_store.exists(f"{prefix}/a")


def test_checksums_can_be_turned_off(services: LocalServices, prefix: str) -> None:
    store = S3Store(replace(services.s3_settings, checksums=False))
    sent: list[dict[str, Any]] = []
    store._client.meta.events.register("before-send.s3.PutObject", lambda request, **_: sent.append(request.headers))
    store.put(f"{prefix}/a", b"1", content_type="text/plain")
    assert store.get(f"{prefix}/a") == b"1"
    assert not [name for name in sent[0] if name.lower().startswith("x-amz-checksum")]


def test_objects_are_encrypted_by_the_server_as_the_settings_say(services: LocalServices, prefix: str) -> None:
    store = S3Store(replace(services.s3_settings, sse="AES256"))
    store.put(f"{prefix}/a", b"1", content_type="text/plain")
    found = store._client.head_object(Bucket=store.bucket, Key=f"{prefix}/a")
    assert found["ServerSideEncryption"] == "AES256"
    assert store.get(f"{prefix}/a") == b"1"
    store.close()


def test_the_key_of_the_encryption_is_named(services: LocalServices, prefix: str) -> None:
    store = S3Store(replace(services.s3_settings, sse="aws:kms", sse_kms_key_id="key-1"))
    sent: list[dict[str, Any]] = []
    store._client.meta.events.register("before-send.s3.PutObject", lambda request, **_: sent.append(request.headers))
    with pytest.raises((StoreRefusedError, StoreUnavailableError)):  # this server has no KMS
        store.put(f"{prefix}/a", b"1", content_type="text/plain")
    assert sent[0]["x-amz-server-side-encryption"] == b"aws:kms"
    assert sent[0]["x-amz-server-side-encryption-aws-kms-key-id"] == b"key-1"
    store.close()


def test_a_server_that_is_not_there_may_come_back(services: LocalServices) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, but nobody listens
        port = free.getsockname()[1]
        store = S3Store(replace(services.s3_settings, endpoint=f"http://127.0.0.1:{port}"))
        with pytest.raises(StoreUnavailableError, match=f"s3://autosequence/a at http://127.0.0.1:{port}"):
            store.put("a", b"1", content_type="text/plain")


def test_a_server_that_says_nothing_is_away(services: LocalServices) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        store = S3Store(replace(services.s3_settings, endpoint=f"http://127.0.0.1:{port}", timeout_s=0.2))
        with pytest.raises(StoreUnavailableError, match=r"[Tt]imed? ?out|[Tt]imeout"):
            store.get("a")


@pytest.mark.parametrize(
    "answer", ["503 Slow Down", "500 Internal Server Error", "429 Too Many Requests", "502 Bad Gateway"]
)
def test_a_server_in_trouble_is_away(services: LocalServices, answer: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        store = S3Store(replace(services.s3_settings, endpoint=endpoint))

        def serve() -> None:
            for _ in range(2):
                connection, _address = server.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())

        thread = Thread(target=serve)
        thread.start()
        with pytest.raises(StoreUnavailableError, match=answer[:3]):
            store.get("a")
        thread.join()


@pytest.mark.parametrize("call", ["get", "list"])
def test_an_answer_that_ends_too_soon_is_an_outage(services: LocalServices, call: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        store = S3Store(replace(services.s3_settings, endpoint=endpoint))

        def serve() -> None:
            server.settimeout(0.5)
            with suppress(TimeoutError):
                for _ in range(2):
                    connection, _address = server.accept()
                    with connection:
                        connection.recv(65536)
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n<half")

        thread = Thread(target=serve)
        thread.start()
        with pytest.raises(StoreUnavailableError, match="a at http://"):
            store.get("a") if call == "get" else list(store.list("a"))
        thread.join()


def test_a_put_asks_for_no_leave_to_send_its_body(services: LocalServices, prefix: str) -> None:
    store = S3Store(services.s3_settings)
    sent: list[dict[str, str]] = []
    store._client.meta.events.register("before-send.s3.PutObject", lambda request, **_: sent.append(request.headers))
    store.put(f"{prefix}/a", b"1", content_type="text/plain")
    store.close()
    assert [name for name in sent[0] if name.lower() == "expect"] == []


def test_a_lost_race_is_known_by_its_status_alone(services: LocalServices) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        store = S3Store(replace(services.s3_settings, endpoint=f"http://127.0.0.1:{server.getsockname()[1]}"))

        def serve() -> None:
            connection, _address = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n")

        thread = Thread(target=serve)
        thread.start()
        with pytest.raises(ObjectExistsError):
            store.put("a", b"1", content_type="text/plain", only_if_absent=True)
        thread.join()


def test_a_missing_bucket_is_refused_until_it_is_made(services: LocalServices, run_id: str) -> None:
    store = S3Store(replace(services.s3_settings, bucket=run_id))
    with pytest.raises(StoreAccessError, match="NoSuchBucket"):
        store.get("a")
    store.ensure_bucket()
    store.ensure_bucket()
    store.put("a", b"1", content_type="text/plain")
    assert store.get("a") == b"1"


def test_missing_credentials_are_refused(services: LocalServices, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    store = S3Store(replace(services.s3_settings, access_key=None, secret_key=None))
    with pytest.raises(StoreAccessError, match="credentials"):
        store.get("a")


@pytest.mark.parametrize(
    ("status", "code", "is_access"),
    [(400, "ExpiredToken", True), (403, "AccessDenied", True), (401, "", True), (400, "EntityTooLarge", False)],
)
def test_a_refusal_of_access_is_told_from_that_of_an_object(
    services: LocalServices, status: int, code: str, *, is_access: bool
) -> None:
    port = urllib.parse.urlsplit(services.s3_settings.endpoint or "").port
    assert port is not None
    with FaultProxy(port) as proxy:
        proxy.refusal = Refusal(status=status, code=code, path="/a", times=1)
        store = S3Store(replace(services.s3_settings, endpoint=proxy.endpoint))
        with pytest.raises(StoreRefusedError) as refused:
            store.put("a", b"1", content_type="text/plain")
        store.close()
    assert isinstance(refused.value, StoreAccessError) == is_access
