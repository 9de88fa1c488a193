"""Real servers for the whole test session, fresh names in them for each test, and the marks of what a test needs."""

import re
import secrets
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import redis

from storage.objects.s3 import S3Store
from worker.local.services import LocalServices

IMPORTS_TORCH = re.compile(
    r"^ *(from|import) (torch|(tests\.)?core\.bagel|core(\.| import )(bench|demo))\b", re.MULTILINE
)


@cache
def imports_torch(module: Path) -> bool:
    return bool(IMPORTS_TORCH.search(module.read_text()))


def is_without_model(config: pytest.Config) -> bool:
    return "not model" in config.getoption("markexpr")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Don't even import what imports torch for a run without a model: that alone takes seconds."""
    return (is_without_model(config) and collection_path.suffix == ".py" and imports_torch(collection_path)) or None


def pytest_runtest_teardown(item: pytest.Item) -> None:
    if is_without_model(item.config) and "torch" in sys.modules:
        pytest.exit(f"{item.nodeid} loads torch: mark it with pytest.mark.model", returncode=1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses the session's servers or imports torch; other tests that need either carry the mark themselves."""
    for item in items:
        if isinstance(item, pytest.Function) and "services" in item.fixturenames:
            item.add_marker("services")
        if imports_torch(item.path):
            item.add_marker("model")


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
