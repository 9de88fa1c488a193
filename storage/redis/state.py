"""What Redis holds of a run: its state, and what was asked for."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, get_args

from storage.errors import CorruptRecordError
from storage.keys import check_run_id

State: TypeAlias = Literal["queued", "running", "succeeded", "failed", "cancelled"]
FINAL: Final = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True, kw_only=True)
class RunState:
    """A run at a glance. Times are unix seconds."""

    run_id: str
    state: State
    name: str = ""
    model: str = ""
    step: int = 0
    """The step under way, from 1; 0 before the first."""
    steps: int = 0
    fraction: float = 0.0
    """Of the work that is done, from 0 to 1; never falls."""
    eta_s: float | None = None
    submitted_at: float | None = None
    started_at: float | None = None
    """When a worker first took the run."""
    finished_at: float | None = None
    updated_at: float | None = None
    error: str | None = None
    manifest: str | None = None
    """Address of the manifest, once the run succeeded."""

    @property
    def is_final(self) -> bool:
        return self.state in FINAL

    @staticmethod
    def parse(run_id: str, fields: Mapping[str, str]) -> "RunState":
        """From the fields of the run's hash. Raises CorruptRecordError."""

        def number(name: str) -> float | None:
            value = float(fields[name]) if fields.get(name) else None
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{name} is {value}")
            return value

        with _readable(f"run {run_id}: its state"):
            if fields["state"] not in get_args(State):
                raise ValueError(f"state is {fields['state']!a:.80}")
            return RunState(
                run_id=run_id,
                state=fields["state"],  # type: ignore[arg-type]  # it is one of them
                name=fields.get("name", ""),
                model=fields.get("model", ""),
                step=int(fields.get("step") or 0),
                steps=int(fields.get("steps") or 0),
                fraction=number("fraction") or 0.0,
                eta_s=number("eta_s"),
                submitted_at=number("submitted_at"),
                started_at=number("started_at"),
                finished_at=number("finished_at"),
                updated_at=number("updated_at"),
                error=fields.get("error") or None,
                manifest=fields.get("manifest") or None,
            )


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What was asked for: enough to publish the run's message again."""

    run_id: str
    document: str | Mapping[str, Any]
    """A recipe's name, or the recipe itself as JSON."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    model: str = ""
    queue: str = ""
    priority: str = "normal"
    queue_slot: str = ""
    """Where in the broker its message waits (keys.queue_slot); `line` in JSON."""
    idempotency_key: str | None = None
    submitted_at: float

    def __post_init__(self) -> None:
        check_run_id(self.run_id)

    def to_json(self) -> str:
        fields = dict(vars(self))
        fields["line"] = fields.pop("queue_slot")
        if not self.variables:  # workers of an earlier release, which know none, can go on with the run
            del fields["variables"]
        return json.dumps(fields, ensure_ascii=False)

    @staticmethod
    def from_json(run_id: str, text: str) -> "RunRecord":
        """The record of the run `run_id`. Raises CorruptRecordError."""
        with _readable(f"run {run_id}: its record"):
            fields = json.loads(text)
            fields["queue_slot"] = fields.pop("line", "")
            record = RunRecord(**fields)
            if record.run_id != run_id:
                raise ValueError(f"it is that of the run {record.run_id}")
            texts = (record.name, record.model, record.queue, record.priority, record.queue_slot)
            if not all(isinstance(one, str) for one in texts) or not isinstance(record.submitted_at, int | float):
                raise TypeError("a field is of the wrong type")
            return record


@contextmanager
def _readable(what: str) -> Iterator[None]:
    """Raises CorruptRecordError, naming `what`, for what goes wrong in reading it."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        why = f"{type(error).__name__}: {str(error)[:200]}"
        raise CorruptRecordError(
            f"{what} in Redis was not written by this program, or by another release: {why}"
        ) from error
