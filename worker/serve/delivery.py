"""What one worker process has, and how it serves a run with it: Redis, the bucket, the model."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from core.model_folder import ModelFolderError
from recipes.faults import RecipeError
from storage.errors import CommitConflictError, StorageError, StoreUnavailableError
from storage.events import Cancelled, Failed, Queued, Succeeded
from storage.journal import Journal, Manifest
from storage.objects.probe import probe
from storage.redis.lease import Heartbeat, Lease, LeaseLost
from storage.redis.progress import Progress
from storage.redis.runs import Runs
from storage.retry import RetryPolicy
from worker.connections import check_redis, connect_redis, connect_store, explain_s3_errors, limits_of
from worker.errors import RunCancelled, RunFailed, RunHandedBack
from worker.jobs.inputs import InputError, Sources
from worker.jobs.job import Job, resolve, restore, store
from worker.jobs.request import RunRequest
from worker.jobs.result import result_of
from worker.serve.claim import DrainFlag, Guard
from worker.serve.engine import Engine
from worker.serve.report import CeleryReporter, Reporters, RunReporter
from worker.serve.run import run
from worker.settings import Settings

log = logging.getLogger(__name__)

# What the user got wrong, or what is wrong here: it would be the same tomorrow, so the run fails with these words.
FATAL = (RecipeError, InputError, ModelFolderError, StorageError)
START_PATIENCE_S = 20.0
"""A SeaweedFS that was just started takes this long until it can be written."""
RENEWALS_A_LEASE = 4


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """How a run's message reached this process."""

    tag: str | None
    """The broker's name for the message; None when none is under way."""
    celery_state: Callable[[int, int], None]
    """Tells Celery (step, steps)."""
    record: Callable[[], object] = lambda: None
    """Writes down what was asked for, when Redis does not know it."""


class WorkerRuntime:
    """Serves runs, one at a time.

    Args:
        config: where everything is, and how long things may take.
        clock: seconds, by which leases are renewed and steps are timed.
    """

    def __init__(self, config: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config
        self.clock = clock
        self.redis = connect_redis(config, outage_timeout_s=config.outage_timeout_s)
        self.runs = Runs(self.redis, ttl_s=config.keep_progress_s)
        # One try of S3 takes well below a lease: between two of them the lease is renewed.
        self.objects = connect_store(config, timeout_s=max(5.0, config.lease_s / 2), attempts=1)
        self.engine = Engine(config)
        self.drain = DrainFlag.inherited()

    def close(self) -> None:
        """Close the connections."""
        self.redis.close()
        self.objects.close()

    def journal(self, run_id: str) -> Journal:
        """The run's folder in the bucket."""
        return Journal(self.objects, self.config.s3_prefix, run_id)

    def open(self) -> None:
        """Check, before any run is taken, that everything a run needs is there, and announce the model.

        Raises:
            ServiceUnavailableError: Redis or S3 can't be used.
            ModelFolderError: the model can't be.
            InvalidNameError: the prefix can't be part of a key.
        """
        self.journal("any")
        with connect_redis(self.config) as impatient:
            check_redis(impatient)
        spec = self.engine.spec()
        retry = RetryPolicy(START_PATIENCE_S, on_wait=lambda error, _pause_s: log.warning("waiting for S3: %s", error))
        with explain_s3_errors("S3 can't be used"):
            retry(self.objects.ensure_bucket)
            retry(lambda: probe(self.objects))
        self.runs.announce(spec.name, spec.to_json())

    def serve(self, request: RunRequest, delivery: Delivery) -> dict[str, Any]:
        """Bring one run to its end, from wherever it stands, and return its result.

        Raises:
            RunFailed, RunCancelled: how else it ended; Redis says the same.
            RunHandedBack: this worker shuts down; what was made is committed, and the run waits again.
            LeaseLost: another worker has the run: nothing is to be said of it here.
        """
        self._raise_if_ended(request.run_id)
        lease = Lease(self.redis, request.run_id, ttl_s=self.config.lease_s)
        if not lease.acquire():
            raise LeaseLost(f"run {request.run_id}: another worker has it")
        try:
            return self.run_to_completion(request, delivery, lease)
        finally:
            lease.release()

    def _raise_if_ended(self, run_id: str) -> None:
        """A message may come again after the run's end, or after it was cancelled while it waited."""
        state = self.runs.state(run_id)
        if state and state.state == "cancelled":
            raise RunCancelled(f"run {run_id} was cancelled")
        if state and state.state == "failed":
            raise RunFailed(state.error or "the run failed before")

    def run_to_completion(self, request: RunRequest, delivery: Delivery, lease: Lease) -> dict[str, Any]:
        """As the one worker that may: make what is missing, and say how it ended."""
        journal = self.journal(request.run_id)
        progress = Progress(self.redis, request.run_id, ttl_s=self.config.keep_progress_s, owner=lease.token)
        reporter = RunReporter(progress, journal, preview_interval_s=self.config.preview_interval_s)

        def remind() -> None:
            log.warning("run %s: Redis lost its data; it is told of the run again", request.run_id)
            delivery.record()
            reporter.begin_again()

        heartbeat = Heartbeat(
            lease,
            self.redis,
            delivery_tag=delivery.tag,
            interval_s=self.config.lease_s / RENEWALS_A_LEASE,
            on_forgotten=remind,
            clock=self.clock,
        )
        retry = RetryPolicy(self.config.outage_timeout_s, on_wait=lambda _error, _pause_s: heartbeat.beat())
        try:
            manifest = retry(journal.manifest) or self._make(request, delivery, reporter, heartbeat)
        except RunCancelled:
            reporter.ended(Cancelled())
            raise
        except RunHandedBack:
            self.runs.refund_attempt(request.run_id)
            reporter.ended(Queued())
            raise
        except CommitConflictError as error:
            raise LeaseLost(str(error)) from error
        except (*FATAL, RunFailed) as error:
            words = self._words(error)
            reporter.ended(Failed(error=words))
            raise RunFailed(words) from error
        result = result_of(manifest, journal)
        reporter.ended(Succeeded(manifest=result["manifest"]))
        return result

    def _words(self, error: Exception) -> str:
        if isinstance(error, StoreUnavailableError):
            return (
                f"S3 was away for more than {self.config.outage_timeout_s:g} s (outage_timeout_s): {error}; "
                "`autoseq resume` goes on after the last committed step"
            )
        return str(error)

    def _make(self, request: RunRequest, delivery: Delivery, reporter: RunReporter, heartbeat: Heartbeat) -> Manifest:
        journal = self.journal(request.run_id)
        reporters = Reporters([reporter, CeleryReporter(request.run_id, delivery.celery_state)])

        def loading(done_bytes: int, total_bytes: int) -> None:
            heartbeat.beat()
            reporter.loading(done_bytes, total_bytes)

        retry = RetryPolicy(self.config.outage_timeout_s, on_wait=lambda _error, _pause_s: heartbeat.beat())
        self._count_attempt(request.run_id, retry, journal)
        job = retry(lambda: self._job(request, journal))  # before the model: a wrong recipe fails at once
        model = self.engine.model(loading)

        def attempt() -> Manifest:
            guard = Guard(
                request.run_id,
                runs=self.runs,
                heartbeat=heartbeat,
                drain=self.drain,
                config=self.config,
                clock=self.clock,
            )
            return run(
                job,
                model=model,
                journal=journal,
                reporter=reporters,
                guard=guard,
                uploads=limits_of(self.config),
                waiting=guard.wait,
            )

        return self.engine.with_memory_freed_once(attempt, lambda: job.sizes_at(reporter.step))

    def _count_attempt(self, run_id: str, retry: RetryPolicy, journal: Journal) -> None:
        """Raises RunFailed for a run that was started again and again without getting a step further."""
        state = self.runs.state(run_id)
        committed = len(retry(journal.commits)) if state and state.started_at else 0
        if self.runs.count_attempt(run_id, committed) > self.config.max_attempts:
            raise RunFailed(
                f"parked: the worker died {self.config.max_attempts} times in a row after step {committed} of this run "
                "without committing another; `autoseq resume` tries it again"
            )

    def _job(self, request: RunRequest, journal: Journal) -> Job:
        """What an earlier delivery stored, else what is asked for, stored."""
        job = restore(request.run_id, journal)
        if job is None:
            sources = Sources(
                folder=self.config.recipes if isinstance(request.recipe, str) else None,
                store=self.objects,
                buckets=[self.config.s3_bucket, *self.config.s3_input_buckets],
            )
            job = resolve(request, self.engine.spec(), recipes=self.config.recipes, sources=sources)
            store(job, journal)
        return job
