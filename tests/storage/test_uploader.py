"""Steps are stored in the background, in order, once, through outages, in bounded memory."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from storage.errors import CommitConflictError, StoreRefusedError, StoreUnavailableError
from storage.journal import Artifact, Commit, Journal
from storage.objects import ObjectStore
from storage.objects.memory import MemoryStore
from storage.objects.s3 import S3Store
from storage.uploader import PendingObject, PendingStep, Uploader, UploadLimits
from worker.local.services import LocalServices


def text_step(step: int, text: str = "words", encode: Callable[[], bytes] | None = None) -> PendingStep:
    about = Artifact(
        kind="text", role="thinking", step=step, key=f"steps/{step:03d}-thinking.txt", content_type="text/plain"
    )
    pending = PendingObject(about=about, encode=encode or text.encode, size_estimate=len(text))
    return PendingStep(step=step, kind="write", objects=(pending,))


def uploader_of(
    journal: Journal,
    committed: list[Commit],
    *,
    max_pending_bytes: int = 2**20,
    spool_bytes: int = 0,
    outage_timeout_s: float = 60,
) -> Uploader:
    return Uploader(
        journal,
        recipe_sha256="cafe",
        on_commit=committed.append,
        limits=UploadLimits(
            pending_bytes=max_pending_bytes, spool_bytes=spool_bytes, outage_timeout_s=outage_timeout_s
        ),
    )


@pytest.fixture
def committed() -> list[Commit]:
    return []


class TroubledStore(MemoryStore):
    """Raises what is given, one error a put; and can lose the answer of puts that it did."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[Exception] = []
        self.answers_lost = False
        self.turn = threading.Lock()

    def put(self, key: str, data: bytes, *, content_type: str, only_if_absent: bool = False) -> None:
        with self.turn:
            if self.errors and not self.answers_lost:
                raise self.errors.pop(0)
            super().put(key, data, content_type=content_type, only_if_absent=only_if_absent)
            if self.errors:
                raise self.errors.pop(0)


@pytest.fixture
def troubled() -> TroubledStore:
    return TroubledStore()


def test_every_step_is_stored_committed_and_announced_in_order(
    store: ObjectStore, prefix: str, committed: list[Commit]
) -> None:
    journal = Journal(store, prefix, "r1")
    uploader = uploader_of(journal, committed)
    uploader.submit(PendingStep(step=1, kind="read"))
    for step in range(2, 9):
        uploader.submit(text_step(step, f"text {step} ä"))
    uploader.close()
    assert [commit.step for commit in committed] == list(range(1, 9))
    assert journal.commits() == tuple(committed)
    (artifact,) = committed[1].artifacts
    assert journal.get(artifact.key).decode() == "text 2 ä"
    assert artifact.size == 9
    assert artifact.sha256 == hashlib.sha256("text 2 ä".encode()).hexdigest()


def test_a_step_is_announced_only_when_it_counts(store: ObjectStore, prefix: str) -> None:
    journal = Journal(store, prefix, "r1")
    seen: list[bool] = []

    def announce(commit: Commit) -> None:
        seen.append(commit in journal.commits() and store.exists(f"{prefix}/r1/{commit.artifacts[0].key}"))

    uploader = Uploader(journal, recipe_sha256="cafe", on_commit=announce)
    uploader.submit(text_step(1))
    uploader.close()
    assert seen == [True]


def test_the_objects_of_a_step_are_put_together_and_those_of_the_next_while_it_is_committed(
    committed: list[Commit],
) -> None:
    together, next_step = threading.Barrier(3), threading.Event()

    class Waiting(MemoryStore):
        def put(self, key: str, data: bytes, *, content_type: str, only_if_absent: bool = False) -> None:
            if "steps/001" in key:
                together.wait(20)
            elif "steps/002" in key:
                next_step.set()
            elif "commits/001" in key:
                assert next_step.wait(20)
            super().put(key, data, content_type=content_type, only_if_absent=only_if_absent)

    journal = Journal(Waiting(), "", "r1")
    uploader = uploader_of(journal, committed)
    (one,) = text_step(1).objects
    names = [f"steps/001-{number}.txt" for number in range(3)]
    objects = tuple(replace(one, about=replace(one.about, key=name)) for name in names)
    uploader.submit(PendingStep(step=1, kind="write", objects=objects))
    uploader.submit(text_step(2))
    made = uploader.wait_for_objects()
    uploader.close()
    assert [artifact.key for artifact in made[0].artifacts] == names
    assert committed == made == list(journal.commits())


def test_what_comes_first_is_stored_in_order_before_any_step(troubled: TroubledStore, committed: list[Commit]) -> None:
    journal = Journal(troubled, "", "r1")
    seen: list[list[str]] = []

    def first(name: str) -> None:
        seen.append(list(troubled.list("")))
        journal.put_once(name, b"{}", content_type="application/json")

    troubled.errors = [StoreUnavailableError("away")] * 2
    uploader = Uploader(
        journal, recipe_sha256="cafe", on_commit=committed.append, first=[partial(first, "a"), partial(first, "b")]
    )
    uploader.submit(text_step(1))
    uploader.close()
    assert seen == [[], [], [], ["r1/a"]]
    assert [commit.step for commit in committed] == [1]


def test_nothing_is_stored_after_what_comes_first_failed(troubled: TroubledStore, committed: list[Commit]) -> None:
    asked = threading.Event()

    def refuse() -> None:
        assert asked.wait(20)
        raise StoreRefusedError("no such bucket")

    uploader = Uploader(Journal(troubled, "", "r1"), recipe_sha256="cafe", on_commit=committed.append, first=[refuse])
    uploader.submit(text_step(1))
    asked.set()
    with pytest.raises(StoreRefusedError, match="no such bucket"):
        uploader.wait_for_objects()
    assert (committed, list(troubled.list(""))) == ([], [])


@pytest.mark.parametrize("answers_lost", [False, True], ids=["puts fail", "answers are lost"])
def test_an_outage_delays_and_changes_nothing(
    troubled: TroubledStore, committed: list[Commit], *, answers_lost: bool
) -> None:
    journal = Journal(troubled, "", "r1")
    troubled.errors = [StoreUnavailableError("away")] * 3
    troubled.answers_lost = answers_lost
    uploader = uploader_of(journal, committed)
    uploader.submit(text_step(1))
    uploader.submit(text_step(2))
    uploader.close()
    assert journal.commits() == tuple(committed)
    assert [commit.step for commit in committed] == [1, 2]


@pytest.mark.services
def test_a_killed_server_delays_and_loses_nothing(data_dir: Path, committed: list[Commit]) -> None:
    away = threading.Event()
    with LocalServices.start(data_dir) as services:
        journal = Journal(S3Store(services.s3_settings), "runs", "r1")
        uploader = Uploader(
            journal,
            recipe_sha256="cafe",
            on_commit=committed.append,
            on_wait=lambda _error, _wait_s: away.set(),
        )
        uploader.submit(text_step(1))
        services.kill_s3()
        for step in range(2, 6):
            uploader.submit(text_step(step))
        assert away.wait(20)
        services.restart_s3()
        uploader.close()
        assert [commit.step for commit in committed] == [1, 2, 3, 4, 5]
        assert journal.commits() == tuple(committed)


def test_an_outage_beyond_patience_ends_it(troubled: TroubledStore, committed: list[Commit]) -> None:
    troubled.errors = [StoreUnavailableError("away for good")] * 100
    uploader = uploader_of(Journal(troubled, "", "r1"), committed, outage_timeout_s=0)
    uploader.submit(text_step(1))
    with pytest.raises(StoreUnavailableError, match="for good"):
        uploader.close()
    assert committed == []


def test_nothing_counts_after_a_step_that_failed(troubled: TroubledStore, committed: list[Commit]) -> None:
    journal = Journal(troubled, "", "r1")
    uploader = uploader_of(journal, committed)
    encoding, refuse = threading.Event(), threading.Event()

    def encode() -> bytes:
        encoding.set()
        assert refuse.wait(20)
        troubled.errors = [StoreRefusedError("no such bucket")]
        return b"words"

    uploader.submit(text_step(1, encode=encode))
    assert encoding.wait(20)
    uploader.submit(text_step(2))
    refuse.set()
    with pytest.raises(StoreRefusedError, match="no such bucket"):
        uploader.close()
    assert (committed, journal.commits()) == ([], ())
    assert list(troubled.list("")) == []


def test_a_failure_is_raised_by_the_next_submit(troubled: TroubledStore, committed: list[Commit]) -> None:
    troubled.errors = [StoreRefusedError("no")]
    uploader = uploader_of(Journal(troubled, "", "r1"), committed)

    def submit_many() -> None:
        for step in range(1, 10_000):
            uploader.submit(text_step(step))

    with pytest.raises(StoreRefusedError, match="no"):
        submit_many()
    uploader.abort()


def test_what_the_listener_raises_ends_it_too(store: ObjectStore, prefix: str) -> None:
    def announce(commit: Commit) -> None:
        raise ConnectionError(f"step {commit.step}")

    uploader = Uploader(Journal(store, prefix, "r1"), recipe_sha256="cafe", on_commit=announce)
    uploader.submit(text_step(1))
    with pytest.raises(ConnectionError, match="step 1"):
        uploader.close()


def test_a_worker_that_lost_its_run_commits_nothing(store: ObjectStore, prefix: str, committed: list[Commit]) -> None:
    journal = Journal(store, prefix, "r1")
    theirs = Commit(run_id="r1", step=1, kind="draw", recipe_sha256="cafe")
    journal.commit(theirs)
    uploader = uploader_of(journal, committed)
    uploader.submit(text_step(1))
    with pytest.raises(CommitConflictError):
        uploader.close()
    assert journal.commits() == (theirs,)


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
