"""Uploads in the background: while one step is generated, the steps before it are encoded, stored and committed."""

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from storage.errors import StoreUnavailable
from storage.journal import Artifact, Commit, Journal, Role, StepKind
from storage.patience import Patience


@dataclass(frozen=True, kw_only=True)
class PendingObject:
    """An object of a step, encoded when its turn comes."""

    kind: Literal["text", "image"]
    role: Role
    key: str
    """Relative to the run's folder, such as steps/004-image.png."""
    content_type: str
    encode: Callable[[], bytes]
    """Called once, in the uploader's thread; equal for equal steps, to the byte."""
    size_estimate: int
    """Bytes held in memory until it is stored."""
    index: int | None = None
    given: bool = False
    seed: int | None = None
    width: int | None = None
    height: int | None = None

    def artifact(self, step: int, data: bytes) -> Artifact:
        """What `data`, this object's encoding, is to be known as."""
        return Artifact(
            kind=self.kind,
            role=self.role,
            step=step,
            key=self.key,
            content_type=self.content_type,
            size=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            index=self.index,
            given=self.given,
            seed=self.seed,
            width=self.width,
            height=self.height,
        )


@dataclass(frozen=True, kw_only=True)
class PendingStep:
    """A finished step that is yet to be stored."""

    step: int
    kind: StepKind
    objects: tuple[PendingObject, ...] = ()

    @property
    def size_estimate(self) -> int:
        return sum(pending.size_estimate for pending in self.objects)


class Uploader:
    """Commits steps strictly in their order, in one thread of its own.

    For each step its objects are put, then its commit record, then `on_commit` is called, in that thread. While the
    store is away everything waits, up to `outage_timeout_s`; any other error ends it, and is raised by the next
    `submit` or `close`. What is repeated is idempotent: objects have their final bytes, records are created once.

    Args:
        journal: the run's folder.
        recipe_sha256: goes into every commit record.
        on_commit: told of each step that counts.
        max_pending_bytes: how much may wait in memory before `submit` blocks; a single larger step passes alone.
        outage_timeout_s: how long the store may be away.
        on_wait: told, in the thread, of each failed try and the pause after it, in seconds.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        recipe_sha256: str,
        on_commit: Callable[[Commit], None],
        max_pending_bytes: int = 512 * 2**20,
        outage_timeout_s: float = 600.0,
        on_wait: Callable[[StoreUnavailable, float], None] | None = None,
    ) -> None:
        self._journal = journal
        self._recipe_sha256 = recipe_sha256
        self._on_commit = on_commit
        self._max_pending_bytes = max_pending_bytes
        self._stopped = threading.Event()
        self._patience = Patience(outage_timeout_s, stop=self._stopped, on_wait=on_wait)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="uploader")
        self._room = threading.Condition()
        self._pending_bytes = 0
        self._pending: list[Future[None]] = []

    @property
    def pending_bytes(self) -> int:
        """What waits to be stored."""
        return self._pending_bytes

    def submit(self, step: PendingStep) -> None:
        """Have `step` stored after those before it. Blocks while too much waits; raises what ended the uploader."""
        size = step.size_estimate
        with self._room:
            self._room.wait_for(lambda: self._stopped.is_set() or self._has_room_for(size))
            self._pending_bytes += size
        self._raise_what_failed()
        self._pending.append(self._thread.submit(self._run, step))

    def close(self) -> None:
        """Wait until everything is committed. Raises what ended the uploader."""
        self._thread.shutdown(wait=True)
        self._raise_what_failed()

    def abort(self) -> None:
        """Drop what waits, and return once the thread has ended; a step under way is committed or not."""
        self._stopped.set()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _has_room_for(self, size: int) -> bool:
        return self._pending_bytes == 0 or self._pending_bytes + size <= self._max_pending_bytes

    def _raise_what_failed(self) -> None:
        waiting = []
        for upload in self._pending:
            if not upload.done():
                waiting.append(upload)
            elif not upload.cancelled():
                upload.result()
        self._pending = waiting

    def _run(self, step: PendingStep) -> None:
        """Commit `step`, unless one before it failed: then nothing after it may count."""
        if self._stopped.is_set():
            return
        committed = False
        try:
            self._commit(step)
            committed = True
        finally:
            with self._room:
                self._pending_bytes -= step.size_estimate
                if not committed:
                    self._stopped.set()
                self._room.notify_all()

    def _commit(self, step: PendingStep) -> None:
        artifacts = tuple(self._store(pending, step.step) for pending in step.objects)
        commit = Commit(
            run_id=self._journal.run_id,
            step=step.step,
            kind=step.kind,
            artifacts=artifacts,
            recipe_sha256=self._recipe_sha256,
        )
        self._patience(lambda: self._journal.commit(commit))
        self._on_commit(commit)

    def _store(self, pending: PendingObject, step: int) -> Artifact:
        data = pending.encode()
        self._patience(lambda: self._journal.put_of_step(step, pending.key, data, content_type=pending.content_type))
        return pending.artifact(step, data)
