"""The fault campaign in its short form: `make chaos` is the long one."""

import sys
from pathlib import Path

import pytest

from tests.chaos import faults
from tests.chaos.campaign import run_campaign
from tests.chaos.faults import Scale
from tests.chaos.table import table
from tests.chaos.victims import UNAVAILABLE, UNHEALTHY

SHORT = Scale(
    seed=20,
    kills=60,
    kill_pause_s=0.8,
    drains=2,
    hangups=1,
    shutdowns=1,
    duplicates=2,
    wrong_arguments=2,
    revokes=2,
    garbage=6,
    freezes=2,
    redis_restarts=2,
    redis_outages=1,
    redis_outage_s=4.0,
    redis_pauses=2,
    redis_pause_s=4.0,
    redis_refusals=1,
    s3_each=2,
    s3_fault_s=2.0,
    s3_refusals=1,
    refusal_s=3.0,
)


@pytest.mark.services
def test_nothing_is_lost_or_doubled_whatever_befalls_workers_and_services(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = run_campaign(SHORT, tmp_path)
    with capsys.disabled():
        sys.stdout.write(f"\n{table(outcome)}\n")
    assert outcome.verdict.faults() == []
    assert set(outcome.own_exits) <= {UNAVAILABLE, UNHEALTHY}
    kinds = {one.kind for one in outcome.struck}
    assert kinds >= {*faults.DRAINS, faults.DUPLICATE, faults.WRONG_ARGUMENTS, faults.REVOKE, faults.GARBAGE}
    assert kinds >= {
        faults.REDIS_RESTART,
        *faults.REDIS_REFUSALS,
        faults.S3_RESTART,
        faults.S3_REFUSED,
        *faults.S3_MODES,
    }
    kills = [one for one in outcome.struck if one.kind in faults.KILLS]
    assert len(kills) + outcome.unmet >= SHORT.kills
    assert len(kills) > SHORT.kills / 2


def test_a_seed_is_a_schedule() -> None:
    assert faults.worker_faults(SHORT) == faults.worker_faults(SHORT)
    assert faults.service_faults(SHORT) == faults.service_faults(SHORT)
    assert {fault.kind for fault in faults.worker_faults(SHORT)} >= set(faults.KILLS)
