"""What Redis says of a run: its state at a glance, what was asked for, and one event of its stream."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, TypeAlias

from storage.keys import check_run_id

State: TypeAlias = Literal["queued", "running", "succeeded", "failed", "cancelled"]
FINAL: Final = frozenset({"succeeded", "failed", "cancelled"})
GAP: Final = "gap"
"""Type of the event that stands for events which the stream no longer holds."""


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
        """From the fields of the run's hash."""

        def number(name: str) -> float | None:
            return float(fields[name]) if fields.get(name) else None

        return RunState(
            run_id=run_id,
            state=fields["state"],  # type: ignore[arg-type]  # written by Progress and Runs alone
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
    line: str = ""
    """Where in the broker its message waits (keys.line)."""
    idempotency_key: str | None = None
    submitted_at: float

    def __post_init__(self) -> None:
        check_run_id(self.run_id)

    def to_json(self) -> str:
        fields = asdict(self)
        if not self.variables:  # workers of an earlier release, which know none, can go on with the run
            del fields["variables"]
        return json.dumps(fields, ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> "RunRecord":
        return RunRecord(**json.loads(text))


@dataclass(frozen=True, kw_only=True)
class ProgressEvent:
    """Something that happened in a run."""

    id: str
    """Where to go on from (Last-Event-ID)."""
    type: str
    data: Mapping[str, Any]
    """`n` (counts from 1), `at` (unix seconds), `step` and what belongs to the type."""

    @property
    def is_final(self) -> bool:
        return self.type in FINAL
