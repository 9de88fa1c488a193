"""A request for a run: the arguments of the task `worker.run`, from a message or from a run's record."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast, get_args

from storage import keys
from storage.errors import InvalidNameError
from storage.redis.record import RunRecord

Priority: TypeAlias = Literal["high", "normal", "low"]


class RequestError(ValueError):
    """The arguments of the task can't be used."""


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """A requested run, its recipe not yet checked."""

    run_id: str
    recipe: str | Mapping[str, Any]
    """The name of a recipe that the worker has, or the recipe itself."""
    overrides: Mapping[str, Any]
    variables: Mapping[str, Any] = field(default_factory=dict)
    priority: Priority = "normal"
    idempotency_key: str | None = None
    group: str | None = None
    """The Celery group of its message, for Celery's tools only."""

    @staticmethod
    def parse(run_id: str, args: Sequence[object], kwargs: Mapping[str, object]) -> "RunRequest":
        """The request in the arguments of a task. Raises RequestError."""
        names = ("recipe", "overrides", "priority", "idempotency_key", "variables")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        unknown = sorted(set(given) - set(names))
        if len(args) > len(names) or unknown:
            raise RequestError(f"worker.run takes {', '.join(names)}; got {', '.join(unknown) or 'too many arguments'}")
        recipe, overrides = given.get("recipe"), given.get("overrides") or {}
        variables = given.get("variables") or {}
        priority, key = given.get("priority") or "normal", given.get("idempotency_key")
        if not isinstance(recipe, str | Mapping) or not recipe:
            raise RequestError("recipe: must be the name of a recipe the worker has, or a recipe as a JSON object")
        if not isinstance(overrides, Mapping):
            raise RequestError('overrides: must be a JSON object of recipe fields, as in {"num_images": 5}')
        if not isinstance(variables, Mapping):
            raise RequestError('variables: must be a JSON object of names and values, as in {"animal": "fox"}')
        if priority not in get_args(Priority):
            raise RequestError(f"priority: {priority!r} is none of {', '.join(get_args(Priority))}")
        if not isinstance(key, str | None):
            raise RequestError("idempotency_key: must be a string")
        try:
            keys.idempotency(key or "none")
        except InvalidNameError as error:
            raise RequestError(str(error)) from error
        _check_storable(recipe=recipe, overrides=overrides, variables=variables)
        return RunRequest(
            run_id=run_id,
            recipe=recipe,
            overrides=overrides,
            variables=variables,
            priority=cast("Priority", priority),
            idempotency_key=key or None,
        )

    @staticmethod
    def of(record: RunRecord) -> "RunRequest":
        """The request in a run's record. Raises RequestError for an invalid record."""
        given = {
            "recipe": record.document,
            "overrides": record.overrides,
            "variables": record.variables,
            "priority": record.priority,
            "idempotency_key": record.idempotency_key,
        }
        return RunRequest.parse(record.run_id, (), given)

    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments of the task, as `parse` reads them."""
        given: dict[str, Any] = {"recipe": self.recipe, "priority": self.priority}
        if self.overrides:
            given["overrides"] = dict(self.overrides)
        if self.variables:
            given["variables"] = dict(self.variables)
        if self.idempotency_key:
            given["idempotency_key"] = self.idempotency_key
        return given


def _check_storable(**given: object) -> None:
    """Raise RequestError for values that can't be stored: the record of a run is JSON in UTF-8."""
    for name, value in given.items():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise RequestError(f"{name}: can't be written as JSON in UTF-8: {str(error)[:200]}") from None
