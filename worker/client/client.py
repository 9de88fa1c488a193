"""The client: submit, watch, cancel and read runs. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage import keys
from storage.errors import RunNotFoundError
from storage.events import Cancelled, Failed, RunEvent
from storage.redis.follow import START, follow
from worker.client.connections import Connections
from worker.client.lookup import find_run, not_found
from worker.client.submit import RecipeChecker, publish_request, submit_checked
from worker.client.sweeps import submit_sweep
from worker.connections import explain_s3_errors
from worker.errors import RunCancelled, RunFailed
from worker.history.branch import branched
from worker.jobs.request import RunRequest
from worker.jobs.result import result_of

if TYPE_CHECKING:
    import builtins

    from storage.redis.state import RunState
    from storage.redis.workers import WorkerInfo
    from storage.sweeps import Sweep
    from worker.jobs.request import Priority


class Client(Connections):
    """Submits runs to the workers and reads them. Safe to share between threads.

    Close it when you are done, or use it as a context manager. Wherever a method takes a run id, it also accepts the
    second id that Celery gave to a call with a known idempotency key.
    """

    def submit(
        self,
        recipe: Path | str | Mapping[str, Any],
        *,
        overrides: Mapping[str, Any] | None = None,
        variables: Mapping[str, Any] | None = None,
        priority: Priority = "normal",
        idempotency_key: str | None = None,
        dedupe: bool = False,
        run_id: str | None = None,
        group: str | None = None,
    ) -> str:
        """Check a recipe, upload its images, and queue a run of it. Returns the run's id, which is its task id too.

        Args:
            recipe: a file (a Path), the name of a shipped recipe (a str), or a recipe as JSON-like data.
            overrides: fields to change, as in {"num_images": 5, "image.num_timesteps": 20}.
            variables: values for `${name}` in the recipe's texts, as in {"animal": "fox"}.
            priority: queue priority; higher starts first.
            idempotency_key: return the existing run for this key, if there is one.
            dedupe: return the existing run with the same resolved recipe, images and model, if there is one.
            run_id: the id of the run; by default a random one. If a run has this id already, it is returned.
            group: the id of the Celery group of the run.

        Raises:
            RecipeError, InputError: the recipe or one of its images can't be used; nothing was queued.
            ServiceUnavailableError: Redis or S3 can't be used; nothing was queued.
            ValueError: both `dedupe` and `idempotency_key` are given.
        """
        if dedupe and idempotency_key:
            raise ValueError("dedupe and idempotency_key can't be used together")
        checked = RecipeChecker(self, recipe).check(overrides, variables)
        if run_id:
            keys.check_run_id(run_id)
        key = checked.dedupe_key() if dedupe else idempotency_key
        return submit_checked(self, checked, priority=priority, idempotency_key=key, run_id=run_id, group=group)

    def branch(
        self,
        run: str,
        *,
        at: int,
        variation: int | None = None,
        overrides: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> str:
        """Queue a new run that continues from a step of another run, which may be running, finished or failed.

        Args:
            run: the id of the other run.
            at: the number of its step. The context after that step becomes the new run's initial context.
            variation: which image of the step to continue from; by default the one that the run selected.
            overrides: fields to change; all others are those of the other run.
            **options: priority, idempotency_key, dedupe and run_id, as in `submit`.

        Returns:
            The id of the new run.

        Raises:
            RunNotFoundError, PlaceError: the run or step does not exist; nothing was queued.
            RecipeError, InputError, ServiceUnavailableError: as `submit`.
        """
        journal = self.journal(self.runs.resolve_alias(run))
        with explain_s3_errors(f"run {journal.run_id} can't be read"):
            recipe = branched(journal, at=at, variation=variation, overrides=overrides)
        return self.submit(recipe, overrides=overrides, **options)

    def sweep(
        self,
        recipe: Path | str | Mapping[str, Any],
        sweeps: Mapping[str, Sequence[Any]],
        *,
        overrides: Mapping[str, Any] | None = None,
        variables: Mapping[str, Any] | None = None,
        priority: Priority = "normal",
        sweep_id: str | None = None,
    ) -> Sweep:
        """Queue a run for each combination of values, as a Celery group. All are checked before any is queued.

        Args:
            recipe: as in `submit`.
            sweeps: the values of each field, as in {"cfg_text_scale": [2, 4, 6], "seed": range(1, 5)}.
            overrides: fields to change in every run.
            variables: values for `${name}` in the recipe's texts.
            priority: queue priority; higher starts first.
            sweep_id: the id of the sweep, from which the ids of its runs are made. Submitting the same sweep again
                under the same id queues only the runs that are missing.

        Returns:
            The sweep with its runs; `self.sweeps.get(sweep_id)` returns it again.

        Raises:
            RecipeError: the faults of all combinations, or too many combinations.
            InputError: another sweep has this id.
            ServiceUnavailableError: Redis or S3 can't be used; the message says how many runs were queued.
        """
        return submit_sweep(
            self, recipe, sweeps, overrides=overrides, variables=variables, priority=priority, sweep_id=sweep_id
        )

    def find_run(self, text: str) -> str:
        """The id of the run that `text` names: an id, the second id of a repeated call, or a unique prefix of an id.

        For ids that people type: a prefix is searched among all runs in this Redis.

        Raises:
            RunNotFoundError: no run or several runs match; the message lists them.
            InvalidNameError: `text` can't be a prefix of a run id.
            ServiceUnavailableError: S3 can't be used.
        """
        return find_run(self, text)

    def watch(self, run_id: str, *, after: str = START, timeout_s: float | None = None) -> Iterator[RunEvent]:
        """The run's events after the event id `after`, to its end. Raises what `storage.redis.follow.follow` raises."""
        try:
            yield from follow(self.redis, run_id, after=after, timeout_s=timeout_s)
        except RunNotFoundError:
            known_as = self.runs.resolve_alias(run_id)
            if known_as == run_id:
                raise
            yield from follow(self.redis, known_as, after=after, timeout_s=timeout_s)

    def result(self, run_id: str, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Wait for the run's end and return its result, as the Celery task does: the URLs of all its artifacts.

        Raises:
            RunFailed, RunCancelled: the run failed or was cancelled.
            RunNotFoundError: the run does not exist.
            TimeoutError: the run has not ended within `timeout_s`.
        """
        try:
            *_, last = self.watch(run_id, timeout_s=timeout_s)
        except RunNotFoundError:
            last = None  # it expired in Redis; the bucket keeps it
        journal = self.journal(self.runs.resolve_alias(run_id))
        if isinstance(last, Failed):
            raise RunFailed(last.error)
        if isinstance(last, Cancelled):
            raise RunCancelled(f"run {journal.run_id} was cancelled")
        manifest = journal.manifest()
        if manifest is None and last is None:
            raise not_found(journal.run_id)
        if manifest is None:
            raise RunNotFoundError(f"run {journal.run_id}: succeeded, but its manifest is not in {journal.address('')}")
        return result_of(manifest, journal)

    def state(self, run_id: str) -> RunState:
        """The state of a run. Raises RunNotFoundError."""
        run_id = self.runs.resolve_alias(run_id)
        state = self.runs.state(run_id)
        if state is None:
            raise not_found(run_id)
        return state

    def list(self, limit: int = 20) -> builtins.list[RunState]:
        """The states of the latest runs, newest first."""
        return self.runs.recent(limit)

    def workers(self) -> builtins.list[WorkerInfo]:
        """The live workers, and those that ended as unhealthy within the last ten minutes, by name.

        Workers of release 0.1.0 are not listed.
        """
        return self.live_workers.live()

    def count_open(self) -> int:
        """The number of runs that are queued or running. Scale workers by it: the broker counts only queued ones."""
        return self.runs.count_open()

    def cancel(self, run_id: str) -> bool:
        """Cancel a run: a queued one at once, a running one within a step or a token. False if it has already ended.

        Raises RunNotFoundError.
        """
        return self.runs.request_cancel(self.runs.resolve_alias(run_id))

    def resume(self, run_id: str) -> bool:
        """Queue a failed or cancelled run again; it resumes after its last completed step. False for any other state.

        Raises RunNotFoundError, ServiceUnavailableError.
        """
        run_id = self.runs.resolve_alias(run_id)
        if not self.runs.reopen(run_id):
            return False
        record = self.runs.record(run_id)
        publish_request(self, RunRequest.of(record), record.queue)
        return True
