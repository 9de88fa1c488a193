"""The cores for the model's threads, and their share for each of several workers."""

import os
from pathlib import Path

import pytest

from worker.cores import available_cores
from worker.local.fleet import with_thread_share

CORES = len(os.sched_getaffinity(0))


def test_without_a_quota_all_cores_are_available(tmp_path: Path) -> None:
    assert available_cores(tmp_path / "absent") == CORES


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", CORES), ("100000 100000", 1), ("50000 100000", 1), (f"{(CORES + 5) * 100000} 100000", CORES)],
)
def test_a_quota_limits_the_cores(tmp_path: Path, quota: str, cores: int) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(f"{quota}\n")
    assert available_cores(path) == cores


def test_workers_of_one_fleet_share_the_cores() -> None:
    assert with_thread_share({"A": "b"}, 1) == {"A": "b"}
    assert with_thread_share({"A": "b"}, max(2, CORES)) == {"A": "b", "AUTOSEQ_THREADS": "1"}
    assert with_thread_share({}, 10 * CORES) == {"AUTOSEQ_THREADS": "1"}


@pytest.mark.parametrize("name", ["AUTOSEQ_THREADS", "OMP_NUM_THREADS"])
def test_a_number_that_is_set_holds(name: str) -> None:
    assert with_thread_share({name: "3"}, 2) == {name: "3"}
