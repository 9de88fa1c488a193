"""One delivered message: claims its run, completes it and reports its final state."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from redis.exceptions import RedisError

from recipes.faults import RecipeError
from storage import keys
from storage.errors import CommitConflictError, NewerRecordError, StorageError, StoreUnavailableError
from storage.events import Cancelled, Failed, Queued, Succeeded
from storage.journal import Manifest
from storage.redis.lease import Lease
from storage.redis.progress import Progress
from worker.connections import limits_of
from worker.errors import ClaimLost, RunCancelled, RunFailed, RunHandedBack, RunNotServable, WorkerFaulty
from worker.jobs.input_rule import InputRule
from worker.jobs.inputs import InputError, Sources
from worker.jobs.job import Job, resolve, restore
from worker.jobs.request import RunRequest
from worker.jobs.result import result_of
from worker.serve.claim import Claim
from worker.serve.faults import fault_of, loading_model
from worker.serve.report import CeleryReporter, Reporter, Reporters
from worker.serve.run import run
from worker.serve.run_reporter import RunReporter
from worker.serve.runtime import WorkerRuntime

log = logging.getLogger(__name__)

MAX_FAULTS = 20
"""How many times in a row a run is given back for a fault of a worker, or taken from a slow one, at no charge: many
workers may be faulty, but the run may be what breaks them or takes too long."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """The message of a run, and what only the task that received it can do."""

    tag: str | None = None
    """The broker's delivery tag; None without a broker."""
    update_state: Callable[[int, int], None] = lambda _step, _steps: None
    """Stores (step, steps) as Celery's state of the task."""
    write_record: Callable[[], object] = lambda: None
    """Writes the run's record if Redis does not have it."""


class Delivery:
    """Completes the run of one message with the services of `runtime`."""

    def __init__(self, request: RunRequest, message: Message, runtime: WorkerRuntime) -> None:
        self.request = request
        self.message = message
        self.runtime = runtime
        config, run_id = runtime.config, request.run_id
        self.journal = runtime.journal(run_id)
        lease = Lease(runtime.redis, run_id, ttl_s=config.lease_s, delivery_tag=message.tag)
        self.progress = Progress(runtime.redis, run_id, ttl_s=config.keep_progress_s, owner=lease.token)
        self.run_reporter = RunReporter(
            self.progress,
            self.journal,
            preview_interval_s=config.preview_interval_s,
            on_forgotten=self._write_record_again,
        )
        self._counted_at: int | None = None
        """The committed steps with which this attempt was counted; None while it is not counted."""
        self.reporters: Reporter = Reporters([self.run_reporter, CeleryReporter(run_id, message.update_state)])
        self.claim = Claim(
            lease,
            runs=runtime.runs,
            drain=runtime.drain,
            config=config,
            on_forgotten=self.run_reporter.begin_again,
            clock=runtime.clock,
        )

    def run_to_completion(self) -> dict[str, Any]:
        """Compute the remaining steps of the run, report its final state, and return its result.

        Raises:
            RunFailed, RunCancelled: the run failed or was cancelled; Redis has the same state.
            RunHandedBack: the completed steps are committed, and the run is queued again for another worker.
            MemoryError: the same, with the attempt counted.
            ClaimLost: another worker has the run and reports it.
        """
        with self.claim:
            self._raise_if_ended()
            with _FinalState(self) as final:
                final.manifest = self.claim.retry(self.journal.manifest) or self._run()
        return result_of(final.manifest, self.journal)

    def _raise_if_ended(self) -> None:
        """Raise the final state of a run that ended before: its message may be delivered again."""
        state = self.runtime.runs.state(self.request.run_id)
        if state and state.state == "cancelled":
            raise RunCancelled(f"run {self.request.run_id} was cancelled")
        if state and state.state == "failed":
            raise RunFailed(state.error or "the run failed before")
        if state and state.submitted_at is not None:
            self.progress.expect_record()

    def _run(self) -> Manifest:
        try:
            return self._attempt(self._count_attempt())
        except (ClaimLost, CommitConflictError) as error:  # this worker was too slow, and another one has the run
            if self.runtime.runs.count_fault(self.request.run_id) <= MAX_FAULTS:
                self.refund_attempt()
            raise ClaimLost(str(error)) from error
        except RedisError:
            if self._counted_at is not None:
                self.runtime.runs.owe_refund(self.request.run_id, self._counted_at)
            raise

    def _attempt(self, committed: int | None) -> Manifest:
        stored = self.claim.retry(self._stored_job)
        job = stored or self.claim.retry(self._new_job)  # before the model is loaded: a wrong recipe fails at once
        with loading_model():
            model = self.runtime.engine.model(self._loading)
        known = [committed]

        def attempt() -> Manifest:
            return run(
                job,
                model=model,
                journal=self.journal,
                reporter=self.reporters,
                claim=self.claim,
                uploads=limits_of(self.runtime.config),
                stored=stored is not None,
                committed=known.pop() if known else None,
            )

        return self.runtime.engine.with_smaller_batches(attempt, job, lambda: self.run_reporter.step)

    def _count_attempt(self) -> int | None:
        """Count this attempt. Returns the number of committed steps; None if the run was not started before.

        Raises RunFailed for a run whose workers died too often without completing another step.
        """
        runs, run_id = self.runtime.runs, self.request.run_id
        state = runs.state(run_id)
        committed = self.claim.retry(self.journal.count_commits) if state and state.started_at else None
        limit, counted_at = self.runtime.config.max_attempts, committed or 0
        if runs.count_attempt(run_id, counted_at) > limit:
            raise RunFailed(
                f"giving up after {limit} attempts without progress past step {counted_at}; "
                "`autoseq resume` tries it again"
            )
        self._counted_at = counted_at
        return committed

    def refund_attempt(self) -> None:
        """Uncount this attempt, if it was counted: it ended, but not because of the run."""
        if self._counted_at is not None:
            self.runtime.runs.refund_attempt(self.request.run_id, self._counted_at)
            self._counted_at = None

    def _stored_job(self) -> Job | None:
        """The job that an earlier delivery stored."""
        job = restore(self.request.run_id, self.journal)
        ours = self.runtime.engine.identified_spec().sha256
        if job and job.model_sha256 not in (None, ours):
            raise RunNotServable(
                f"run {job.run_id} was started with model {job.recipe.model!r}, fingerprint {job.model_sha256}; "
                f"this worker's model has fingerprint {ours}"
            )
        return job

    def _new_job(self) -> Job:
        """The job of the request."""
        config, by_name = self.runtime.config, isinstance(self.request.recipe, str)
        sources = Sources(
            folder=config.recipes if by_name else None,
            store=self.runtime.objects,
            rule=InputRule.of(config, self.request.run_id),
        )
        spec = self.runtime.engine.identified_spec()
        return resolve(self.request, spec, recipes=config.recipes, sources=sources)

    def _loading(self, done_bytes: int, total_bytes: int) -> None:
        self.claim.checkpoint()
        self.reporters.loading(done_bytes, total_bytes)

    def _write_record_again(self) -> None:
        log.warning("run %s: Redis lost its data; the run is reported again", self.request.run_id)
        self.message.write_record()


class _FinalState:
    """Reports how the work on a claimed run ended, whatever ended it."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self.manifest: Manifest

    def __enter__(self) -> "_FinalState":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        report = self._delivery.reporters.ended
        match error:
            case None:
                report(Succeeded(manifest=self._delivery.journal.address(keys.MANIFEST)))
            case RunCancelled():
                report(Cancelled())
            case RunHandedBack():
                self._hand_back(error)
            case Exception() if handed_back := _reason_for_another_worker(error):
                self._hand_back(handed_back)
                raise handed_back from error
            case ClaimLost() | RedisError():
                pass  # another worker reports the run, or nothing can be reported now
            case RunFailed():
                report(Failed(error=str(error)))
            case RecipeError() | InputError() | StorageError():
                failed = RunFailed(self._failure_message(error))
                report(Failed(error=str(failed)))
                raise failed from error
            case MemoryError():  # the attempt counts: the run itself may need too much
                report(Queued(reason=f"out of memory in step {self._delivery.run_reporter.step}"))
            case Exception():
                report(Failed(error=f"internal error: {type(error).__name__}: {error}"))

    def _hand_back(self, reason: RunHandedBack) -> None:
        """Queue the run again. Raises RunFailed after too many faults of workers."""
        delivery = self._delivery
        if isinstance(reason, WorkerFaulty) and delivery.runtime.runs.count_fault(delivery.request.run_id) > MAX_FAULTS:
            failed = RunFailed(
                f"giving up after {MAX_FAULTS} faults of workers in a row without progress, the last: {reason}; "
                "`autoseq resume` tries it again"
            )
            delivery.reporters.ended(Failed(error=str(failed)))
            raise failed from reason
        delivery.refund_attempt()
        delivery.reporters.ended(Queued(reason=str(reason)))

    def _failure_message(self, error: Exception) -> str:
        """The message of an error that another attempt would meet again, and of a long outage."""
        if not isinstance(error, StoreUnavailableError):
            return str(error)
        timeout_s = self._delivery.runtime.config.outage_timeout_s
        return (
            f"S3 was unavailable for more than {timeout_s:g} s (outage_timeout_s): {error}; "
            "`autoseq resume` continues after the last committed step"
        )


def _reason_for_another_worker(error: Exception) -> RunHandedBack | None:
    """What makes this worker unable to complete the run that another one may complete."""
    return RunNotServable(str(error)) if isinstance(error, NewerRecordError) else fault_of(error)
