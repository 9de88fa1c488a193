"""Many runs and many leases in their short form, counts asserted and no times; `make scale` is the long one."""

import logging
import sys
from pathlib import Path

import pytest
from redis import Redis

from tests.scale.__main__ import of_leases, of_runs, of_workers
from tests.scale.commands import asked
from tests.scale.many_leases import cost_among
from tests.scale.many_runs import many_runs
from tests.scale.many_workers import load_of
from worker.local.services import LocalServices

pytestmark = pytest.mark.services

RUNS, WORKERS, LEASES = 60, 2, 2_000
FLEET, LOST = 100, 20
BYTES_A_RUN = 20_000
ROUND_TRIPS_AN_ENQUEUE = 5
"""Is Redis there, the models, the run, its record, its message."""


def test_every_run_of_many_happens_once_and_little_of_it_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with LocalServices.start(tmp_path / "services") as services:
        figures = many_runs(services, tmp_path, runs=RUNS, workers=WORKERS, judged=RUNS)
    with capsys.disabled():
        sys.stdout.write("\n" + "\n".join(of_runs(figures)) + "\n")
    assert figures.faults == []
    assert figures.key_bytes < BYTES_A_RUN
    assert figures.round_trips_an_enqueue <= ROUND_TRIPS_AN_ENQUEUE
    assert figures.connections_an_enqueue == 0


def test_looking_for_lost_runs_asks_the_same_of_redis_among_few_and_among_many(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    with LocalServices.start(tmp_path / "services") as services:
        few, many = (cost_among(services, leases=leases) for leases in (1, LEASES))
    with capsys.disabled():
        sys.stdout.write("\n" + "\n".join(of_leases(few, many)) + "\n")
    assert few.faults == many.faults == []
    assert few.idle == many.idle
    assert few.adoption == many.adoption


def test_a_worker_asks_the_same_of_redis_in_a_small_fleet_and_in_a_large_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    with LocalServices.start(tmp_path / "services") as services:
        few = load_of(services, workers=1, queued=1, lost=LOST)
        many = load_of(services, workers=FLEET, queued=LEASES, lost=LOST)
    with capsys.disabled():
        sys.stdout.write("\n" + "\n".join(of_workers(few, many)) + "\n")
    assert few.faults == many.faults == []
    assert few.calls() == many.calls()
    most = {
        "announce": 2,
        "renew the lease": 2,
        "ask for the election": 1,
        "remain elected": 1,
        "look, nothing lost": 3,
        "list the workers": 1,
        "look, one lost": 7,
        f"look, {LOST} lost": 3 + 4 * LOST,
    }
    assert [one.name for one in many.operations] == [*most]
    assert [one.name for one in many.operations if one.round_trips > most[one.name]] == []


def test_a_command_over_everything_is_seen(tmp_path: Path) -> None:
    with LocalServices.start(tmp_path / "services") as services, Redis.from_url(services.redis_url) as redis:
        with asked(redis) as counted:
            list(redis.scan_iter("autoseq:*"))
        assert counted.over_everything == ["scan"]
        assert counted.connections == 0
