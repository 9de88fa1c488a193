"""The record of a sweep in the bucket: its runs and what each of them changes in the recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from pydantic import TypeAdapter

from storage import keys
from storage.errors import CommitConflictError, ObjectExistsError, ObjectNotFoundError, RunNotFoundError
from storage.objects import ObjectStore
from storage.records import TOLERANT, read_record, record_json


@dataclass(frozen=True, kw_only=True)
class SweepRun:
    """One run of a sweep."""

    __pydantic_config__: ClassVar[dict[str, Any]] = TOLERANT

    run_id: str
    values: Mapping[str, Any]
    """The values that it changes, by field."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One recipe with some of its fields changed, in every combination."""

    __pydantic_config__: ClassVar[dict[str, Any]] = TOLERANT

    sweep_id: str
    name: str
    """The recipe's."""
    document: Mapping[str, Any]
    """The recipe as submitted, without the values of the runs."""
    fields: Mapping[str, Sequence[Any]]
    """The values of each field that is swept, in order."""
    runs: tuple[SweepRun, ...]
    """In the order of their values, the last field changing fastest."""

    @property
    def run_ids(self) -> list[str]:
        return [run.run_id for run in self.runs]


_SWEEP = TypeAdapter(Sweep)


class Sweeps:
    """The sweeps in one bucket."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self.store = store
        self.prefix = prefix

    def create(self, sweep: Sweep) -> None:
        """Record a sweep, once. Raises CommitConflictError when another one has its id."""
        data = record_json(asdict(sweep), sort_keys=False)
        key = keys.sweep(self.prefix, sweep.sweep_id)
        try:
            self.store.put(key, data, content_type="application/json", only_if_absent=True)
        except ObjectExistsError:
            if self.store.get(key) != data:
                raise CommitConflictError(f"{self.store.address(key)}: there is another sweep of this id") from None

    def get(self, sweep_id: str) -> Sweep:
        """Raises RunNotFoundError, CorruptRecordError, NewerRecordError."""
        key = keys.sweep(self.prefix, sweep_id)
        try:
            data = self.store.get(key)
        except ObjectNotFoundError:
            raise RunNotFoundError(f"sweep {sweep_id}: there is none in {self.store.address(key)}") from None
        return read_record(data, _SWEEP, self.store.address(key))

    def put_sheet(self, sweep_id: str, png: bytes) -> str:
        """Store the sweep's contact sheet in place of an earlier one. Returns the URL for browsers."""
        key = keys.sweep_sheet(self.prefix, sweep_id)
        self.store.put(key, png, content_type="image/png")
        return self.store.url(key)
