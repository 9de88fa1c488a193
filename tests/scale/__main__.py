"""`make scale`: many runs, many leases and many workers, in their long form or in any other size."""

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.scale.many_leases import Cost, cost_among
from tests.scale.many_runs import RunFigures, many_runs
from tests.scale.many_workers import Load, idle_workers, load_of
from worker.local.services import LocalServices


def main() -> int:
    """Measure and print; 0 when each run happened once and nothing grows with what there is."""
    parser = argparse.ArgumentParser(prog="python -m tests.scale", description=__doc__)
    sizes = {"runs": 10_000, "workers": 4, "leases": 100_000, "judged": 200, "fleet": 1_000, "queued": 100_000}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default: {default}")
    parser.add_argument("--folder", type=Path, help="where logs and data are kept; default: a new one, which stays")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="autoseq-scale-"))
    os.environ["OMP_NUM_THREADS"] = "1"
    logging.getLogger("storage.redis.reconcile").setLevel(
        logging.ERROR
    )  # what is queued again here was left on purpose
    with LocalServices.start(folder / "leases") as services:
        few, many = (cost_among(services, leases=leases) for leases in (1, given.leases))
        sys.stdout.write("\n".join(of_leases(few, many)) + "\n")
        sys.stdout.flush()
    with LocalServices.start(folder / "workers") as services:
        small, large = (
            load_of(services, workers=workers, queued=queued)
            for workers, queued in ((1, 1), (given.fleet, given.queued))
        )
        sys.stdout.write("\n".join(of_workers(small, large)) + "\n")
        idle = idle_workers(services, folder / "idle")
        sys.stdout.write(f"an idle worker, commands a second: {_named(idle, 3600)}\n")
        sys.stdout.flush()
    with LocalServices.start(folder / "runs") as services:
        figures = many_runs(services, folder, runs=given.runs, workers=given.workers, judged=given.judged)
        sys.stdout.write("\n".join(of_runs(figures)) + f"\nlogs: {folder}\n")
    faults = [*few.faults, *many.faults, *small.faults, *large.faults, *figures.faults]
    if small.calls() != large.calls():
        faults.append("an operation asks for other commands among many workers than among few")
    if few.idle != many.idle or few.adoption != many.adoption:
        faults.append("a look asks for other commands among many leases than among few")
    sys.stdout.write("".join(f"{fault}\n" for fault in faults[:50]))
    return 1 if faults else 0


def of_leases(few: Cost, many: Cost) -> list[str]:
    """What looking for lost runs costs, among few and among many."""
    lines = [f"{'leases and waiting runs, of each':<44}{few.leases:>12,}{many.leases:>12,}{'ratio':>8}"]
    for what, unit, one, other in (
        ("a look that finds nothing", "ms", few.idle_ms, many.idle_ms),
        ("  of Redis's processor", "us", few.idle_server_us, many.idle_server_us),
        ("a look that queues one lapsed run again", "ms", few.adoption_ms, many.adoption_ms),
        ("  of Redis's processor", "us", few.adoption_server_us, many.adoption_server_us),
    ):
        lines.append(f"{f'{what}, {unit}':<44}{one:>12.2f}{other:>12.2f}{other / one:>8.2f}")
    for what, calls in (("a look", many.idle), ("an adoption", many.adoption)):
        lines.append(f"commands of {what}: " + ", ".join(f"{name} {count}" for name, count in sorted(calls.items())))
    return lines


def of_workers(few: Load, many: Load) -> list[str]:
    """What a fleet asks of Redis, beside what one worker asks."""
    lines = [
        f"{f'{many.workers:,} workers, {many.queued:,} queued runs':<38}{'us of Redis':>12}{'ratio':>8}{'ms':>8}"
        f"{'trips':>7}{'a second':>10}"
    ]
    for one, other in zip(few.operations, many.operations, strict=True):
        ratio = other.server_us / one.server_us if one.server_us else 0.0
        lines.append(
            f"{other.name:<38}{other.server_us:>12.0f}{ratio:>8.2f}{other.ms:>8.2f}{other.round_trips:>7.1f}"
            f"{other.a_second:>10.1f}  {_named(other.calls)}"
        )
    return [*lines, f"all of these together take {many.redis_share:.1%} of Redis's thread"]


def _named(calls: Mapping[str, int], each: float = 1) -> str:
    return ", ".join(f"{name} {count / each:.3g}" for name, count in sorted(calls.items()))


def of_runs(figures: RunFigures) -> list[str]:
    """What many runs cost."""
    queued, served = figures.runs - 1, max(1, figures.served)
    return [
        f"{figures.runs:,} runs, {figures.workers} workers",
        f"queued: {queued / figures.enqueue_s:,.0f} a second, {figures.round_trips_an_enqueue:.1f} round trips "
        f"and {figures.connections_an_enqueue:.2f} connections each",
        f"with all of them open: the newest 20 in {1000 * figures.recent_s:.2f} ms, "
        f"a reconciler's look in {1000 * figures.look_s:.2f} ms",
        f"served: {served / figures.serve_s:,.1f} a second ({served:,} runs in {figures.serve_s:,.0f} s)",
        f"a run costs the workers {1000 * figures.cpu_s / served:.1f} ms of processor time, "
        f"{1000 * figures.serve_s * figures.workers / served:.0f} ms of a worker's time, "
        f"{figures.round_trips_a_run:.1f} round trips to Redis",
        f"kept in Redis for a run: {figures.key_bytes:,} bytes of keys; used_memory grew by "
        f"{figures.used_bytes / figures.runs:,.0f} bytes a run",
    ]


if __name__ == "__main__":
    sys.exit(main())
