"""`make properties`: the property tests in their long form, or in any other size."""

import argparse
import faulthandler
import os
import signal
import sys
import tempfile
from dataclasses import fields, replace
from pathlib import Path

from tests.properties.campaign import Outcome, Scale, run_all_cases, run_lives, table
from worker.local.services import LocalServices

LONG = Scale(seed=1, steps=10_000, shares=1000)


def main() -> int:
    """Run everything and print what it came to; what does not hold is raised, with its seed."""
    parser = argparse.ArgumentParser(prog="python -m tests.properties", description=__doc__)
    for option in fields(Scale):
        default = getattr(LONG, option.name)
        parser.add_argument(f"--{option.name}", type=int, default=default, help=f"default: {default:,}")
    scale = Scale(**vars(parser.parse_args()))
    os.environ["OMP_NUM_THREADS"] = "1"
    faulthandler.register(signal.SIGUSR1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that no server outlives this
    with tempfile.TemporaryDirectory(prefix="autoseq-properties-") as name:
        folder = Path(name)
        cases = Outcome(scale=scale, tallies=run_all_cases(folder, scale) if scale.shares else ())
        sys.stdout.write(f"{table(cases)}\n")
        sys.stdout.flush()
        if scale.steps:
            with LocalServices.start(folder / "services") as services:
                sys.stdout.write(f"{table(replace(run_lives(services, folder, scale), scale=scale))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
