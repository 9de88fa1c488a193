"""The record of a run in Redis: the request, written before the run's message is published."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from storage.keys import check_run_id
from storage.records import check_version
from storage.redis.state import reading


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The request, with everything needed to publish the run's message again."""

    run_id: str
    document: str | Mapping[str, Any]
    """The name of a recipe, or the recipe as JSON data."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    model: str = ""
    queue: str = ""
    priority: str = "normal"
    queue_slot: str = ""
    """The queue slot of its message (keys.queue_slot); `line` in JSON."""
    idempotency_key: str | None = None
    submitted_at: float
    """In unix seconds."""

    def __post_init__(self) -> None:
        check_run_id(self.run_id)

    def to_json(self) -> str:
        """The record as JSON. Release 0.1.0 rejects any other fields."""
        document = dict(vars(self))
        document["line"] = document.pop("queue_slot")
        if not self.variables:
            del document["variables"]
        return json.dumps(document, ensure_ascii=False)

    @staticmethod
    def from_json(run_id: str, text: str) -> "RunRecord":
        """The record of the run `run_id`; unknown fields are ignored. Raises CorruptRecordError, NewerRecordError."""
        what = f"run {run_id}: its record"
        with reading(what):
            document = json.loads(text)
            check_version(document.get("version", 1), what)
            document["queue_slot"] = document.pop("line", "")
            record = RunRecord(**{one.name: document[one.name] for one in fields(RunRecord) if one.name in document})
            if record.run_id != run_id:
                raise ValueError(f"it belongs to run {record.run_id}")
            texts = (record.name, record.model, record.queue, record.priority, record.queue_slot)
            if not all(isinstance(one, str) for one in texts) or not isinstance(record.submitted_at, int | float):
                raise TypeError("a field has the wrong type")
            return record
