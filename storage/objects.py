"""Where objects are kept: a small protocol, its twin in memory, and the proof that a store keeps its word."""

import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from storage.errors import InvalidName, ObjectExists, ObjectMissing, StoreRefused, StoreUnavailable


class ObjectStore(Protocol):
    """A bucket of objects. Every method may raise StoreUnavailable (try again) or StoreRefused (don't)."""

    def put(self, key: str, data: bytes, *, content_type: str, only_if_absent: bool = False) -> None:
        """Store an object; with `only_if_absent` raises ObjectExists when there is one, and exactly one writer wins.

        When the answer was lost, a repeated call may raise ObjectExists over the caller's own object.
        """
        ...

    def get(self, key: str) -> bytes:
        """The object's bytes. Raises ObjectMissing."""
        ...

    def exists(self, key: str) -> bool: ...

    def list(self, prefix: str) -> Iterator[str]:
        """The keys that begin with `prefix`, in order."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object, or nothing."""
        ...

    def url(self, key: str) -> str:
        """Where a browser gets the object: a public address, or one that is signed for a while."""
        ...

    def address(self, key: str) -> str:
        """The object's lasting name, s3://bucket/key."""
        ...

    def get_address(self, address: str, *, max_bytes: int | None = None) -> bytes:
        """The bytes of s3://bucket/key in any bucket. Raises ObjectMissing; StoreRefused when above `max_bytes`."""
        ...


class MemoryStore:
    """An ObjectStore in this process's memory, for tests and for runs that leave nothing behind."""

    def __init__(self, bucket: str = "memory") -> None:
        self.bucket = bucket
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def put(self, key: str, data: bytes, *, content_type: str, only_if_absent: bool = False) -> None:
        del content_type  # nothing serves these objects
        with self._lock:
            if only_if_absent and key in self._objects:
                raise ObjectExists(self.address(key))
            self._objects[key] = bytes(data)

    def get(self, key: str) -> bytes:
        with self._lock:
            if key not in self._objects:
                raise ObjectMissing(self.address(key))
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
            raise ObjectMissing(address)
        data = self.get(key)
        check_size(address, len(data), max_bytes)
        return data


def split_address(address: str) -> tuple[str, str]:
    """The bucket and key of s3://bucket/key. Raises InvalidName."""
    bucket, _, key = address.removeprefix("s3://").partition("/")
    if not address.startswith("s3://") or not bucket or not key:
        raise InvalidName(f"{address!r}: must be s3://bucket/key")
    return bucket, key


def check_size(address: str, size_bytes: int, max_bytes: int | None) -> None:
    """Raises StoreRefused when an object is larger than its reader allows."""
    if max_bytes is not None and size_bytes > max_bytes:
        raise StoreRefused(f"{address}: has {size_bytes:,} bytes, at most {max_bytes:,} are allowed")


def probe(store: ObjectStore, *, folder: str = "probe/", rounds: int = 2, writers: int = 4) -> None:
    """Prove that of several writers who create one object at once exactly one wins; commits rest on it.

    Leaves nothing behind. Raises StoreRefused with what happened instead, StoreUnavailable when the store is away.
    """
    with ThreadPoolExecutor(writers) as pool:
        for number in range(rounds):
            key = f"{folder}{secrets.token_hex(8)}"
            barrier = threading.Barrier(writers)

            def create(writer: int, key: str = key, barrier: threading.Barrier = barrier) -> int | None:
                barrier.wait()
                try:
                    store.put(key, b"writer %d" % writer, content_type="text/plain", only_if_absent=True)
                except ObjectExists:
                    return None
                return writer

            try:
                winners = [writer for writer in pool.map(create, range(writers)) if writer is not None]
                stored = store.get(key)
            finally:
                store.delete(key)
            if not winners:  # the answer to the one that won was lost on its way, and it asked again
                raise StoreUnavailable(
                    f"{store.address(key)}: {writers} writers created it, and none heard that it won"
                )
            if len(winners) != 1 or stored != b"writer %d" % winners[0]:
                raise StoreRefused(
                    f"{store.address(key)}: {writers} writers created one object at once with If-None-Match: *, and "
                    f"{len(winners)} were told they won (round {number + 1} of {rounds}); this store can't keep two "
                    "workers off one run. A store with conditional puts is needed (AWS S3, SeaweedFS 4.x)"
                )
