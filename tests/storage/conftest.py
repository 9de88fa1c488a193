"""The same tests for every object store."""

from pathlib import Path

import pytest

from storage.journal import Commit
from storage.objects import ObjectStore
from storage.objects.folder import FolderStore
from storage.objects.memory import MemoryStore
from storage.objects.s3 import S3Store
from tests.storage.uploads import TroubledStore

S3 = pytest.param("s3", marks=pytest.mark.services)


@pytest.fixture(params=["memory", S3, "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "folder":
        return FolderStore(tmp_path)
    return of_a_bucket(request)


@pytest.fixture(params=["memory", S3])
def bucket(request: pytest.FixtureRequest) -> ObjectStore:
    """A store whose objects have s3:// addresses."""
    return of_a_bucket(request)


def of_a_bucket(request: pytest.FixtureRequest) -> ObjectStore:
    if request.param == "memory":
        return MemoryStore()
    real: S3Store = request.getfixturevalue("s3_store")
    return real


@pytest.fixture
def committed() -> list[Commit]:
    return []


@pytest.fixture
def troubled() -> TroubledStore:
    return TroubledStore()
