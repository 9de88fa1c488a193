"""Background uploads: while one step is generated, the steps before it are encoded, stored and committed.

One thread encodes, one stores objects and one commits, each one step at a time: while a step is committed, the objects
of the next are stored. Encoded objects wait in a spool, so that generation continues while the store is unavailable.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from storage.errors import StoreUnavailableError
from storage.journal import Artifact, Commit, Journal, in_parallel
from storage.retry import RetryPolicy
from storage.spool import Spool, SpooledBytes

WAKE_S = 0.5
"""The interval of `while_waiting`."""
ABORT_S = 1.0
"""How long an abort waits for the step in progress. A store that hangs may keep its thread for longer."""


@dataclass(frozen=True, kw_only=True)
class PendingObject:
    """An object of a step that is not encoded yet."""

    about: Artifact
    """The artifact, without size and SHA-256."""
    encode: Callable[[], bytes]
    """Called once, in one of the uploader's threads; equal steps give equal bytes."""
    size_estimate: int
    """Bytes in memory until it is encoded."""

    def artifact(self, data: bytes) -> Artifact:
        """The artifact whose bytes are `data`, this object's encoding."""
        return replace(self.about, size=len(data), sha256=hashlib.sha256(data).hexdigest())


@dataclass(frozen=True, kw_only=True)
class PendingStep:
    """A finished step that is not stored yet."""

    step: int
    kind: str
    objects: tuple[PendingObject, ...] = ()

    @property
    def size_estimate(self) -> int:
        return sum(pending.size_estimate for pending in self.objects)


@dataclass(frozen=True, kw_only=True)
class UploadLimits:
    """How far uploads may lag behind generation."""

    pending_bytes: int = 256 * 2**20
    """Maximum bytes in memory, besides the step being stored; a larger step is accepted when nothing else waits."""
    spool_bytes: int = 2 * 2**30
    """Maximum bytes in files."""
    spool_dir: Path | None = None
    """The folder of the files; by default the system's folder for temporary files."""
    outage_timeout_s: float = 600.0
    """How long the store may be unavailable."""
    last_uploads_s: float = 10.0
    """How long a run that is stopped waits for its last uploads."""


class Uploader:
    """Commits steps in their order, in the background.

    For each step its objects are put, all at the same time, then its commit record, then `on_commit` is called. No step
    is begun before the objects of the step before it are stored, and none is committed before it. While the store is
    unavailable everything waits, up to `outage_timeout_s`. Any other error ends the uploads and is raised by the next
    `submit` or `close`. Repeated writes are idempotent: objects have their final bytes, and records are created once.

    Args:
        journal: the run's folder.
        recipe_sha256: goes into every commit record.
        on_commit: called with each record, once it is stored, in the thread that commits.
        first: idempotent calls that store what the steps need; made at once, in order, before any step is stored.
        limits: how far uploads may lag behind.
        on_wait: called in the threads that store, with the error of each failed attempt and the pause after it in
            seconds.
        while_waiting: called every WAKE_S in the thread that waits in `submit`, `wait_for_objects` or `close`; what it
            raises ends the waiting.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        recipe_sha256: str,
        on_commit: Callable[[Commit], None],
        first: Sequence[Callable[[], None]] = (),
        limits: UploadLimits | None = None,
        on_wait: Callable[[StoreUnavailableError, float], None] | None = None,
        while_waiting: Callable[[], None] = lambda: None,
    ) -> None:
        limits = limits or UploadLimits()
        self._journal = journal
        self._recipe_sha256 = recipe_sha256
        self._on_commit = on_commit
        self._while_waiting = while_waiting
        self._pending_bytes = limits.pending_bytes
        self._spool = Spool(
            memory_bytes=limits.pending_bytes // 2, disk_bytes=limits.spool_bytes, folder=limits.spool_dir
        )
        self._stopped = threading.Event()
        self._abandoned = threading.Event()
        self._retry = RetryPolicy(limits.outage_timeout_s, stop=self._stopped, on_wait=on_wait)
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="encoder")
        self._storer = ThreadPoolExecutor(1, thread_name_prefix="uploader")
        self._committer = ThreadPoolExecutor(1, thread_name_prefix="committer")
        self._room = threading.Condition()
        self._raw_bytes = 0
        self._first = self._storer.submit(self._store_first, first)
        self._stored: list[Future[Commit]] = []
        self._pending: list[Future[None]] = [self._first]

    @property
    def pending_bytes(self) -> int:
        """Bytes in memory."""
        return self._raw_bytes + self._spool.in_memory

    @property
    def spooled_bytes(self) -> int:
        """Bytes on disk."""
        return self._spool.on_disk

    def submit(self, step: PendingStep) -> None:
        """Store `step` after the steps before it. Blocks at the limits; raises what ended the uploads."""
        size = step.size_estimate
        while not self._has_room_for(size):
            self._while_waiting()
        self._raise_failures()
        encoded = self._encoder.submit(self._encode, step)
        before = self._stored[-1] if self._stored else self._first
        stored = self._storer.submit(self._store, step, encoded, before)
        self._stored.append(stored)
        self._pending.append(self._committer.submit(self._commit, stored))

    def wait_for_objects(self) -> list[Commit]:
        """Wait until the objects of all steps are stored. Returns their records, which may not all be created yet.

        Raises what ended the uploads, or what `while_waiting` raises.
        """
        while wait(self._stored, timeout=WAKE_S).not_done:
            self._while_waiting()
        if any(stored.exception() for stored in self._stored):
            self.close()  # raises it, once the steps before are committed
        return [stored.result() for stored in self._stored]

    def close(self, timeout_s: float | None = None) -> None:
        """Wait until everything is committed. Raises what ended the uploads, or what `while_waiting` raises.

        With `timeout_s`, steps that are not committed by then are dropped, and `while_waiting` is not called.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while wait(self._pending, timeout=WAKE_S).not_done:
            if deadline is None:
                self._while_waiting()
            elif time.monotonic() > deadline:
                break
        try:
            self._raise_failures()
        finally:
            self.abort()

    def abort(self) -> None:
        """Drop all waiting steps and wait up to ABORT_S for those in progress, which may be committed or not.

        A thread that still waits for the store then puts nothing more.
        """
        self._stop()
        for threads in (self._encoder, self._storer, self._committer):
            threads.shutdown(wait=False, cancel_futures=True)
        uploads: list[Future[Any]] = [*self._stored, *self._pending]
        wait([upload for upload in uploads if not upload.cancelled()], ABORT_S)
        self._abandoned.set()
        self._spool.drop()

    def _has_room_for(self, size: int) -> bool:
        """Wait up to WAKE_S for room for `size` bytes, and reserve it; returns whether there was room."""
        with self._room:
            fits = self._room.wait_for(lambda: self._stopped.is_set() or self._fits(size), WAKE_S)
            if fits:
                self._raw_bytes += size
            return fits

    def _fits(self, size: int) -> bool:
        return self._raw_bytes == 0 or self.pending_bytes + size <= self._pending_bytes

    def _raise_failures(self) -> None:
        waiting = []
        for upload in self._pending:
            if not upload.done():
                waiting.append(upload)
            elif not upload.cancelled():
                upload.result()
        self._pending = waiting

    def _stop(self) -> None:
        """Commit nothing after the step in progress."""
        with self._room:
            self._stopped.set()
            self._room.notify_all()
        self._spool.close()

    def _encode(self, step: PendingStep) -> list[tuple[Artifact, SpooledBytes]]:
        """Each object of `step` as an artifact and its bytes."""
        encoded = []
        try:
            for pending in () if self._stopped.is_set() else step.objects:
                data = pending.encode()
                encoded.append((pending.artifact(data), self._spool.put(data)))
        finally:
            with self._room:
                self._raw_bytes -= step.size_estimate
                self._room.notify_all()
        return encoded

    def _store_first(self, puts: Sequence[Callable[[], None]]) -> None:
        for put in puts:
            self._check_abandoned()
            self._retry(put)

    def _store(
        self, step: PendingStep, encoded: "Future[list[tuple[Artifact, SpooledBytes]]]", before: "Future[Any]"
    ) -> Commit:
        """Store the objects of `step`, unless what is stored `before` it failed, and return its record."""
        before.result()
        objects = encoded.result()
        if self._stopped.is_set():  # the step may be only partly encoded
            raise CancelledError
        try:
            in_parallel(self._put, objects)
        finally:
            with self._room:
                self._room.notify_all()  # taking from the spool made room
        return Commit(
            run_id=self._journal.run_id,
            step=step.step,
            kind=step.kind,
            artifacts=tuple(artifact for artifact, _ in objects),
            recipe_sha256=self._recipe_sha256,
        )

    def _put(self, encoded: tuple[Artifact, SpooledBytes]) -> None:
        self._check_abandoned()
        artifact, data = encoded[0], encoded[1].take()
        self._retry(
            lambda: self._journal.put_of_step(artifact.step, artifact.key, data, content_type=artifact.content_type)
        )

    def _commit(self, stored: "Future[Commit]") -> None:
        """Commit a step once its objects are stored, unless a step before it failed."""
        if self._stopped.is_set():
            return
        committed = False
        try:
            commit = stored.result()
            self._check_abandoned()
            self._retry(lambda: self._journal.commit(commit))
            self._check_abandoned()
            self._on_commit(commit)
            committed = True
        except CancelledError:
            pass  # it was dropped before it was encoded, or abandoned
        finally:
            if not committed:
                self._stop()

    def _check_abandoned(self) -> None:
        """End the step in progress if `abort` no longer waits for it: another worker may have the run."""
        if self._abandoned.is_set():
            raise CancelledError
