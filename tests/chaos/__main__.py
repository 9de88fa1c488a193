"""`make chaos`: the fault campaigns in their long form, or in any other size."""

import argparse
import faulthandler
import os
import signal
import sys
import tempfile
from dataclasses import fields
from pathlib import Path

from tests.chaos.campaign import run_campaign
from tests.chaos.faults import Scale
from tests.chaos.table import table

LONG = Scale(
    seed=1,
    kills=1000,
    drains=160,
    hangups=20,
    shutdowns=20,
    duplicates=200,
    wrong_arguments=50,
    revokes=20,
    garbage=50,
    freezes=100,
    redis_restarts=50,
    redis_outages=50,
    redis_pauses=20,
    redis_refusals=10,
    s3_each=20,
    s3_refusals=10,
)


def main() -> int:
    """Run one campaign and print its table; 0 when nothing was lost, doubled, differing or left behind."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    for option in fields(Scale):
        default = getattr(LONG, option.name)
        name = "--" + option.name.replace("_", "-")
        parser.add_argument(name, type=type(default), default=default, help=f"default: {default}")
    parser.add_argument("--folder", type=Path, help="where logs and data are kept; default: a new one, which stays")
    given = vars(parser.parse_args())
    folder = given.pop("folder") or Path(tempfile.mkdtemp(prefix="autoseq-chaos-"))
    os.environ["OMP_NUM_THREADS"] = "1"  # as the workers have: the same sums in the same order
    faulthandler.register(signal.SIGUSR1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that no worker outlives the campaign
    outcome = run_campaign(Scale(**given), folder)
    sys.stdout.write(f"{table(outcome)}\nlogs: {folder}\n")
    return 0 if outcome.verdict.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
