"""Wrong clocks, poison, rushes, cancels, readers and full disks, in their short form: `make chaos` has the long one."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.cancels import cancels
from tests.chaos.clocks import jumping_clocks
from tests.chaos.disks import full_disk
from tests.chaos.ground import Ground, Report, ground
from tests.chaos.poison import poison
from tests.chaos.readers import readers
from tests.chaos.submits import one_key
from worker.local.services import LocalServices

pytestmark = pytest.mark.services

WORKERS = 2


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServices]:
    with LocalServices.start(tmp_path_factory.mktemp("hostile") / "services") as started:
        yield started


@pytest.fixture(scope="module")
def on(own: LocalServices, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """The ground of all but the full disk, with its workers' clocks right."""
    with ground(tmp_path_factory.mktemp("ground"), own) as made:
        yield made


@pytest.fixture
def passes(capsys: pytest.CaptureFixture[str]) -> Iterator[list[Report]]:
    """The reports that a test makes: printed, and without a fault."""
    reports: list[Report] = []
    yield reports
    with capsys.disabled():
        sys.stdout.write("".join(f"\n{report}" for report in reports))
    assert [fault for report in reports for fault in report.faults] == []


def test_fifty_submits_at_once_without_a_worker_are_one_run_when_one_comes(on: Ground, passes: list[Report]) -> None:
    passes.append(one_key(on, seed=21, threads=47, processes=3, workers=0))


def test_fifty_submits_at_once_are_one_run_on_workers_that_wait_for_it(on: Ground, passes: list[Report]) -> None:
    passes.append(one_key(on, seed=22, threads=50, processes=0, workers=WORKERS))


def test_a_poisonous_run_fails_and_harms_no_other(on: Ground, passes: list[Report]) -> None:
    passes.append(poison(on, seed=21, good=15, workers=WORKERS))


def test_a_cancel_at_any_moment_leaves_one_end(on: Ground, passes: list[Report]) -> None:
    passes.append(cancels(on, seed=21, runs=10, workers=WORKERS, unserved=4))


@pytest.mark.parametrize("cap", [None, 10])
def test_readers_that_reconnect_miss_nothing_unsaid(on: Ground, passes: list[Report], cap: int | None) -> None:
    passes.append(readers(on, seed=21, readers=40, cap=cap))


def test_a_clock_that_jumps_an_hour_costs_no_run(own: LocalServices, passes: list[Report], tmp_path: Path) -> None:
    with ground(tmp_path, own, database=1, scripted_delay_s=0.04) as misled:
        passes.append(jumping_clocks(misled, seed=21, jumps=4))


def test_a_full_disk_is_waited_for(own: LocalServices, passes: list[Report], tmp_path: Path) -> None:
    passes.append(full_disk(tmp_path, own, seed=21, runs=1, database=2))
