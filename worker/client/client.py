"""Submit, watch, result, cancel: for web backends and scripts. Loads no torch."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from celery import Celery
from kombu.connection import ConnectionPool
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError

from recipes.canonical import fingerprint
from recipes.faults import Fault, RecipeError
from recipes.load import find, given, read
from recipes.model_spec import ModelSpec, ModelSpecError
from recipes.recipe import Recipe
from recipes.variables import escaped
from storage import keys
from storage.errors import CommitConflictError, RunNotFoundError, StoreRefusedError, StoreUnavailableError
from storage.events import Cancelled, Failed, RunEvent
from storage.journal import Journal
from storage.objects import ObjectStore
from storage.redis.follow import START, follow
from storage.redis.runs import Runs
from storage.redis.state import RunState
from storage.sweeps import Sweep, Sweeps
from worker.app import choose_model, make_app, publish, write_record
from worker.client.sweeps import submit_sweep
from worker.connections import ServiceUnavailableError, check_redis, connect_redis, connect_store
from worker.errors import RunCancelled, RunFailed
from worker.history.branch import branched
from worker.jobs.inputs import InputError, InputImage, Sources
from worker.jobs.request import Priority, RunRequest
from worker.jobs.result import result_of
from worker.settings import Settings, queue_of

BROKER_CONNECTIONS = 4
"""How many threads of a client may put runs into their queues at once; more wait for their turn."""


class Client:
    """Talks to the workers through Redis and the bucket of `config`. Safe to share between threads.

    Close it at its end, or use it as a context manager.
    """

    def __init__(self, config: Settings) -> None:
        self.config = config
        self._opened = ExitStack()

    def close(self) -> None:
        """Close every connection that was opened."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @cached_property
    def redis(self) -> Redis:
        redis = connect_redis(self.config)
        self._opened.callback(redis.close)
        return redis

    @cached_property
    def runs(self) -> Runs:
        return Runs(self.redis, ttl_s=self.config.keep_progress_s)

    @cached_property
    def objects(self) -> ObjectStore:
        store = connect_store(self.config)
        self._opened.callback(store.close)
        return store

    @cached_property
    def sweeps(self) -> Sweeps:
        return Sweeps(self.objects, self.config.s3_prefix)

    @cached_property
    def app(self) -> Celery:
        return make_app(self.config, reads_results=False)

    @cached_property
    def broker(self) -> ConnectionPool:
        """Connections of our own: Celery's pools are shared by the whole process, and no one could close them."""
        pool = self.app.connection_for_write().Pool(BROKER_CONNECTIONS)
        self._opened.callback(pool.force_close_all)
        return pool

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
        """Check a recipe, upload its images, and queue it. Returns the run's id, which is also the Celery task's.

        Args:
            recipe: a file (a Path), the name of a shipped recipe (a str), or a recipe as JSON-like data.
            overrides: fields to change, as in {"num_images": 5, "image.num_timesteps": 20}.
            variables: values for `${name}` in the recipe's texts, as in {"animal": "fox"}; put in here.
            priority: which runs wait for which.
            idempotency_key: submitting again with the same key gives the first run, and queues nothing.
            dedupe: the key is the hash of the resolved recipe, its images and the model: the same work is done once.
            run_id: a name for the run; a new random one by default. A run id that is there already is that run.
            group: the id of a Celery group that the run is to belong to.

        Raises:
            RecipeError, InputError: what is wrong with the recipe or its images; nothing was queued.
            ServiceUnavailableError: Redis or S3 can't be used; nothing was queued.
            ValueError: both `dedupe` and a key.
        """
        if dedupe and idempotency_key:
            raise ValueError("dedupe makes its own idempotency key: give one of the two")
        source = find(recipe, self.config.recipes) if isinstance(recipe, str) else recipe
        checked = self.check(source, overrides, variables)
        run_id = keys.check_run_id(run_id or str(uuid.uuid4()))
        if dedupe:
            idempotency_key = self._key_of(checked, source)
        if idempotency_key:
            run_id = self.runs.claim_key(idempotency_key, run_id)
        if self.runs.state(run_id) is not None:
            return run_id
        request = RunRequest(
            run_id=run_id,
            recipe=self._with_uploads(given(source, overrides, variables), checked, source, run_id),
            overrides={},
            priority=priority,
            idempotency_key=idempotency_key,
            group=group,
        )
        self._publish(request, checked.model or self.config.served_model)
        return run_id

    def _key_of(self, recipe: Recipe, source: Path | Mapping[str, Any]) -> str:
        """The idempotency key that the same work always has."""
        return f"recipe-{fingerprint(recipe, [image.sha256 for image in self.images_of(recipe, source)])}"

    def branch(
        self,
        run: str,
        *,
        at: int,
        variation: int | None = None,
        overrides: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> str:
        """Queue a run that goes on behind a step of another, which may be under way, have ended or have failed.

        Args:
            run: the other run.
            at: the number of its step; what was before the model behind it is the new run's initial context.
            variation: which of the images that the step drew goes on; by default the one that did.
            overrides: fields to change; the others are the other run's.
            **options: as `submit` has them: priority, idempotency_key, dedupe, run_id.

        Returns:
            The new run's id.

        Raises:
            RunNotFoundError, PlaceError: there is no such run or place; nothing was queued.
            RecipeError, InputError, ServiceUnavailableError: as `submit`.
        """
        try:
            recipe = branched(self.journal(run), at=at, variation=variation, overrides=overrides)
        except (StoreUnavailableError, StoreRefusedError) as error:
            raise ServiceUnavailableError(f"run {run} can't be read: {error}; S3 is set by AUTOSEQ_S3_…") from error
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
        """Queue a run for each combination of values, as a Celery group; all are checked before any is queued.

        Args:
            recipe: as `submit` takes it.
            sweeps: the values of each field, as in {"cfg_text_scale": [2, 4, 6], "seed": range(1, 5)}.
            overrides: fields that all the runs change.
            variables: values for `${name}` in the recipe's texts.
            priority: which runs wait for which.
            sweep_id: a name for the sweep, from which those of its runs follow: the same again doubles nothing.

        Returns:
            The sweep with its runs, which `self.sweeps` has for good.

        Raises:
            RecipeError: all the faults of all the combinations, or too many of them.
            InputError: another sweep has this id.
            ServiceUnavailableError: Redis or S3 can't be used; says how many runs were queued.
        """
        return submit_sweep(
            self, recipe, sweeps, overrides=overrides, variables=variables, priority=priority, sweep_id=sweep_id
        )

    def check(
        self,
        source: Path | Mapping[str, Any],
        overrides: Mapping[str, Any] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> Recipe:
        """The recipe with the model it will run on and that model's defaults, as far as workers have announced them.

        Raises:
            RecipeError: also when no worker serves the model.
            ServiceUnavailableError: Redis can't be used.
        """
        check_redis(self.redis)
        specs = self.models()
        asked = read(source, overrides=overrides, variables=variables)
        model = choose_model(asked.resolve(None).model, self.config, specs)
        if specs and model not in specs:
            message = f"{model!r} is served by no worker; allowed: {', '.join(sorted(specs))}"
            raise RecipeError([Fault(path=("model",), message=message)])
        return replace(asked.resolve(specs.get(model)), model=model)

    def watch(self, run_id: str, *, after: str = START, timeout_s: float | None = None) -> Iterator[RunEvent]:
        """The run's events after the event id `after`, to its end. Raises what `storage.redis.follow.follow` does."""
        return follow(self.redis, run_id, after=after, timeout_s=timeout_s)

    def result(self, run_id: str, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Wait for the run's end and return where everything is, as the Celery task does.

        Raises:
            RunFailed, RunCancelled: how else it ended.
            RunNotFoundError: there is no such run.
            TimeoutError: it has no end yet.
        """
        journal = self.journal(run_id)
        try:
            *_, last = self.watch(run_id, timeout_s=timeout_s)
        except RunNotFoundError:
            # Redis forgets a run after a while, the bucket does not.
            if journal.manifest() is None:
                raise
        else:
            if isinstance(last, Failed):
                raise RunFailed(last.error)
            if isinstance(last, Cancelled):
                raise RunCancelled(f"run {run_id} was cancelled")
        manifest = journal.manifest()
        if manifest is None:
            raise RunNotFoundError(f"run {run_id}: succeeded, but its manifest is not in {journal.address('')}")
        return result_of(manifest, journal)

    def state(self, run_id: str) -> RunState:
        """The run at a glance. Raises RunNotFoundError."""
        state = self.runs.state(keys.check_run_id(run_id))
        if state is None:
            raise RunNotFoundError(f"run {run_id}: there is no such run, or it ended long ago")
        return state

    def recent(self, limit: int = 20) -> list[RunState]:
        """The runs submitted last, the newest first."""
        return self.runs.recent(limit)

    def count_open(self) -> int:
        """How many runs wait or run: what to scale workers on, as the broker's list lacks those that run."""
        return self.runs.count_open()

    def cancel(self, run_id: str) -> bool:
        """Stop a run: a waiting one at once, a running one within a step or a token. False when it had ended before.

        Raises RunNotFoundError.
        """
        return self.runs.request_cancel(run_id)

    def resume(self, run_id: str) -> bool:
        """Queue a failed or cancelled run again, to go on after its last committed step. False when there is no need.

        Raises RunNotFoundError, ServiceUnavailableError.
        """
        if not self.runs.reopen(run_id):
            return False
        record = self.runs.record(run_id)
        try:
            with self.broker.acquire(block=True) as connection:
                publish(self.app, RunRequest.of(record), record.queue, connection)
        except OperationalError as error:
            raise ServiceUnavailableError(f"run {run_id} can't be queued: {error}") from error
        return True

    def models(self) -> dict[str, ModelSpec]:
        """The models that workers have announced, by name. Raises ServiceUnavailableError when a spec can't be read."""
        try:
            return {name: ModelSpec.from_json(spec) for name, spec in self.runs.models().items()}
        except ModelSpecError as error:
            where = f"{keys.MODELS} in Redis, which a worker of another release may have written"
            raise ServiceUnavailableError(
                f"the models that workers serve can't be read from {where}: {error}"
            ) from error

    def journal(self, run_id: str) -> Journal:
        """The run's folder in the bucket."""
        return Journal(self.objects, self.config.s3_prefix, run_id)

    def images_of(self, checked: Recipe, source: Path | Mapping[str, Any]) -> tuple[InputImage, ...]:
        """The images of a recipe. Raises InputError, ServiceUnavailableError."""
        folder = source.parent if isinstance(source, Path) else None
        buckets = [self.config.s3_bucket, *self.config.s3_input_buckets]
        try:
            return Sources(folder=folder, store=self.objects, buckets=buckets).fetch(checked)
        except StoreUnavailableError as error:
            raise ServiceUnavailableError(
                f"the recipe's images can't be read: {error}; S3 is set by AUTOSEQ_S3_…"
            ) from error

    def _with_uploads(
        self, data: dict[str, Any], checked: Recipe, source: Path | Mapping[str, Any], run_id: str
    ) -> dict[str, Any]:
        """The recipe as data, its images put into the run's folder and referred to there."""
        items = [item for item in data["context"] if "image" in item]
        if not items:
            return {**data, "model": checked.model}
        images = self.images_of(checked, source)
        try:
            journal = self.journal(run_id)
            for index, (item, image) in enumerate(zip(items, images, strict=True)):
                name = keys.input_image(index, image.extension)
                journal.put_once(name, image.data, content_type=image.content_type)
                item.update(image=escaped(journal.address(name)), sha256=image.sha256)
        except CommitConflictError:
            raise InputError(f"run {run_id}: its folder in S3 holds other images already; use another run id") from None
        except (StoreUnavailableError, StoreRefusedError) as error:
            raise ServiceUnavailableError(
                f"the recipe's images can't be uploaded: {error}; S3 is set by AUTOSEQ_S3_…"
            ) from error
        return {**data, "model": checked.model}

    def _publish(self, request: RunRequest, model: str) -> None:
        """Queue the run, its record first."""
        queue = queue_of(model)
        try:
            if not write_record(self.runs, request, queue=queue, model=model):
                return  # the same run was submitted at the same moment
            with self.broker.acquire(block=True) as connection:
                publish(self.app, request, queue, connection)
        except (RedisError, OperationalError) as error:
            raise ServiceUnavailableError(f"run {request.run_id} can't be queued: {error}") from error
