"""A sweep is written down once, before its runs, and found again."""

import json
from dataclasses import asdict, replace

import pytest

from storage import keys
from storage.errors import (
    CommitConflictError,
    CorruptRecordError,
    InvalidNameError,
    NewerRecordError,
    RunNotFoundError,
)
from storage.objects.memory import MemoryStore
from storage.sweeps import Sweep, SweepRun, Sweeps

SWEEP = Sweep(
    sweep_id="night",
    name="sky",
    document={"name": "sky", "context": [{"text": "Küste"}]},
    fields={"seed": [1, 2]},
    runs=(SweepRun(run_id="night-001", values={"seed": 1}), SweepRun(run_id="night-002", values={"seed": 2})),
)


def test_a_sweep_is_found_as_it_was_written() -> None:
    sweeps = Sweeps(MemoryStore(), "runs")
    sweeps.create(SWEEP)
    sweeps.create(SWEEP)
    assert sweeps.get("night") == SWEEP
    assert SWEEP.run_ids == ["night-001", "night-002"]
    assert list(sweeps.store.list("")) == ["runs/sweeps/night/sweep.json"]


def test_another_sweep_does_not_take_its_place() -> None:
    sweeps = Sweeps(MemoryStore(), "")
    sweeps.create(SWEEP)
    with pytest.raises(CommitConflictError, match="another sweep has this id"):
        sweeps.create(replace(SWEEP, name="sea"))
    assert sweeps.get("night") == SWEEP


def test_a_sweep_that_is_not_there_or_not_ours_is_told() -> None:
    sweeps = Sweeps(MemoryStore(), "runs")
    with pytest.raises(
        RunNotFoundError, match=r"sweep night: there is none in s3://memory/runs/sweeps/night/sweep\.json"
    ):
        sweeps.get("night")
    for data in (b"{", b"{}", b'{"runs": [{"id": 1}]}', b"[]"):
        sweeps.store.put(keys.sweep("runs", "night"), data, content_type="")
        with pytest.raises(CorruptRecordError, match=r"sweep\.json: not a record"):
            sweeps.get("night")


def test_a_sweep_of_another_release_is_read_or_left_to_it() -> None:
    sweeps = Sweeps(MemoryStore(), "runs")
    fields = {**asdict(SWEEP), "strategy": "grid"}
    sweeps.store.put(keys.sweep("runs", "night"), json.dumps(fields).encode(), content_type="")
    assert sweeps.get("night") == SWEEP
    sweeps.store.put(keys.sweep("runs", "night"), b'{"version": 2}', content_type="")
    with pytest.raises(NewerRecordError, match=r"sweep\.json: has version 2"):
        sweeps.get("night")


def test_the_sheet_lies_beside_it() -> None:
    sweeps = Sweeps(MemoryStore(), "runs")
    assert sweeps.put_sheet("night", b"png").endswith("runs/sweeps/night/contact-sheet.png")
    assert sweeps.store.get("runs/sweeps/night/contact-sheet.png") == b"png"


def test_names_leave_room_for_the_runs_and_the_folder_of_sweeps_is_no_run() -> None:
    assert keys.run_of_sweep("x" * 120, 256) == "x" * 120 + "-256"
    assert keys.check_run_id(keys.run_of_sweep("x" * 120, 256))
    for wrong in ("", "a b", "../x", "x" * 121):
        with pytest.raises(InvalidNameError, match="sweep id"):
            keys.check_sweep_id(wrong)
    with pytest.raises(InvalidNameError, match="folder of the sweeps"):
        keys.run_folder("runs", "sweeps")
