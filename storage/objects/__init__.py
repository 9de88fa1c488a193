"""Where objects are kept: the protocol of a store."""

from collections.abc import Iterator
from typing import Protocol

from storage.errors import InvalidNameError, StoreRefusedError


class ObjectStore(Protocol):
    """A bucket of objects. Every method may raise StoreUnavailableError (try again) or StoreRefusedError (don't)."""

    def put(self, key: str, data: bytes, *, content_type: str, only_if_absent: bool = False) -> None:
        """Store an object; with `only_if_absent` one writer wins and the others get ObjectExistsError.

        When the answer was lost, a repeated call may raise ObjectExistsError over the caller's own object.
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
        """Remove an object, or nothing."""
        ...

    def url(self, key: str) -> str:
        """Where a browser gets the object: a public address, or one that is signed for a while."""
        ...

    def address(self, key: str) -> str:
        """The object's lasting name, s3://bucket/key."""
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
    """Raises StoreRefusedError when an object is larger than its reader allows."""
    if max_bytes is not None and size_bytes > max_bytes:
        raise StoreRefusedError(f"{address}: has {size_bytes:,} bytes, at most {max_bytes:,} are allowed")
