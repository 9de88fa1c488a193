"""Submit a run: check its recipe once, upload its images, write its record, publish its message."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from recipes.canonical import recipe_sha256, to_document
from recipes.faults import Fault, RecipeError
from recipes.load import Given, find, read
from recipes.recipe import Recipe
from recipes.variables import escaped
from storage import keys
from storage.errors import CommitConflictError
from worker.app import choose_model, model_named_in, publish, write_record
from worker.client.connections import Connections
from worker.connections import ServiceUnavailableError, check_redis, explain_s3_errors
from worker.jobs.input_rule import InputRule
from worker.jobs.inputs import InputError, InputImage, Sources
from worker.jobs.request import Priority, RunRequest
from worker.settings import queue_of


@dataclass(frozen=True, kw_only=True)
class CheckedRecipe:
    """A recipe without faults, with everything needed to submit it."""

    given: Given
    recipe: Recipe
    """Resolved for the model that will run it, as far as workers have announced it."""
    model: str
    fetch: Callable[[Recipe], tuple[InputImage, ...]]

    @cached_property
    def images(self) -> tuple[InputImage, ...]:
        """The images of its context, fetched on first use. Raises InputError, ServiceUnavailableError."""
        return self.fetch(self.recipe)

    def with_images(self) -> Self:
        """Itself, after its images are fetched and checked. Raises InputError, ServiceUnavailableError."""
        _ = self.images
        return self

    def dedupe_key(self) -> str:
        """An idempotency key made from the recipe, its images and its model."""
        image_hashes = [image.sha256 for image in self.images]
        return f"recipe-{recipe_sha256(to_document(self.recipe), image_hashes)}"

    def upload(self, connections: Connections, run_id: str) -> dict[str, Any]:
        """Upload the images to the run's folder. Returns the recipe as data that refers to them there."""
        data: dict[str, Any] = {**escaped(self.given.data), "model": self.model}
        items = [item for item in data["context"] if "image" in item]
        if not items:
            return data
        images, journal = self.images, connections.journal(run_id)
        with explain_s3_errors("the recipe's images can't be uploaded"):
            try:
                for index, (item, image) in enumerate(zip(items, images, strict=True)):
                    name = keys.input_image(index, image.extension)
                    journal.put_once(name, image.data, content_type=image.content_type)
                    item.update(image=escaped(journal.address(name)), sha256=image.sha256)
            except CommitConflictError:
                message = f"run {run_id}: its folder in S3 already has other images; use another run id"
                raise InputError(message) from None
        return data


class RecipeChecker:
    """Checks one recipe with any overrides, and fetches each image of it once.

    Args:
        connections: the servers to check against.
        recipe: a file (a Path), the name of a shipped recipe (a str), or a recipe as JSON-like data.

    Raises:
        RecipeError: no shipped recipe has this name.
        ServiceUnavailableError: Redis can't be used.
    """

    def __init__(self, connections: Connections, recipe: Path | str | Mapping[str, Any]) -> None:
        config = connections.config
        self.source = find(recipe, config.recipes) if isinstance(recipe, str) else recipe
        check_redis(connections.redis)
        self._connections = connections
        self._specs = connections.models()
        self._served = connections.live_workers.served_models

    def check(
        self, overrides: Mapping[str, Any] | None = None, variables: Mapping[str, Any] | None = None
    ) -> CheckedRecipe:
        """Resolve the recipe for the model that will run it. Raises RecipeError, also when no worker serves it."""
        given = read(self.source, overrides=overrides, variables=variables)
        model = choose_model(model_named_in(given), self._connections.config, self._specs, self._served)
        recipe = given.resolve(self._specs.get(model))
        if self._specs and model not in self._specs:
            message = f"no worker serves {model!r}; allowed: {', '.join(sorted(self._served() or self._specs))}"
            raise RecipeError([Fault(path=("model",), message=message)])
        return CheckedRecipe(given=given, recipe=replace(recipe, model=model), model=model, fetch=self._fetch)

    @cached_property
    def _sources(self) -> Sources:
        config = self._connections.config
        return Sources(
            folder=self.source.parent if isinstance(self.source, Path) else None,
            store=self._connections.objects,
            rule=InputRule.of(config),
        )

    def _fetch(self, recipe: Recipe) -> tuple[InputImage, ...]:
        with explain_s3_errors("the recipe's images can't be read"):
            return self._sources.fetch(recipe)


def submit_checked(
    connections: Connections,
    checked: CheckedRecipe,
    *,
    priority: Priority = "normal",
    idempotency_key: str | None = None,
    run_id: str | None = None,
    group: str | None = None,
) -> str:
    """Queue a run of a checked recipe, unless its key or id has a run. `Client.submit` has the details."""
    run_id = keys.check_run_id(run_id or str(uuid.uuid4()))
    if idempotency_key:
        run_id = connections.runs.claim_key(idempotency_key, run_id)
    if connections.runs.state(run_id) is not None:
        return run_id
    request = RunRequest(
        run_id=run_id,
        recipe=checked.upload(connections, run_id),
        overrides={},
        priority=priority,
        idempotency_key=idempotency_key,
        group=group,
    )
    try:
        # False: another client submitted the same run at the same moment, and publishes its message. If this one took
        # longer to upload than Redis keeps a claimed key, that run may have another id.
        if write_record(connections.runs, request, queue=queue_of(checked.model), model=checked.model):
            publish_request(connections, request, queue_of(checked.model))
        return connections.runs.resolve_alias(run_id) if idempotency_key else run_id
    except RedisError as error:
        raise ServiceUnavailableError(f"run {run_id} can't be queued: {error}") from error


def publish_request(connections: Connections, request: RunRequest, queue: str) -> None:
    """Publish the message of a recorded run. Raises ServiceUnavailableError."""
    try:
        with connections.broker.acquire(block=True) as connection:
            publish(connections.app, request, queue, connection)
    except OperationalError as error:
        raise ServiceUnavailableError(f"run {request.run_id} can't be queued: {error}") from error
