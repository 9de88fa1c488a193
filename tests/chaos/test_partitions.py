"""A worker that is cut off, and comes back: at any time a run has one owner. `make chaos` has the long form."""

import sys
from pathlib import Path

import pytest

from tests.chaos.hosts import best_form
from tests.chaos.partitions import play

pytestmark = pytest.mark.services


def test_a_worker_that_is_cut_off_loses_its_run_to_one_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = play(tmp_path, "processes", seed=21, repeats=1, cut_s=3.0, scripted_delay_s=0.02)
    with capsys.disabled():
        lines = "\n".join(map(str, reports))
        sys.stdout.write(f"\nworkers as processes behind proxies; `make chaos` here: as {best_form()}\n{lines}\n")
    assert [fault for report in reports for fault in report.faults] == []
    assert len(reports) == 4
