"""The record of a sweep in the bucket: its runs and what each of them changes in the recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from pydantic import TypeAdapter

from storage import keys
from storage.errors import CommitConflictError, ObjectExistsError, ObjectNotFoundError, RunNotFoundError
from storage.journal import JSON
from storage.objects import ObjectStore
from storage.png import CONTENT_TYPE
from storage.records import TOLERANT, read_record, record_json


@dataclass(frozen=True, kw_only=True)
class SweepRun:
    """One run of a sweep."""

    __pydantic_config__: ClassVar[dict[str, Any]] = TOLERANT

    run_id: str
    values: Mapping[str, Any]
    """The values that it sets, by field."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One recipe, run with every combination of values for some of its fields."""

    __pydantic_config__: ClassVar[dict[str, Any]] = TOLERANT

    sweep_id: str
    name: str
    """The name of the recipe."""
    document: Mapping[str, Any]
    """The recipe as submitted, without the values of the runs."""
    fields: Mapping[str, Sequence[Any]]
    """The values of each field that is swept, in order."""
    runs: tuple[SweepRun, ...]
    """In the order of their values; the last field changes fastest."""

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
        """Create the record of a sweep. Raises CommitConflictError when another sweep has its id."""
        data = record_json(asdict(sweep), sort_keys=False)
        key = keys.sweep(self.prefix, sweep.sweep_id)
        try:
            self.store.put(key, data, content_type=JSON, only_if_absent=True)
        except ObjectExistsError:
            if self.store.get(key) != data:
                raise CommitConflictError(f"{self.store.address(key)}: another sweep has this id") from None

    def get(self, sweep_id: str) -> Sweep:
        """Raises RunNotFoundError, CorruptRecordError, NewerRecordError."""
        key = keys.sweep(self.prefix, sweep_id)
        try:
            data = self.store.get(key)
        except ObjectNotFoundError:
            raise RunNotFoundError(f"sweep {sweep_id}: there is none in {self.store.address(key)}") from None
        return read_record(data, _SWEEP, self.store.address(key))

    def put_sheet(self, sweep_id: str, png: bytes) -> str:
        """Store the sweep's contact sheet, replacing an earlier one. Returns its URL for browsers."""
        key = keys.sweep_sheet(self.prefix, sweep_id)
        self.store.put(key, png, content_type=CONTENT_TYPE)
        return self.store.url(key)
