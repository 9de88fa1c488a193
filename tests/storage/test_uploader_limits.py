"""What waits for its upload takes bounded memory and disk, and can be dropped at any time."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.errors import StoreUnavailableError
from storage.journal import Commit, Journal
from storage.objects.memory import MemoryStore
from storage.uploader import Uploader, UploadLimits
from tests.storage.uploads import TroubledStore, text_step, uploader_of


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Holds an encoding until it is set; always set in the end."""
    event = threading.Event()
    yield event
    event.set()


def held_by(gate: threading.Event) -> Callable[[], bytes]:
    def encode() -> bytes:
        assert gate.wait(20)
        return b"1234"

    return encode


def test_memory_is_bounded(troubled: TroubledStore, committed: list[Commit], gate: threading.Event) -> None:
    uploader = uploader_of(Journal(troubled, "", "r1"), committed, max_pending_bytes=10)
    uploader.submit(text_step(1, "1234", held_by(gate)))
    uploader.submit(text_step(2, "1234"))
    third = threading.Thread(target=uploader.submit, args=(text_step(3, "1234"),))
    third.start()
    third.join(0.2)
    assert third.is_alive(), "a third step fits in no more than 10 bytes"
    assert uploader.pending_bytes == 8
    gate.set()
    third.join(20)
    uploader.close()
    assert [commit.step for commit in committed] == [1, 2, 3]
    assert uploader.pending_bytes == 0


def test_a_step_above_the_bound_passes_alone(troubled: TroubledStore, committed: list[Commit]) -> None:
    uploader = uploader_of(Journal(troubled, "", "r1"), committed, max_pending_bytes=1)
    for step in (1, 2):
        uploader.submit(text_step(step))
    uploader.close()
    assert [commit.step for commit in committed] == [1, 2]


def test_an_abort_drops_what_waits(troubled: TroubledStore, committed: list[Commit], gate: threading.Event) -> None:
    uploader = uploader_of(Journal(troubled, "", "r1"), committed)
    uploader.submit(text_step(1, "1234", held_by(gate)))
    uploader.submit(text_step(2))
    threading.Timer(0.05, gate.set).start()
    uploader.abort()
    assert [commit.step for commit in committed] in ([], [1])
    assert not troubled.exists("r1/commits/002.json")


def test_an_abort_leaves_a_store_that_hangs_and_nothing_is_stored_after_it(
    committed: list[Commit], gate: threading.Event
) -> None:
    hung = threading.Event()

    class Hanging(MemoryStore):
        def put(self, key: str, data: bytes, *, content_type: str, only_if_absent: bool = False) -> None:
            hung.set()
            assert gate.wait(20)
            super().put(key, data, content_type=content_type, only_if_absent=only_if_absent)

    store = Hanging()
    uploader = uploader_of(Journal(store, "", "r1"), committed)
    uploader.submit(text_step(1))
    assert hung.wait(20)
    (storing,) = (thread for thread in threading.enumerate() if thread.name.startswith("uploader"))
    uploader.abort()
    assert storing.is_alive()
    gate.set()
    storing.join(20)
    assert (committed, list(store.list(""))) == ([], ["r1/steps/001-thinking.txt"])


def test_an_abort_ends_the_wait_for_a_store_that_is_away(troubled: TroubledStore, committed: list[Commit]) -> None:
    troubled.errors = [StoreUnavailableError("away")] * 1000
    away = threading.Event()
    uploader = Uploader(
        Journal(troubled, "", "r1"),
        recipe_sha256="cafe",
        on_commit=committed.append,
        on_wait=lambda _error, _wait_s: away.set(),
    )
    uploader.submit(text_step(1))
    assert away.wait(20)
    uploader.abort()
    assert committed == []


def test_while_the_store_is_away_what_is_encoded_waits_on_disk_and_the_work_goes_on(
    troubled: TroubledStore, committed: list[Commit]
) -> None:
    back = threading.Event()

    def come_back(_error: StoreUnavailableError, _wait_s: float) -> None:
        assert back.wait(20)
        troubled.errors.clear()

    uploader = Uploader(
        Journal(troubled, "", "r1"),
        recipe_sha256="cafe",
        on_commit=committed.append,
        limits=UploadLimits(pending_bytes=20, spool_bytes=2**20),
        on_wait=come_back,
    )
    troubled.errors = [StoreUnavailableError("away")] * 1000
    for step in range(1, 101):
        uploader.submit(text_step(step, f"text {step:03d}"))
        assert uploader.pending_bytes <= 20
    assert uploader.spooled_bytes > 600
    back.set()
    uploader.close()
    assert [commit.step for commit in committed] == list(range(1, 101))
    assert troubled.get("r1/steps/077-thinking.txt") == b"text 077"
    assert (uploader.pending_bytes, uploader.spooled_bytes) == (0, 0)


def test_the_work_waits_only_when_memory_and_disk_are_full(
    troubled: TroubledStore, committed: list[Commit], gate: threading.Event
) -> None:
    calls: list[int] = []

    def called_back() -> None:
        calls.append(uploader.pending_bytes + uploader.spooled_bytes)
        gate.set()

    def come_back(_error: StoreUnavailableError, _wait_s: float) -> None:
        assert gate.wait(20)
        troubled.errors.clear()

    uploader = Uploader(
        Journal(troubled, "", "r1"),
        recipe_sha256="cafe",
        on_commit=committed.append,
        limits=UploadLimits(pending_bytes=8, spool_bytes=8),
        on_wait=come_back,
        while_waiting=called_back,
    )
    troubled.errors = [StoreUnavailableError("away")] * 1000
    for step in range(1, 10):
        uploader.submit(text_step(step, "1234"))
    uploader.close()
    assert 8 < calls[0] <= 20
    assert [commit.step for commit in committed] == list(range(1, 10))


def test_what_is_called_while_waiting_may_end_it(troubled: TroubledStore, committed: list[Commit]) -> None:
    def enough() -> None:
        raise ConnectionAbortedError

    uploader = Uploader(
        Journal(troubled, "", "r1"), recipe_sha256="cafe", on_commit=committed.append, while_waiting=enough
    )
    troubled.errors = [StoreUnavailableError("away")] * 1000
    uploader.submit(text_step(1))
    with pytest.raises(ConnectionAbortedError):
        uploader.close()
    uploader.close(timeout_s=0.01)
    assert committed == []


def test_a_disk_that_is_full_is_waited_for(troubled: TroubledStore, committed: list[Commit], tmp_path: Path) -> None:
    not_a_folder = tmp_path / "file"
    not_a_folder.touch()
    uploader = Uploader(
        Journal(troubled, "", "r1"),
        recipe_sha256="cafe",
        on_commit=committed.append,
        limits=UploadLimits(pending_bytes=8, spool_bytes=2**20, spool_dir=not_a_folder),
    )
    for step in range(1, 30):
        uploader.submit(text_step(step, "1234"))
    uploader.close()
    assert [commit.step for commit in committed] == list(range(1, 30))
