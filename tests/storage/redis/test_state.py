"""What is asked for survives its trip through Redis."""

import json
from dataclasses import replace

import pytest

from storage.errors import CorruptRecordError, InvalidNameError
from storage.redis.state import RunRecord, RunState


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
    assert RunRecord.from_json("r1", record.to_json()) == record
    assert "variables" not in record.to_json()
    varied = replace(record, variables={"animal": "fox"})
    assert RunRecord.from_json("r1", varied.to_json()) == varied


def test_a_record_is_of_a_run_that_can_have_keys() -> None:
    with pytest.raises(InvalidNameError):
        RunRecord(run_id="a/b", document="magical-forest", submitted_at=0)


def test_empty_fields_are_nothing() -> None:
    fields = {"state": "queued", "eta_s": "", "error": "", "manifest": ""}
    assert RunState.parse("r1", fields) == RunState(run_id="r1", state="queued")


def record_of(**changed: object) -> str:
    return json.dumps({**json.loads(RunRecord(run_id="r1", document="a", submitted_at=1).to_json()), **changed})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "[" * 5000,
        record_of(run_id="r2"),
        record_of(later=1),
        record_of(queue=5),
        record_of(submitted_at="x"),
    ],
)
def test_a_record_of_another_program_is_named(text: str) -> None:
    with pytest.raises(CorruptRecordError, match="run r1: its record in Redis was not written by this program"):
        RunRecord.from_json("r1", text)


@pytest.mark.parametrize("changed", [{"state": "odd"}, {"step": "x"}, {"fraction": "nan"}, {"eta_s": "inf"}])
def test_a_state_of_another_program_is_named(changed: dict[str, str]) -> None:
    with pytest.raises(CorruptRecordError, match="run r1: its state in Redis"):
        RunState.parse("r1", {"state": "running", **changed})
