"""The scenarios of the issue that are no random faults, in their long form: `python -m tests.chaos.hostile`."""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.chaos.cancels import cancels
from tests.chaos.clocks import jumping_clocks
from tests.chaos.disks import full_disk
from tests.chaos.ground import Ground, Report, ground
from tests.chaos.poison import poison
from tests.chaos.readers import readers
from tests.chaos.submits import one_key
from worker.local.services import LocalServices


def main() -> int:
    """Every scenario, or those that are named; 0 when nothing is wrong."""
    every: dict[str, Callable[[Ground], Report]] = {
        "submits-idle": lambda on: one_key(on, seed=1, threads=40, processes=10, workers=0),
        "submits": lambda on: one_key(on, seed=2, threads=40, processes=10, workers=3),
        "poison": lambda on: poison(on, seed=1, good=100, workers=3),
        "cancels": lambda on: cancels(on, seed=1, runs=60, workers=3, unserved=20),
        "readers": lambda on: readers(on, seed=1, readers=100, cap=None),
        "readers-capped": lambda on: readers(on, seed=1, readers=100, cap=10),
        "clocks": lambda on: jumping_clocks(on, seed=1, jumps=12),
    }
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.hostile", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join([*every, 'disk'])}; default: all")
    wanted = parser.parse_args().names or [*every, "disk"]
    folder = Path(tempfile.mkdtemp(prefix="autoseq-hostile-"))
    bad = False
    with LocalServices.start(folder / "services") as services:
        for name in wanted:
            (folder / name).mkdir()
            if name == "disk":
                report = full_disk(folder / name, services, seed=1, runs=3)
            else:
                # Runs whose clock jumps last until the broker has looked for lapsed claims.
                with ground(folder / name, services, scripted_delay_s=0.05 if name == "clocks" else 0.01) as on:
                    report = every[name](on)
            bad = bad or bool(report.faults)
            sys.stdout.write(f"{report}\n")
            sys.stdout.flush()
    sys.stdout.write(f"logs: {folder}\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
