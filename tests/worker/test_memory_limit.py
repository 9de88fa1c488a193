"""A process that runs out of memory, by a limit of its own or by the kernel's hand, costs its run an attempt alone."""

import contextlib
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from storage.events import Queued, Started
from tests.chaos.ground import Ground, ground
from tests.chaos.victims import Place, Victim
from tests.worker.serving import DEADLINE_S, eventually, recipe
from worker.errors import RunFailed
from worker.local.services import LocalServices

pytestmark = pytest.mark.services

DATABASE = 12
ATTEMPTS = 2
LIMIT_BYTES = 700 * 2**20
CONTROL_GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, kw_only=True)
class Limited:
    """A worker whose memory is limited, and what its run leaves when it is used up."""

    on: Ground
    worker: Victim

    def starving(self, run_id: str, step: str) -> str:
        """A run that takes all memory at this step, or `once`."""
        assert self.on.fleet is not None
        (self.on.fleet.folder / "hunger" / run_id).write_text(step)
        return self.on.submit(run_id, recipe())

    def starts(self, run_id: str) -> int:
        return sum(isinstance(event, Started) for event in self.on.client.watch(run_id))

    def reasons(self, run_id: str) -> list[str]:
        return [event.reason for event in self.on.client.watch(run_id) if isinstance(event, Queued) and event.reason]


@contextlib.contextmanager
def _limited(services: LocalServices, folder: Path, inside: Sequence[str]) -> Iterator[Limited]:
    with ground(folder, services, database=DATABASE, lease_s=2.0, max_attempts=ATTEMPTS) as on:
        fleet = on.have_workers([Place(inside=inside)])
        (worker,) = fleet.victims
        yield Limited(on=on, worker=worker)
        assert not worker.has_ended, worker.output
        assert fleet.stop() == [0], worker.output


def _serves_all_but_the_run_that_takes_all_memory(limited: Limited) -> tuple[str, str]:
    """What both limits come to; the ids of the run that took all memory once, and of the one that always does."""
    on, name = limited.on, uuid.uuid4().hex[:8]
    once, always = limited.starving(f"once-{name}", "3 once"), limited.starving(f"always-{name}", "1")
    good = [on.submit(f"good-{name}-{number}", recipe()) for number in range(2)]
    for run_id in (once, *good):
        on.client.result(run_id, timeout_s=DEADLINE_S)
    with pytest.raises(RunFailed, match="giving up after 2 attempts without progress past step 0"):
        on.client.result(always, timeout_s=DEADLINE_S)
    assert [limited.starts(run_id) for run_id in (once, always, *good)] == [2, ATTEMPTS, 1, 1]
    assert on.faults([once, *good], recipe=recipe()) == []
    return once, always


def test_an_allocation_that_fails_costs_an_attempt_and_not_the_worker(services: LocalServices, tmp_path: Path) -> None:
    inside = ("sh", "-c", f'ulimit -v {LIMIT_BYTES // 1024}; exec "$@"', "sh")
    with _limited(services, tmp_path, inside) as limited:
        once, always = _serves_all_but_the_run_that_takes_all_memory(limited)
        assert limited.reasons(once) == ["out of memory in step 3"]
        assert limited.reasons(always) == ["out of memory in step 1"] * ATTEMPTS


def test_a_child_that_the_kernel_ends_for_memory_costs_an_attempt_and_not_the_worker(
    services: LocalServices, tmp_path: Path
) -> None:
    with _memory_group(LIMIT_BYTES) as group, _limited(services, tmp_path, group.inside) as limited:
        _serves_all_but_the_run_that_takes_all_memory(limited)
        assert group.killed() == 1 + ATTEMPTS
        assert limited.worker.output.count("Worker exited prematurely: signal 9 (SIGKILL)") > ATTEMPTS


@dataclass(frozen=True, kw_only=True)
class MemoryGroup:
    """A control group whose processes have so much memory between them."""

    folder: Path
    events: str
    """The file that counts how many the kernel has killed."""

    @property
    def inside(self) -> Sequence[str]:
        return ("sh", "-c", f'echo $$ > {self.folder}/cgroup.procs; exec "$@"', "sh")

    def killed(self) -> int:
        found = re.search(r"^oom_kill (\d+)$", (self.folder / self.events).read_text(), re.MULTILINE)
        assert found is not None
        return int(found[1])


@contextlib.contextmanager
def _memory_group(limit_bytes: int) -> Iterator[MemoryGroup]:
    """A group below our own (version 1) or beside it (version 2, where only leaves have processes)."""
    ours = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    if "memory" in ours:
        above, limit, events = CONTROL_GROUPS / "memory" / ours["memory"][1:], "limit_in_bytes", "oom_control"
    else:
        above, limit, events = (CONTROL_GROUPS / ours.get("", "/")[1:]).parent, "max", "events"
    folder = above / f"autoseq-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir()
        (folder / f"memory.{limit}").write_text(str(limit_bytes))
    except OSError as error:
        with contextlib.suppress(OSError):
            folder.rmdir()
        pytest.skip(f"no control group with a limit of memory can be made here: {error}")
    try:
        yield MemoryGroup(folder=folder, events=f"memory.{events}")
    finally:
        eventually(lambda: not (folder / "cgroup.procs").read_text(), "the end of the group's processes")
        folder.rmdir()
