"""The protocol of reporters, which receive the progress of a run, and the reporter of Celery's task state."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeAlias

from redis.exceptions import RedisError

from core.events import Event, StepStarted
from core.plan import Step
from storage import events
from storage.journal import Commit
from worker.jobs.job import Job

log = logging.getLogger(__name__)

Ended: TypeAlias = events.Succeeded | events.Failed | events.Cancelled | events.Queued


class Reporter:
    """Receives the progress of a run. A subclass overrides the methods that it needs; an error in one ends the run."""

    def loading(self, done_bytes: int, total_bytes: int) -> None:
        """The model's weights are being loaded, before the run starts."""

    def begin(self, job: Job, steps: Sequence[Step], committed: int) -> None:
        """The run starts, or continues after its first `committed` steps."""

    def event(self, event: Event) -> None:
        """The sequence produced an event."""

    def committed(self, commit: Commit) -> None:
        """A step and its objects are stored, now (called from the uploader's thread) or before this start."""

    def ended(self, event: Ended) -> None:
        """The work on the run ended here: in a final state, or the run is queued again."""


class Reporters(Reporter):
    """Forwards each call to several reporters, in order."""

    def __init__(self, reporters: Sequence[Reporter]) -> None:
        self._reporters = reporters

    def loading(self, done_bytes: int, total_bytes: int) -> None:
        for reporter in self._reporters:
            reporter.loading(done_bytes, total_bytes)

    def begin(self, job: Job, steps: Sequence[Step], committed: int) -> None:
        for reporter in self._reporters:
            reporter.begin(job, steps, committed)

    def event(self, event: Event) -> None:
        for reporter in self._reporters:
            reporter.event(event)

    def committed(self, commit: Commit) -> None:
        for reporter in self._reporters:
            reporter.committed(commit)

    def ended(self, event: Ended) -> None:
        for reporter in self._reporters:
            reporter.ended(event)


class CeleryReporter(Reporter):
    """Updates Celery's state of the task: PROGRESS, with the current step. Celery sets the final state itself.

    Args:
        run_id: the run.
        update_state: stores (step, steps). Errors of Redis are only logged, because the run's events have the same
            progress and wait for Redis.
    """

    def __init__(self, run_id: str, update_state: Callable[[int, int], None]) -> None:
        self._run_id = run_id
        self._update_state = update_state
        self._steps = 0

    def begin(self, job: Job, steps: Sequence[Step], committed: int) -> None:
        del job, committed
        self._steps = len(steps)

    def event(self, event: Event) -> None:
        if not isinstance(event, StepStarted):
            return
        try:
            self._update_state(event.step.number, self._steps)
        except RedisError as error:
            log.warning("run %s: Celery's state was not updated at step %d: %s", self._run_id, event.step.number, error)
