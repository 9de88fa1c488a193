"""Steps are stored in the background, in order, once, through outages."""

import hashlib
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from storage.errors import CommitConflictError, StoreRefusedError, StoreUnavailableError
from storage.journal import Commit, Journal
from storage.objects import ObjectStore
from storage.objects.memory import MemoryStore
from storage.objects.s3 import S3Store
from storage.uploader import PendingStep, Uploader
from tests.storage.uploads import TroubledStore, text_step, uploader_of
from worker.local.services import LocalServices


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
