"""What is asked for survives its trip through Redis."""

from dataclasses import replace

import pytest

from storage.errors import InvalidName
from storage.state import RunRecord, RunState


def test_a_record_is_read_back_as_it_was_written() -> None:
    record = RunRecord(
        run_id="r1",
        document={"name": "küste", "context": [{"text": "Wellen"}]},
        overrides={"seed": 8},
        name="küste",
        model="tiny",
        queue="tiny",
        priority="high",
        idempotency_key="order-1",
        submitted_at=1.5,
    )
    assert RunRecord.from_json(record.to_json()) == record
    assert "variables" not in record.to_json()
    varied = replace(record, variables={"animal": "fox"})
    assert RunRecord.from_json(varied.to_json()) == varied


def test_a_record_is_of_a_run_that_can_have_keys() -> None:
    with pytest.raises(InvalidName):
        RunRecord(run_id="a/b", document="magical-forest", submitted_at=0)


def test_empty_fields_are_nothing() -> None:
    fields = {"state": "queued", "eta_s": "", "error": "", "manifest": ""}
    assert RunState.parse("r1", fields) == RunState(run_id="r1", state="queued")
