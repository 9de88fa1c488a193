"""Every object store keeps the same word; a store that does not is found out."""

import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest

from storage.errors import (
    InvalidNameError,
    ObjectExistsError,
    ObjectNotFoundError,
    StoreRefusedError,
    StoreUnavailableError,
)
from storage.objects import ObjectStore, split_address
from storage.objects.memory import MemoryStore
from storage.objects.probe import probe


def put(store: ObjectStore, key: str, data: bytes = b"x", *, only_if_absent: bool = False) -> None:
    store.put(key, data, content_type="text/plain", only_if_absent=only_if_absent)


def test_what_is_put_is_got(store: ObjectStore, prefix: str) -> None:
    data = secrets.token_bytes(300_000)
    put(store, f"{prefix}/a", data)
    assert store.get(f"{prefix}/a") == data
    assert store.exists(f"{prefix}/a")


def test_an_empty_object_and_an_odd_key_are_objects_too(store: ObjectStore, prefix: str) -> None:
    put(store, f"{prefix}/ä b+c%.txt", b"")
    assert store.get(f"{prefix}/ä b+c%.txt") == b""


def test_a_missing_object_is_missing(store: ObjectStore, prefix: str) -> None:
    assert not store.exists(f"{prefix}/a")
    with pytest.raises(ObjectNotFoundError, match=f"{prefix}/a"):
        store.get(f"{prefix}/a")


def test_a_put_replaces(store: ObjectStore, prefix: str) -> None:
    put(store, f"{prefix}/a", b"1")
    put(store, f"{prefix}/a", b"2")
    assert store.get(f"{prefix}/a") == b"2"


def test_a_put_that_creates_does_not_replace(store: ObjectStore, prefix: str) -> None:
    put(store, f"{prefix}/a", b"1", only_if_absent=True)
    with pytest.raises(ObjectExistsError, match=f"{prefix}/a"):
        put(store, f"{prefix}/a", b"2", only_if_absent=True)
    assert store.get(f"{prefix}/a") == b"1"


def test_keys_are_listed_in_order_and_by_prefix(store: ObjectStore, prefix: str) -> None:
    for name in ("steps/2", "steps/10", "commits/1", "steps/1"):
        put(store, f"{prefix}/{name}")
    assert list(store.list(f"{prefix}/steps/")) == [f"{prefix}/steps/{name}" for name in ("1", "10", "2")]
    assert list(store.list(f"{prefix}/none/")) == []


def test_a_deleted_object_is_gone_and_deleting_nothing_is_fine(store: ObjectStore, prefix: str) -> None:
    put(store, f"{prefix}/a")
    store.delete(f"{prefix}/a")
    store.delete(f"{prefix}/a")
    assert not store.exists(f"{prefix}/a")


def test_an_object_is_found_by_its_address(bucket: ObjectStore, prefix: str) -> None:
    put(bucket, f"{prefix}/a", b"1234")
    address = bucket.address(f"{prefix}/a")
    assert address.startswith("s3://")
    assert bucket.get_address(address) == bucket.get_address(address, max_bytes=4) == b"1234"
    with pytest.raises(StoreRefusedError, match="4 bytes; allowed: at most 3"):
        bucket.get_address(address, max_bytes=3)
    with pytest.raises((ObjectNotFoundError, StoreRefusedError), match="elsewhere"):
        bucket.get_address("s3://elsewhere/a")


@pytest.mark.parametrize("address", ["", "a/b", "s3://", "s3://bucket", "s3://bucket/", "s3:///key", "http://b/k"])
def test_an_address_has_a_bucket_and_a_key(address: str) -> None:
    with pytest.raises(InvalidNameError, match="s3://bucket/key"):
        split_address(address)


def test_of_many_writers_one_creates(store: ObjectStore, prefix: str) -> None:
    def create(writer: int) -> int | None:
        try:
            put(store, f"{prefix}/a", b"%d" % writer, only_if_absent=True)
        except ObjectExistsError:
            return None
        return writer

    with ThreadPoolExecutor(8) as pool:
        winners = [writer for writer in pool.map(create, range(8)) if writer is not None]
    assert [b"%d" % winner for winner in winners] == [store.get(f"{prefix}/a")]


def test_a_store_that_keeps_its_word_passes_the_probe_and_is_left_clean(store: ObjectStore, prefix: str) -> None:
    probe(store, folder=f"{prefix}/")
    assert list(store.list(f"{prefix}/")) == []


class ForgetfulStore(MemoryStore):
    """Lets every writer win, as stores do that ignore If-None-Match."""

    def put(self, key: str, data: bytes, *, content_type: str, only_if_absent: bool = False) -> None:
        del only_if_absent
        super().put(key, data, content_type=content_type)


def test_a_store_that_lets_two_writers_win_is_refused_and_left_clean() -> None:
    store = ForgetfulStore()
    with pytest.raises(StoreRefusedError, match="4 of them succeeded"):
        probe(store)
    assert list(store.list("")) == []


class DeafStore(MemoryStore):
    """Loses the answer to the writer that wins; its second try finds its own object."""

    def put(self, key: str, data: bytes, *, content_type: str, only_if_absent: bool = False) -> None:
        super().put(key, data, content_type=content_type, only_if_absent=only_if_absent)
        raise ObjectExistsError(key)


def test_a_store_whose_winner_never_heard_is_probed_again() -> None:
    with pytest.raises(StoreUnavailableError, match="the response to the first was lost"):
        probe(DeafStore())
