"""Object stores: their protocol, and checks that they share."""

from collections.abc import Iterator
from typing import Protocol

from storage.errors import InvalidNameError, StoreRefusedError

PARALLEL_READS = 32
"""The number of objects of one run that are read at the same time: a store may take 100 ms for each."""


class ObjectStore(Protocol):
    """A bucket of objects. Every method may raise StoreUnavailableError (retry) or StoreRefusedError (don't)."""

    def put(self, key: str, data: bytes, *, content_type: str, only_if_absent: bool = False) -> None:
        """Store an object; with `only_if_absent`, one writer succeeds and the others get ObjectExistsError.

        If the response was lost, a repeated call may raise ObjectExistsError because of the caller's own object.
        """
        ...

    def get(self, key: str) -> bytes:
        """The object's bytes. Raises ObjectNotFoundError."""
        ...

    def exists(self, key: str) -> bool: ...

    def list(self, prefix: str) -> Iterator[str]:
        """The keys that begin with `prefix`, in order."""
        ...

    def delete(self, key: str) -> None:
        """Delete the object if it exists."""
        ...

    def url(self, key: str) -> str:
        """The URL of the object for browsers: public, or presigned for a limited time."""
        ...

    def address(self, key: str) -> str:
        """The permanent address of the object, s3://bucket/key."""
        ...

    def get_address(self, address: str, *, max_bytes: int | None = None) -> bytes:
        """The bytes of s3://bucket/key, any bucket. Raises ObjectNotFoundError, StoreRefusedError above `max_bytes`."""
        ...


def split_address(address: str) -> tuple[str, str]:
    """The bucket and key of s3://bucket/key. Raises InvalidNameError."""
    bucket, _, key = address.removeprefix("s3://").partition("/")
    if not address.startswith("s3://") or not bucket or not key:
        raise InvalidNameError(f"{address!r}: must be s3://bucket/key")
    return bucket, key


def check_size(address: str, size_bytes: int, max_bytes: int | None) -> None:
    """Raises StoreRefusedError when an object is larger than `max_bytes`."""
    if max_bytes is not None and size_bytes > max_bytes:
        raise StoreRefusedError(f"{address}: has {size_bytes:,} bytes; allowed: at most {max_bytes:,}")
