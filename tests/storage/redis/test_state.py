"""The state and the events of a run are read back, or named as corrupt."""

import pytest

from storage.errors import CorruptRecordError
from storage.redis.state import RunState, told


def test_empty_fields_are_nothing() -> None:
    fields = {"state": "queued", "eta_s": "", "error": "", "manifest": ""}
    assert RunState.parse("r1", fields) == RunState(run_id="r1", state="queued")


@pytest.mark.parametrize("changed", [{"state": "odd"}, {"step": "x"}, {"fraction": "nan"}, {"eta_s": "inf"}])
def test_a_state_of_another_program_is_named(changed: dict[str, str]) -> None:
    with pytest.raises(CorruptRecordError, match="run r1: its state in Redis"):
        RunState.parse("r1", {"state": "running", **changed})


@pytest.mark.parametrize("event", ["", "5", '{"n": 1}', '{"n": "1", "type": "log"}', '{"n": 1, "type": null}'])
def test_an_event_of_another_program_is_named(event: str) -> None:
    with pytest.raises(CorruptRecordError, match="run r1: its event 1-0 in Redis"):
        told("r1", "1-0", {"event": event})
