"""A machine whose clock is wrong, or jumps, can use S3 all the same."""

import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from storage.errors import StoreRefusedError, StoreUnavailableError
from storage.objects.s3 import S3Store
from storage.objects.signing import ServerClock
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
def test_a_clock_that_jumps_costs_one_more_try(store: S3Store, clock: Clock, prefix: str, hours: int) -> None:
    store.put(f"{prefix}/a", b"before", content_type="text/plain")
    clock.off = timedelta(hours=hours)
    with pytest.raises(StoreUnavailableError, match="this machine's clock is wrong"):
        store.put(f"{prefix}/a", b"after", content_type="text/plain")
    store.put(f"{prefix}/a", b"after", content_type="text/plain")
    assert store.get(f"{prefix}/a") == b"after"
    clock.off = timedelta()
    with pytest.raises(StoreUnavailableError, match="this machine's clock is wrong"):
        store.exists(f"{prefix}/a")  # a HEAD, whose refusal has no words
    assert store.exists(f"{prefix}/a")


def test_links_are_signed_by_the_clock_of_the_server(store: S3Store, clock: Clock, prefix: str) -> None:
    clock.off = timedelta(hours=1)
    with pytest.raises(StoreUnavailableError):
        store.put(f"{prefix}/a", b"1", content_type="text/plain")
    store.put(f"{prefix}/a", b"1", content_type="text/plain")
    with urllib.request.urlopen(store.url(f"{prefix}/a")) as answer:
        assert answer.read() == b"1"


def test_wrong_credentials_stay_refused_whatever_the_clock(services: LocalServices, clock: Clock) -> None:
    wrong = S3Store(replace(services.s3_settings, secret_key="wrong"), ServerClock(now=clock))
    with pytest.raises(StoreRefusedError):
        wrong.get("a")
    clock.off = timedelta(hours=1)
    with pytest.raises(StoreUnavailableError):
        wrong.get("a")
    with pytest.raises(StoreRefusedError):
        wrong.get("a")
    wrong.close()


def test_an_answer_without_a_time_teaches_nothing(clock: Clock) -> None:
    assert not ServerClock(now=clock).correct({})
