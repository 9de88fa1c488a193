"""The state of a run in Redis."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from storage.errors import CorruptRecordError

State: TypeAlias = Literal["queued", "running", "succeeded", "failed", "cancelled"]
FINAL: Final = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True, kw_only=True)
class RunState:
    """The state of a run. Times are unix seconds."""

    run_id: str
    state: State
    name: str = ""
    model: str = ""
    step: int = 0
    """The current step, from 1; 0 before the first."""
    steps: int = 0
    fraction: float = 0.0
    """How much of the run is done, from 0 to 1; it never decreases."""
    eta_s: float | None = None
    submitted_at: float | None = None
    started_at: float | None = None
    """When a worker first started the run."""
    finished_at: float | None = None
    updated_at: float | None = None
    error: str | None = None
    manifest: str | None = None
    """The address of the manifest, once the run succeeded."""

    @property
    def is_final(self) -> bool:
        return self.state in FINAL

    @staticmethod
    def parse(run_id: str, fields: Mapping[str, str]) -> "RunState":
        """The state in the fields of the run's hash. Raises CorruptRecordError."""

        def number(name: str) -> float | None:
            value = float(fields[name]) if fields.get(name) else None
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{name} is {value}")
            return value

        with reading(f"run {run_id}: its state"):
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


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Raises CorruptRecordError, which names `what`, for an error of the code that reads it."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        why = f"{type(error).__name__}: {str(error)[:200]}"
        raise CorruptRecordError(
            f"{what} in Redis was not written by this program, or by another release: {why}"
        ) from error
