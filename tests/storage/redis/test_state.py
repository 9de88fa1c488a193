"""The state and the events of a run are read back, or named as corrupt."""

import pytest

from storage.errors import CorruptRecordError
from storage.redis.state import RunState


def test_empty_fields_are_nothing() -> None:
    fields = {"state": "queued", "eta_s": "", "error": "", "manifest": ""}
    assert RunState.parse("r1", fields) == RunState(run_id="r1", state="queued")


@pytest.mark.parametrize("changed", [{"state": "odd"}, {"step": "x"}, {"fraction": "nan"}, {"eta_s": "inf"}])
def test_a_state_of_another_program_is_named(changed: dict[str, str]) -> None:
    with pytest.raises(CorruptRecordError, match="run r1: its state in Redis"):
        RunState.parse("r1", {"state": "running", **changed})
