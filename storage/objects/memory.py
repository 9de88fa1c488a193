"""An ObjectStore in memory."""

import threading
from collections.abc import Iterator

from storage.errors import ObjectExistsError, ObjectNotFoundError
from storage.objects import check_size, split_address


class MemoryStore:
    """Keeps objects in the memory of this process, for tests and for runs that store nothing."""

    def __init__(self, bucket: str = "memory") -> None:
        self.bucket = bucket
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def put(self, key: str, data: bytes, *, content_type: str, only_if_absent: bool = False) -> None:
        del content_type  # nothing serves these objects
        with self._lock:
            if only_if_absent and key in self._objects:
                raise ObjectExistsError(self.address(key))
            self._objects[key] = bytes(data)

    def get(self, key: str) -> bytes:
        with self._lock:
            if key not in self._objects:
                raise ObjectNotFoundError(self.address(key))
            return self._objects[key]

    def exists(self, key: str) -> bool:
        with self._lock:
            return key in self._objects

    def list(self, prefix: str) -> Iterator[str]:
        with self._lock:
            keys = sorted(key for key in self._objects if key.startswith(prefix))
        yield from keys

    def delete(self, key: str) -> None:
        with self._lock:
            self._objects.pop(key, None)

    def url(self, key: str) -> str:
        return f"memory://{self.bucket}/{key}"

    def address(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def get_address(self, address: str, *, max_bytes: int | None = None) -> bytes:
        bucket, key = split_address(address)
        if bucket != self.bucket:
            raise ObjectNotFoundError(address)
        data = self.get(key)
        check_size(address, len(data), max_bytes)
        return data
