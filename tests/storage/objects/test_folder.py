"""A folder is an object store too: whole files, and none outside it. What all stores do is in test_objects."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from storage.errors import InvalidNameError, StoreRefusedError
from storage.journal import Journal
from storage.objects.folder import FolderStore


def put(store: FolderStore, key: str, data: bytes = b"x", *, only_if_absent: bool = False) -> None:
    store.put(key, data, content_type="text/plain", only_if_absent=only_if_absent)


@pytest.mark.parametrize("key", ["../a", "a/../../b", "/etc/passwd", "link/a"])
def test_no_key_leads_out_of_the_folder(tmp_path: Path, key: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path)
    (tmp_path / "a").write_text("not ours")
    store = FolderStore(inside)
    for call in (store.get, store.exists, store.delete, store.url, lambda key: put(store, key)):
        with pytest.raises(InvalidNameError, match="is outside"):
            call(key)
    assert (tmp_path / "a").read_text() == "not ours"


def test_an_address_is_the_file_itself(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    put(store, "a/b c.txt", b"1")
    assert store.url("a/b c.txt") == store.address("a/b c.txt") == (tmp_path / "a" / "b c.txt").as_uri()
    assert urlsplit(store.url("a/b c.txt")).scheme == "file"
    with pytest.raises(StoreRefusedError, match="this store is a local folder without S3"):
        store.get_address("s3://bucket/key")


def test_what_is_under_way_is_no_object(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    put(store, "a/b")
    put(store, "a/b", b"again")
    (tmp_path / "a" / ".half").write_bytes(b"")
    assert list(store.list("")) == ["a/b"]
    (tmp_path / "a" / ".half").unlink()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"], "nothing is left beside it"


def test_many_that_replace_one_object_never_meet_none(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    put(store, "a", b"0")

    def replace_and_read(writer: int) -> bytes:
        put(store, "a", b"%d" % writer)
        return store.get("a")

    with ThreadPoolExecutor(8) as pool:
        seen = set(pool.map(replace_and_read, range(200)))
    assert seen <= {b"%d" % writer for writer in range(200)}


def test_a_folder_that_cannot_be_written_is_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = FolderStore(tmp_path)
    with pytest.raises(StoreRefusedError, match="can't be written: "):
        put(store, "file/a")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreRefusedError, match="can't be read: "):
        store.get("folder")


def test_a_journal_is_kept_in_a_folder_as_in_a_bucket(tmp_path: Path) -> None:
    journal = Journal(FolderStore(tmp_path), "", "run-1")
    journal.put_once("steps/001-thinking.txt", b"words", content_type="text/plain")
    assert (tmp_path / "run-1" / "steps" / "001-thinking.txt").read_bytes() == b"words"
    assert journal.get("steps/001-thinking.txt") == b"words"
    assert journal.commits() == ()
