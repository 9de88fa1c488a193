"""The disk on which uploads wait is full, in a run whose S3 is away: it waits within its bounds, and then goes on."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from storage.redis.state import RunState
from tests.chaos.ground import Report, ground, names
from tests.chaos.hosts import hosts
from tests.chaos.load import recipe_of
from worker.local.services import LocalServices

PENDING_BYTES = 256
DISK_BYTES = 8192
FILE_BYTES = 300
"""Below the size of any image."""
IMAGES = 12
"""Far more than there is room for, wherever in the run S3 falls silent."""
STILL_S = 2.0
"""How long a run is watched that can't go on."""
FULL = "uploads can't be buffered on disk"
"""What a worker logs then."""
_LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
os.execvp(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True, kw_only=True)
class FullDisk:
    """Where uploads wait, and how what is put there meets its end."""

    folder: Path
    kind: str
    inside: tuple[str, ...] = ()
    """A command that runs the worker."""


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[FullDisk]:
    """A file system of two pages where one may be mounted; else files that may not grow."""
    folder.mkdir()
    try:
        size = f"size={DISK_BYTES},mode=700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", str(folder)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        limited = (sys.executable, "-c", _LIMITED, str(FILE_BYTES))
        yield FullDisk(folder=folder, kind="files that may not grow", inside=limited)
        return
    try:
        yield FullDisk(folder=folder, kind="a file system of 8 kB")
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def full_disk(folder: Path, services: LocalServices, *, seed: int, runs: int, database: int = 0) -> Report:
    """In the middle of each run S3 falls silent until the run stands still, and then speaks again."""
    fresh = names("disk", seed)
    recipe = {**recipe_of(f"disk-{seed}"), "num_images": IMAGES, "think": True}
    faults: list[str] = []
    stood: list[str] = []
    with (
        small_disk(folder / "spool") as disk,
        ground(folder, services, database=database, spool_dir=disk.folder, pending_upload_bytes=PENDING_BYTES) as on,
        hosts(1, "processes", on.env) as (host,),
    ):
        on.have_workers([replace(host.place, inside=disk.inside)])
        log = folder / "fleet" / "logs" / "victim0"
        asked = []
        for _ in range(runs):
            run_id = on.submit(next(fresh), recipe)
            asked.append(run_id)
            on.until(lambda one=run_id: on.client.state(one).step >= 3, "its third step")  # type: ignore[misc]
            seen = log.read_text(errors="replace").count(FULL)
            host.cut("s3")
            on.until(lambda: log.read_text(errors="replace").count(FULL) > seen, "a full disk")  # noqa: B023
            step, steps = _standing(on.client.state, run_id)
            if step >= steps:
                faults.append(f"{run_id}: came to its last step, so that the disk was not full")
            stood.append(f"{step} of {steps}")
            host.heal()
            on.until_over([run_id])
        faults += on.faults(asked, recipe=recipe)
        on.dismiss()
    return Report(
        name="full disk", figures=f"{disk.kind}; {runs} runs stood still at step {', '.join(stood)}", faults=faults
    )


def _standing(state: Callable[[str], RunState], run_id: str) -> tuple[int, int]:
    """The step at which the run stands still, and how many it has."""
    step, since = -1, time.monotonic()
    while time.monotonic() - since < STILL_S:
        now = state(run_id)
        if now.step != step:
            step, since = now.step, time.monotonic()
        time.sleep(0.05)
    return step, state(run_id).steps
