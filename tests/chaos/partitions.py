"""A worker is cut off from Redis, from S3 or from both in the middle of a run, and comes back later."""

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos.ground import Ground, Report, ground, moments, names
from tests.chaos.hosts import Form, Host, Link, best_form, hosts
from tests.chaos.victims import Fleet, Victim
from tests.faults.proxy import Put
from tests.worker.serving import PREFIX
from worker.local.services import LocalServices

CASES: Final[dict[str, tuple[Link, ...]]] = {"redis": ("redis",), "s3": ("s3",), "both": ("redis", "s3")}
AFTER_ITS_END: Final = "after the end"
IN_MID_RUN: Final = "in mid-run"
CREATED: Final = 200
WORKERS: Final = 2


@dataclass
class Cut:
    """One worker cut off once, and what was seen."""

    case: str
    run_id: str
    healed: str
    taken_over_s: float | None
    """From the cut to the other worker's start; None when the run stayed where it was."""
    stored_late: int = 0
    """Objects that the worker still created between its return and its giving up."""
    faults: list[str] = field(default_factory=list)


class Partition:
    """Two workers on hosts of their own."""

    def __init__(self, on: Ground, sides: Sequence[Host], seed: int, delay_s: float) -> None:
        self.on = on
        self.sides = sides
        self.rng = moments("partition", seed)
        self.delay_s = delay_s
        """How long a cut from S3 lasts at most; one from Redis, beyond what has to be seen before it may end."""
        self.names = names("cut", seed, images=4)

    def cut_once(self, case: str, healed: str) -> Cut:
        """Cut off whoever has a new run, and heal it after the end of the run elsewhere, or before."""
        on, run_id = self.on, next(self.names)
        on.submit(run_id)
        victim = on.who_serves(run_id)
        side = self.sides[self._fleet().victims.index(victim)]
        self._wait_for_its_middle(run_id)
        links, began = CASES[case], time.monotonic()
        side.cut(*links)
        taken_over_s = None
        try:
            if "redis" in links:
                taken_over_s = self._wait_for_another(run_id, victim, began)
            if healed == AFTER_ITS_END:
                on.until_over([run_id])
            time.sleep(self.delay_s * self.rng.uniform(0.2, 1.0))
        finally:
            side.heal()
        back = time.monotonic()
        on.until_over([run_id])
        on.until(lambda: victim.run_id != run_id, f"{victim.name} giving up {run_id}")
        gave_up = time.monotonic()
        seen = Cut(case=case, run_id=run_id, healed=healed, taken_over_s=taken_over_s)
        self._look(seen, side, back, gave_up)
        return seen

    def _fleet(self) -> Fleet:
        assert self.on.fleet is not None
        return self.on.fleet

    def _wait_for_its_middle(self, run_id: str) -> None:
        """Until some moment before half of its steps are begun."""
        share = self.rng.uniform(0, 0.5)

        def is_there() -> bool:
            state = self.on.client.state(run_id)
            return state.steps > 0 and state.step > share * state.steps

        self.on.until(is_there, f"the middle of {run_id}")
        time.sleep(self.rng.uniform(0, 0.2))

    def _wait_for_another(self, run_id: str, victim: Victim, began: float) -> float | None:
        """Until another worker has the run; None when its end came first, just before the cut."""
        others = [one for one in self._fleet().victims if one is not victim]
        self.on.until(
            lambda: any(one.run_id == run_id for one in others) or self.on.is_over(run_id), f"another on {run_id}"
        )
        return time.monotonic() - began if any(one.run_id == run_id for one in others) else None

    def _look(self, seen: Cut, side: Host, back: float, gave_up: float) -> None:
        """That each object was created once, and by whom."""
        folder = f"/{PREFIX}/{seen.run_id}/"
        created = [put for host in self.sides for put in _created(host, folder)]
        times = Counter(put.key for put in created if not put.key.endswith("index.html"))
        if not times:
            seen.faults.append("no put was seen")
        seen.faults += [f"{key} was created {count} times" for key, count in times.items() if count > 1]
        if seen.case == "s3":
            return
        if seen.taken_over_s is None:
            seen.faults.append("was not taken over")
        late = [put for put in _created(side, folder) if put.at > back]
        seen.stored_late = len(late)
        if seen.healed == AFTER_ITS_END:
            seen.faults += [f"{put.key} was stored after the end" for put in late]
        seen.faults += [f"{put.key} was stored by a worker that had given up" for put in late if put.at > gave_up]

    def all_serve_again(self) -> None:
        """Every worker, whatever befell it, takes runs as before."""
        served: set[str] = set()
        fleet = self._fleet()

        def each_has_served() -> bool:
            served.update(one.name for one in fleet.victims if one.run_id)
            if len(served) < WORKERS and sum(not self.on.is_over(run_id) for run_id in asked) < WORKERS:
                asked.append(self.on.submit(next(self.names)))
            return len(served) == WORKERS

        asked: list[str] = []
        self.on.until(each_has_served, "a run on each worker")
        self.on.until_over(asked)


def _created(host: Host, folder: str) -> list[Put]:
    return [put for put in host.proxies["s3"].puts if folder in f"/{put.key}" and put.status == CREATED]


@contextlib.contextmanager
def partition(folder: Path, form: Form, *, seed: int, cut_s: float, **settings: object) -> Iterator[Partition]:
    """Servers, two hosts before them, and a worker on each."""
    with (
        LocalServices.start(folder / "services") as services,
        ground(folder, services, **{"scripted_delay_s": 0.03, **settings}) as on,  # type: ignore[arg-type]
        hosts(WORKERS, form, services.env()) as sides,
    ):
        on.have_workers([side.place for side in sides])
        try:
            yield Partition(on, sides, seed, cut_s)
        finally:
            on.dismiss()


def play(folder: Path, form: Form, *, seed: int, repeats: int, cut_s: float, **settings: object) -> list[Report]:
    """Each case so many times, healed in mid-run and after the end in turn; then the judgement of all runs."""
    with partition(folder, form, seed=seed, cut_s=cut_s, **settings) as stage:
        in_turn = [AFTER_ITS_END, IN_MID_RUN]
        ways = {"redis": in_turn, "s3": [IN_MID_RUN] * 2, "both": in_turn[::-1]}
        cuts = [stage.cut_once(case, ways[case][repeat % 2]) for repeat in range(repeats) for case in CASES]
        stage.all_serve_again()
        judged = stage.on.faults(stage.on.runs)
    reports = [_report(form, case, [cut for cut in cuts if cut.case == case]) for case in CASES]
    return [*reports, Report(name=f"{form}: all", figures=f"{len(stage.on.runs)} runs judged", faults=judged)]


def _report(form: Form, case: str, cuts: Sequence[Cut]) -> Report:
    times = [cut.taken_over_s for cut in cuts if cut.taken_over_s is not None]
    took = f"taken over {len(times)} x within {max(times):.1f} s" if times else "taken over 0 x"
    healed = Counter(cut.healed for cut in cuts)
    ways = ", ".join(f"{healed[way]} x {way}" for way in sorted(healed))
    late = sum(cut.stored_late for cut in cuts)
    return Report(
        name=f"{form}: cut from {case}",
        figures=f"{len(cuts)} x, healed {ways}; {took}; {late} objects stored between return and giving up",
        faults=[f"{cut.run_id}: {fault}" for cut in cuts for fault in cut.faults],
    )


def main() -> int:
    """The partitions in their long form; 0 when nothing is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.partitions", description=__doc__)
    parser.add_argument("--repeats", type=int, default=6, help="of each case; default: 6")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cut-s", type=float, default=12.0, help="how long a cut lasts; default: 12")
    parser.add_argument("--model", default="scripted")
    parser.add_argument("--form", choices=["namespaces", "processes"], help="default: namespaces where possible")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # as the workers have: the same sums in the same order
    folder = Path(tempfile.mkdtemp(prefix="autoseq-partitions-"))
    form = given.form or best_form()
    reports = play(folder, form, seed=given.seed, repeats=given.repeats, cut_s=given.cut_s, model=given.model)
    sys.stdout.write("\n".join(map(str, reports)) + f"\nlogs: {folder}\n")
    return 1 if any(report.faults for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
