"""Real servers for the whole test session, and fresh names in them for each test."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from storage.objects.s3 import S3Store
from worker.local.services import LocalServices


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServices]:
    """Redis and S3 on loopback. That they can't start is a failure, never a skip."""
    with LocalServices.start(tmp_path_factory.mktemp("services")) as started:
        yield started


@pytest.fixture
def redis_url(services: LocalServices) -> str:
    return services.redis_url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture(scope="session")
def s3_store(services: LocalServices) -> Iterator[S3Store]:
    store = S3Store(services.s3_settings)
    yield store
    store.close()


@pytest.fixture
def prefix() -> str:
    """A folder in the bucket that no other test writes to."""
    return f"test-{secrets.token_hex(6)}"


@pytest.fixture
def run_id() -> str:
    """A run that no other test knows."""
    return f"run-{secrets.token_hex(6)}"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / ".autoseq"
