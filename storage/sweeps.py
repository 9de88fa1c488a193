"""What is kept of a sweep: which runs it has and what each of them changed, beside the runs in the bucket."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from storage import keys
from storage.errors import (
    CommitConflictError,
    CorruptRecordError,
    ObjectExistsError,
    ObjectNotFoundError,
    RunNotFoundError,
)
from storage.objects import ObjectStore


@dataclass(frozen=True, kw_only=True)
class SweepRun:
    """One run of a sweep."""

    run_id: str
    values: Mapping[str, Any]
    """What it changed, by field."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One recipe with some of its fields changed, in every combination."""

    sweep_id: str
    name: str
    """The recipe's."""
    document: Mapping[str, Any]
    """The recipe as it was given, without what the runs change."""
    fields: Mapping[str, Sequence[Any]]
    """The values of each field that is swept, in order."""
    runs: tuple[SweepRun, ...]
    """In the order of their values, the last field changing fastest."""

    @property
    def run_ids(self) -> list[str]:
        return [run.run_id for run in self.runs]


class Sweeps:
    """The sweeps in one bucket."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self.store = store
        self.prefix = prefix

    def create(self, sweep: Sweep) -> None:
        """Write a sweep down, once. Raises CommitConflictError when another one has its id."""
        data = (json.dumps(asdict(sweep), ensure_ascii=False, indent=2) + "\n").encode()
        key = keys.sweep(self.prefix, sweep.sweep_id)
        try:
            self.store.put(key, data, content_type="application/json", only_if_absent=True)
        except ObjectExistsError:
            if self.store.get(key) != data:
                raise CommitConflictError(f"{self.store.address(key)}: there is another sweep of this id") from None

    def get(self, sweep_id: str) -> Sweep:
        """Raises RunNotFoundError, CorruptRecordError."""
        key = keys.sweep(self.prefix, sweep_id)
        try:
            data = self.store.get(key)
        except ObjectNotFoundError:
            raise RunNotFoundError(f"sweep {sweep_id}: there is none in {self.store.address(key)}") from None
        try:
            fields = json.loads(data)
            return Sweep(**{**fields, "runs": tuple(SweepRun(**run) for run in fields["runs"])})
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise CorruptRecordError(f"{self.store.address(key)}: not a record of this program: {error}") from error

    def put_sheet(self, sweep_id: str, png: bytes) -> str:
        """Store the sweep's contact sheet, over an earlier one; where a browser gets it."""
        key = keys.sweep_sheet(self.prefix, sweep_id)
        self.store.put(key, png, content_type="image/png")
        return self.store.url(key)
