"""The same tests for every object store."""

import pytest

from storage.objects import MemoryStore, ObjectStore
from storage.s3 import S3Store


@pytest.fixture(params=["memory", "s3"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    if request.param == "memory":
        return MemoryStore()
    real: S3Store = request.getfixturevalue("s3_store")
    return real
