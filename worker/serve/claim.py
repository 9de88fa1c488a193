"""The claim on a run: renewed while the work makes progress; its checkpoints raise the reasons to stop."""

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from types import TracebackType
from typing import Protocol, Self, TypeVar

from core.events import Event, StepStarted
from storage.objects import PARALLEL_READS
from storage.redis.lease import Lease, LeaseLost
from storage.redis.runs import Runs
from storage.retry import RetryPolicy
from worker.errors import ClaimLost, RunCancelled, RunFailed, RunHandedBack
from worker.serve.drain import DrainFlag
from worker.settings import Settings

CANCEL_CHECK_INTERVAL_S = 0.25
"""Minimum time between two reads of the cancel flag within a step: about a denoising step of a large model."""
RENEWALS_PER_LEASE = 4
POLL_S = 0.25
"""Time between two checkpoints of a run that waits for the store."""
T = TypeVar("T")
A = TypeVar("A")


class Checkpoints(Protocol):
    """The part of a claim that a run uses."""

    def checkpoint(self, event: Event | None = None) -> None:
        """Called for each event and while the run waits; raises an exception to end the work."""
        ...

    def retry(self, call: Callable[[], T]) -> T:
        """`call()`, repeated while the store is unavailable; calls `checkpoint` while it waits."""
        ...

    def conclude(self, call: Callable[[], T]) -> T:
        """The same for the write that completes the run: calls `checkpoint` only between two attempts."""
        ...

    def map(self, call: Callable[[A], T], items: Iterable[A]) -> Iterator[T]:
        """`call` of each of `items`, in order; each as by `retry`, many at the same time."""
        ...

    @property
    def time_to_stop_s(self) -> float:
        """How long a run that is stopped may still take to store its completed steps."""
        ...


class Unclaimed:
    """Checkpoints of a run that no other worker can take, such as one without services."""

    def checkpoint(self, event: Event | None = None) -> None:
        """Do nothing."""

    def retry(self, call: Callable[[], T]) -> T:
        """Call once."""
        return call()

    def conclude(self, call: Callable[[], T]) -> T:
        return self.retry(call)

    def map(self, call: Callable[[A], T], items: Iterable[A]) -> Iterator[T]:
        """Call for one item after the other."""
        return (self.retry(partial(call, item)) for item in items)

    @property
    def time_to_stop_s(self) -> float:
        return math.inf


class Claim:
    """The right to write one run: its lease and the broker's claim on its message, renewed at each checkpoint.

    Work that hangs reaches no checkpoint, so its lease expires and another worker takes the run. Use as a context
    manager: entering takes the lease, leaving releases it.

    Args:
        lease: of the run, not yet taken.
        runs: where a cancel is requested.
        drain: raised when this worker shuts down.
        config: the time limits.
        on_forgotten: called when Redis has lost the run with its data.
        clock: seconds.
    """

    def __init__(
        self,
        lease: Lease,
        *,
        runs: Runs,
        drain: DrainFlag,
        config: Settings,
        on_forgotten: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lease = lease
        self._runs = runs
        self._drain = drain
        self._config = config
        self._on_forgotten = on_forgotten
        self._clock = clock
        self._taken = self._step_started = self._cancel_checked = self._renewed = clock()
        self._drain_seen: float | None = None
        self._has_begun = False
        self._store_calls = ThreadPoolExecutor(PARALLEL_READS, thread_name_prefix="store")
        self._left = threading.Event()
        self._policy = RetryPolicy(config.outage_timeout_s, stop=self._left)

    def __enter__(self) -> Self:
        """Raises ClaimLost when another worker holds the run."""
        if not self.lease.acquire():
            raise ClaimLost(f"run {self.lease.run_id}: another worker has it")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        self._store_calls.shutdown(wait=False, cancel_futures=True)
        self.lease.release()

    def checkpoint(self, event: Event | None = None) -> None:
        """Renew the claim when it is due, and raise the reason to stop, if there is one.

        Args:
            event: what just happened in the sequence; None while the run waits for the store.

        Raises:
            ClaimLost: another worker has the run.
            RunFailed: a time limit is exceeded.
            RunCancelled: a client cancelled the run.
            RunHandedBack: this worker shuts down.
        """
        now = self._clock()
        self._has_begun = self._has_begun or event is not None
        if isinstance(event, StepStarted):
            self._step_started = now
        elif event is not None and now - self._step_started > self._config.step_timeout_s:
            limit = f"{self._config.step_timeout_s:g} s (step_timeout_s)"
            raise RunFailed(f"step {event.step.number} took longer than {limit}")
        self._renew(now)
        if now - self._taken > self._config.run_timeout_s:
            raise RunFailed(f"the run took longer than {self._config.run_timeout_s:g} s (run_timeout_s)")
        between_steps = isinstance(event, StepStarted)
        self._check_drain(now, between_steps=between_steps)
        if between_steps or now - self._cancel_checked >= CANCEL_CHECK_INTERVAL_S:
            self._cancel_checked = now
            if self._runs.cancel_requested(self.lease.run_id):
                raise RunCancelled(f"run {self.lease.run_id} was cancelled")

    def retry(self, call: Callable[[], T]) -> T:
        """`call()`, repeated while the store is unavailable, up to `outage_timeout_s`.

        The call runs in a thread, so that a store that hangs delays neither the renewal nor a cancel or a drain.
        Raises what `call` and `checkpoint` raise.
        """
        return next(self.map(lambda _: call(), (None,)))

    def map(self, call: Callable[[A], T], items: Iterable[A]) -> Iterator[T]:
        """`call` of each of `items`, in order; each as by `retry`, up to PARALLEL_READS at the same time."""
        futures = [self._store_calls.submit(self._policy, partial(call, item)) for item in items]
        for future in futures:
            while wait([future], POLL_S).not_done:
                self.checkpoint()
            yield future.result()
            self.checkpoint()  # results that come one after the other without a wait take as long in all

    @property
    def time_to_stop_s(self) -> float:
        """What is left of the drain timeout; all of it if this worker does not shut down."""
        drained_s = 0.0 if self._drain_seen is None else self._clock() - self._drain_seen
        return max(0.0, self._config.drain_timeout_s - drained_s)

    def conclude(self, call: Callable[[], T]) -> T:
        """`call()`, repeated while the store is unavailable, up to `outage_timeout_s`; never left while it is made.

        A run whose cancel or time limit is seen during this write would otherwise end as cancelled or failed, and be
        complete in the bucket.
        """
        policy = RetryPolicy(
            self._config.outage_timeout_s, stop=self._left, on_wait=lambda _error, _pause_s: self.checkpoint()
        )
        return policy(call)

    def _renew(self, now: float) -> None:
        if now - self._renewed < self._config.lease_s / RENEWALS_PER_LEASE:
            return
        self._renewed = now
        try:
            if not self.lease.renew():
                self._on_forgotten()
                self.lease.renew()
        except LeaseLost as error:
            raise ClaimLost(str(error)) from error

    def _check_drain(self, now: float, *, between_steps: bool) -> None:
        """Hand the run back before the next step, at once before the first, or when the drain timeout is over."""
        if not self._drain.is_raised:
            return
        if self._drain_seen is None:
            self._drain_seen = now
        if between_steps or not self._has_begun or now - self._drain_seen > self._config.drain_timeout_s:
            raise RunHandedBack(f"run {self.lease.run_id} is handed back: this worker shuts down")
