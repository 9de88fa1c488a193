"""What may end a run between two of its events: a cancel, a lost lease, a time limit, a worker that shuts down."""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from core.events import Event, StepStarted
from storage.redis.lease import Heartbeat
from storage.redis.runs import Runs
from worker.errors import RunCancelled, RunFailed, RunHandedBack
from worker.settings import Settings

LOOK_INTERVAL_S = 0.05
"""The least time between two looks at the cancel flag: shorter than a denoising step of a large model."""
DRAIN_VARIABLE = "AUTOSEQ_DRAIN_FLAG"


class DrainFlag:
    """A file by which a worker's parent process tells its child to hand its run back.

    Celery tells the parent alone that it is to shut down; the child learns the file's name from its environment.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    @staticmethod
    def create() -> "DrainFlag":
        """This process's own, lowered, which child processes find by `inherited`."""
        path = Path(tempfile.gettempdir()) / f"autoseq-drain-{os.getpid()}"
        path.unlink(missing_ok=True)
        os.environ[DRAIN_VARIABLE] = str(path)
        return DrainFlag(path)

    @staticmethod
    def inherited() -> "DrainFlag":
        """The parent's; one that is never raised where the parent has none."""
        name = os.environ.get(DRAIN_VARIABLE)
        return DrainFlag(Path(name) if name else None)

    def raise_(self) -> None:
        """From now on the child hands its run back."""
        if self._path:
            self._path.touch()

    def remove(self) -> None:
        if self._path:
            self._path.unlink(missing_ok=True)

    @property
    def is_raised(self) -> bool:
        return self._path is not None and self._path.exists()


class Guard:
    """Told of each event, raises what is to end the run there.

    Args:
        run_id: the run.
        runs: where a cancel is asked for.
        heartbeat: keeps the run ours.
        drain: raised when this worker shuts down.
        config: the time limits.
        clock: seconds.
    """

    def __init__(
        self,
        run_id: str,
        *,
        runs: Runs,
        heartbeat: Heartbeat,
        drain: DrainFlag,
        config: Settings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run_id = run_id
        self._runs = runs
        self._heartbeat = heartbeat
        self._drain = drain
        self._config = config
        self._clock = clock
        self._started = self._step_started = self._looked = clock()
        self._drain_seen: float | None = None

    def __call__(self, event: Event) -> None:
        """Raises RunCancelled, RunHandedBack, LeaseLost, or RunFailed for a time limit."""
        now = self._clock()
        begins = isinstance(event, StepStarted)
        if begins:
            self._step_started = now
        elif now - self._step_started > self._config.step_timeout_s:
            raise RunFailed(
                f"step {event.step.number} took longer than {self._config.step_timeout_s:g} s (step_timeout_s)"
            )
        self._check(now, between_steps=begins)

    def wait(self) -> None:
        """As for an event, while the run waits for the store: that is no fault of the step's."""
        self._check(self._clock(), between_steps=False)

    def _check(self, now: float, *, between_steps: bool) -> None:
        self._heartbeat.beat()
        if now - self._started > self._config.run_timeout_s:
            raise RunFailed(f"the run took longer than {self._config.run_timeout_s:g} s (run_timeout_s)")
        self._check_drain(now, between_steps=between_steps)
        if between_steps or now - self._looked >= LOOK_INTERVAL_S:
            self._looked = now
            if self._runs.cancel_requested(self._run_id):
                raise RunCancelled(f"run {self._run_id} was cancelled")

    def _check_drain(self, now: float, *, between_steps: bool) -> None:
        """Hand the run back before the next step; in the middle of one that takes too long to wait for."""
        if not self._drain.is_raised:
            return
        if self._drain_seen is None:
            self._drain_seen = now
        if between_steps or now - self._drain_seen > self._config.drain_timeout_s:
            raise RunHandedBack(f"run {self._run_id} is handed back: this worker shuts down")
