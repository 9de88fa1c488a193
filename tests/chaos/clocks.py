"""A worker's wall clock jumps an hour, forth and back, while it runs and while it waits."""

import time
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.ground import Ground, Report, moments, names
from tests.chaos.victims import Place

HOUR_S = 3600
WORKERS = 2


def _clocks(folder: Path) -> list[Path]:
    return [folder / f"clock-{place}" for place in range(WORKERS)]


def places(folder: Path) -> Sequence[Place]:
    """One for each worker, each with a clock that is right at first."""
    for clock in _clocks(folder):
        clock.write_text("0")
    return [Place(env={"CHAOS_CLOCK": str(clock)}) for clock in _clocks(folder)]


def jumping_clocks(on: Ground, *, seed: int, jumps: int) -> Report:
    """In the middle of a run its worker's clock jumps, or the other's, which waits; and then back."""
    fleet = on.have_workers(places(on.folder))
    rng, fresh = moments("clock", seed), names("clock", seed, images=4)
    runs: list[str] = []
    faults: list[str] = []
    kept = 0
    for number in range(jumps):
        run_id = on.submit(next(fresh))
        runs.append(run_id)
        owner = fleet.victims.index(on.who_serves(run_id))
        whose = owner if number % 2 == 0 else 1 - owner
        clock = _clocks(on.folder)[whose]
        time.sleep(rng.uniform(0, 1))
        off = 0 if float(clock.read_text()) else rng.choice([HOUR_S, -HOUR_S])
        written = clock.with_suffix(".new")
        written.write_text(str(off))
        written.rename(clock)
        on.until_over([run_id])
        starts = [event for event in on.events(run_id) if event["type"] == "started"]
        kept += len(starts) == 1
        if len(starts) != 1:
            faults.append(f"{run_id}: started {len(starts)} times: a claim lapsed before its time")
    for clock in _clocks(on.folder):
        clock.write_text("0")
    return Report(
        name="clocks that jump an hour",
        figures=f"{jumps} jumps, {kept} runs stayed with their worker",
        faults=[*faults, *on.faults(runs)],
    )
