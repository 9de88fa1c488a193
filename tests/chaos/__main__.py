"""`make chaos`: the fault campaigns in their long form, for half an hour, or in any other size."""

import argparse
import faulthandler
import os
import signal
import sys
import tempfile
from dataclasses import fields, replace
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


HALF_HOUR = replace(
    LONG,
    kills=400,
    drains=60,
    hangups=10,
    shutdowns=10,
    duplicates=60,
    wrong_arguments=20,
    revokes=10,
    garbage=30,
    freezes=20,
    redis_restarts=12,
    redis_outages=4,
    redis_outage_s=15.0,
    redis_pauses=6,
    redis_refusals=4,
    s3_each=5,
    s3_refusals=5,
)
SIZES = {"long": LONG, "half-hour": HALF_HOUR}


def main() -> int:
    """Run one campaign and print its table; 0 when nothing was lost, doubled, differing or left behind."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("size", nargs="?", choices=SIZES, default="long", help="what the options below change")
    for option in fields(Scale):
        default = getattr(LONG, option.name)
        name = "--" + option.name.replace("_", "-")
        parser.add_argument(name, type=type(default), default=argparse.SUPPRESS, help=f"long: {default}")
    parser.add_argument("--folder", type=Path, help="where logs and data are kept; default: a new one, which stays")
    given = vars(parser.parse_args())
    size = SIZES[given.pop("size")]
    folder = given.pop("folder") or Path(tempfile.mkdtemp(prefix="autoseq-chaos-"))
    os.environ["OMP_NUM_THREADS"] = "1"  # as the workers have: the same sums in the same order
    faulthandler.register(signal.SIGUSR1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that no worker outlives the campaign
    outcome = run_campaign(replace(size, **given), folder)
    sys.stdout.write(f"{table(outcome)}\nlogs: {folder}\n")
    return 0 if outcome.verdict.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
