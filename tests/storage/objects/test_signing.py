"""A machine whose clock is wrong, or jumps, can use S3 all the same."""

import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace

import pytest

from storage.errors import StoreRefusedError
from storage.objects.s3 import S3Store
from storage.objects.signing import MAX_ATTEMPTS, ServerClock
from worker.local.services import LocalServices


class Clock:
    """UTC, and how far it is off."""

    def __init__(self) -> None:
        self.off = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.off


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(services: LocalServices, clock: Clock) -> Iterator[S3Store]:
    """On a machine with that clock."""
    opened = S3Store(services.s3_settings, ServerClock(now=clock))
    yield opened
    opened.close()


@pytest.mark.parametrize("hours", [1, -1, 24 * 365])
def test_a_clock_that_jumps_fails_no_call(store: S3Store, clock: Clock, prefix: str, hours: int) -> None:
    store.put(f"{prefix}/a", b"before", content_type="text/plain")
    clock.off = timedelta(hours=hours)
    store.put(f"{prefix}/a", b"after", content_type="text/plain")
    assert store.get(f"{prefix}/a") == b"after"
    clock.off = timedelta()
    assert store.exists(f"{prefix}/a")  # a HEAD, whose refusal has no words
    clock.off = timedelta(hours=-hours)
    assert list(store.list(prefix)) == [f"{prefix}/a"]


def test_a_refusal_of_the_time_is_answered_once(store: S3Store, clock: Clock, prefix: str) -> None:
    clock.off = timedelta(hours=1)
    sent: list[str] = []
    store._client.meta.events.register("before-send.s3", lambda request, **_: sent.append(request.method))
    store.put(f"{prefix}/a", b"1", content_type="text/plain", only_if_absent=True)
    assert sent == ["PUT", "PUT"]
    store.put(f"{prefix}/b", b"1", content_type="text/plain")
    assert sent == ["PUT"] * 3


def test_threads_that_are_refused_together_all_succeed(store: S3Store, clock: Clock, prefix: str) -> None:
    clock.off = timedelta(hours=1)
    all_sent = threading.Barrier(8, timeout=60)

    def wait_for_all(**_: object) -> None:
        all_sent.wait()

    store._client.meta.events.register("before-send.s3", wait_for_all)
    with ThreadPoolExecutor(8) as pool:  # each sends twice
        list(pool.map(lambda n: store.put(f"{prefix}/{n}", b"1", content_type="text/plain"), range(8)))


def test_links_are_signed_by_the_clock_of_the_server(store: S3Store, clock: Clock, prefix: str) -> None:
    clock.off = timedelta(hours=1)
    store.put(f"{prefix}/a", b"1", content_type="text/plain")
    with urllib.request.urlopen(store.url(f"{prefix}/a")) as answer:
        assert answer.read() == b"1"


def test_wrong_credentials_stay_refused_whatever_the_clock(services: LocalServices, clock: Clock) -> None:
    wrong = S3Store(replace(services.s3_settings, secret_key="wrong"), ServerClock(now=clock))
    with pytest.raises(StoreRefusedError):
        wrong.get("a")
    clock.off = timedelta(hours=1)
    with pytest.raises(StoreRefusedError):
        wrong.get("a")
    wrong.close()


def test_servers_that_disagree_are_not_asked_forever(clock: Clock) -> None:
    server = ServerClock(now=clock)
    for hours in range(1, MAX_ATTEMPTS + 1):
        date = format_datetime(datetime.now(UTC) + timedelta(hours=hours))
        delay_s = server._delay_of_retry(
            response=(SimpleNamespace(status_code=403, headers={"date": date}), {}),
            attempts=hours,
            request_dict={"context": {"timestamp": server.timestamp()}},
        )
        assert delay_s == (0 if hours < MAX_ATTEMPTS else None)


def test_an_answer_without_a_time_teaches_nothing(clock: Clock) -> None:
    assert not ServerClock(now=clock).correct("20260101T000000Z", {})
