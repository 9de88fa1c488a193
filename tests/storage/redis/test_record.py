"""The record of a run is read back, also that of another release."""

import json
from dataclasses import replace

import pytest

from storage.errors import CorruptRecordError, InvalidNameError, NewerRecordError
from storage.redis.record import RunRecord

RECORD = RunRecord(
    run_id="r1",
    document={"name": "küste", "context": [{"text": "Wellen"}]},
    overrides={"seed": 8},
    name="küste",
    model="tiny",
    queue="model.tiny",
    priority="high",
    queue_slot="model.tiny|0",
    idempotency_key="order-1",
    submitted_at=1.5,
)
OF_0_1_0 = (
    '{"run_id": "r1", "document": {"name": "küste", "context": [{"text": "Wellen"}]}, "overrides": {"seed": 8}, '
    '"name": "küste", "model": "tiny", "queue": "model.tiny", "priority": "high", "line": "model.tiny|0", '
    '"idempotency_key": "order-1", "submitted_at": 1.5}'
)


def changed(**fields: object) -> str:
    return json.dumps({**json.loads(OF_0_1_0), **fields})


def test_a_record_of_0_1_0_is_read() -> None:
    assert RunRecord.from_json("r1", OF_0_1_0) == RECORD
    assert RunRecord.from_json("r1", changed(variables={"animal": "fox"})) == replace(
        RECORD, variables={"animal": "fox"}
    )


def test_a_record_has_the_fields_that_0_1_0_accepts_and_no_others() -> None:
    assert json.loads(RECORD.to_json()) == json.loads(OF_0_1_0)
    varied = replace(RECORD, variables={"animal": "fox"})
    assert json.loads(varied.to_json()) == json.loads(changed(variables={"animal": "fox"}))


def test_unknown_fields_are_ignored_and_missing_ones_have_their_defaults() -> None:
    assert RunRecord.from_json("r1", changed(later={"a": 1}, version=1)) == RECORD
    least = RunRecord.from_json("r1", '{"run_id": "r1", "document": "forest", "submitted_at": 2}')
    assert least == RunRecord(run_id="r1", document="forest", submitted_at=2)


def test_a_newer_version_is_named() -> None:
    what = "run r1: its record: has version 2, written by a newer release; this release reads up to 1"
    with pytest.raises(NewerRecordError, match=what):
        RunRecord.from_json("r1", changed(version=2, document=None))


def test_a_record_is_of_a_run_that_can_have_keys() -> None:
    with pytest.raises(InvalidNameError):
        RunRecord(run_id="a/b", document="magical-forest", submitted_at=0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "[" * 5000,
        '{"run_id": "r1", "document": "a"}',
        changed(run_id="r2"),
        changed(queue=5),
        changed(submitted_at="x"),
    ],
)
def test_a_record_of_another_program_is_named(text: str) -> None:
    with pytest.raises(CorruptRecordError, match="run r1: its record in Redis was not written by this program"):
        RunRecord.from_json("r1", text)


@pytest.mark.parametrize("version", ["2", True, 0])
def test_what_is_no_version_is_named(version: object) -> None:
    with pytest.raises(CorruptRecordError, match="run r1: its record: not a record of this program: version"):
        RunRecord.from_json("r1", changed(version=version))
