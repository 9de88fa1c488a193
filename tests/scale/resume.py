"""How long a run of many commits takes to resume on a slow store: a real worker, S3 behind a delaying proxy.

python -m tests.scale.resume --commits 1000 --latency-ms 100 --lease-s 6
"""

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from core.events import Event
from core.plan import plan
from recipes.load import load
from storage.events import Queued, Started, StepStarted
from storage.objects.memory import MemoryStore
from storage.objects.s3 import S3Store
from tests.faults.proxy import FaultProxy
from tests.worker.serving import PREFIX, WorkerProcess, env_of, make_run, ready_worker, recipe, request
from worker.client import Client
from worker.errors import RunCancelled
from worker.local.services import LocalServices

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def long_recipe(memory: int | None) -> dict[str, Any]:
    """A thousand steps: 256 texts that are read, then 64 images, each with its texts and drawn nine times."""
    context = [{"text": f"Line {number}"} for number in range(256)]
    window: dict[str, Any] = {"max_context_items": memory, "pin": "none"} if memory else {}
    return recipe(context=context, num_images=64, retry={"below": 1.0, "times": 8}, **window)


def leave_commits(objects: S3Store, run_id: str, document: dict[str, Any], commits: int) -> None:
    """What a worker leaves that dies after `commits` steps of the run."""
    whole = MemoryStore()

    def stop(event: Event | None = None) -> None:
        if event is not None and event.step.number > commits:
            raise RunCancelled

    with contextlib.suppress(RunCancelled):
        make_run(request(run_id, document), whole, checkpoint=stop)
    put = partial(objects.put, content_type="application/octet-stream")
    with ThreadPoolExecutor(16) as writers:
        list(writers.map(lambda key: put(key, whole.get(key)), whole.list("")))


def resume(services: LocalServices, folder: Path, given: argparse.Namespace) -> list[str]:
    """Resume a run until its first new step starts. The figures as lines."""
    document, run_id = long_recipe(given.memory), "resumed"
    steps = len(plan(load(document)))
    commits = min(given.commits, steps - 1)
    objects = S3Store(services.s3_settings)
    leave_commits(objects, run_id, document, commits)
    objects.close()
    env = env_of(services, 0, lease_s=given.lease_s)
    with FaultProxy(int(env["AUTOSEQ_S3_ENDPOINT"].rpartition(":")[2])) as proxy:
        through_proxy = env | {"AUTOSEQ_S3_ENDPOINT": proxy.endpoint}
        with ready_worker(through_proxy, folder / "log") as worker, Client(worker.config) as client:
            client.result(client.submit(recipe()), timeout_s=60)  # the worker has loaded everything
            proxy.delay_s = given.latency_ms / 1000
            proxy.requests.clear()
            used_s, began = _cpu_s(worker), time.monotonic()
            client.submit(document, run_id=run_id)
            events = client.watch(run_id)
            seen = [next(events)]
            while not isinstance(seen[-1], StepStarted):
                seen.append(next(events))
            took_s, used_s = time.monotonic() - began, _cpu_s(worker) - used_s
            requests = Counter(one for one in proxy.requests if f"{PREFIX}/{run_id}/" in one or "prefix=" in one)
            proxy.delay_s = 0
            client.result(run_id, timeout_s=600)
            starts = [event for event in client.watch(run_id) if isinstance(event, Started | Queued)]
    first = seen[-1]
    assert isinstance(first, StepStarted)
    return [
        f"{commits:,} commits of {steps:,} steps, {given.latency_ms:g} ms a request, lease {given.lease_s:g} s, "
        f"context of {given.memory or 'all'} items",
        f"first new step, {first.step}, after {took_s:.1f} s; processor time of the child {used_s:.1f} s",
        f"requests until then: {requests.total():,}, for {len(requests):,} objects; of one at most "
        f"{max(requests.values())}",
        f"starts of the run: {sum(isinstance(one, Started) for one in starts)}, queued "
        f"{sum(isinstance(one, Queued) for one in starts)}",
    ]


def _cpu_s(worker: WorkerProcess) -> float:
    """The processor time of the child so far."""
    fields = [Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split() for child in worker.children()]
    return sum(int(one[11]) + int(one[12]) for one in fields) / TICKS_A_SECOND


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.scale.resume", description=__doc__)
    parser.add_argument("--commits", type=int, default=1000)
    parser.add_argument("--latency-ms", type=float, default=100)
    parser.add_argument("--lease-s", type=float, default=20)
    parser.add_argument("--memory", type=int, help="max_context_items; default: the context has everything")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="autoseq-resume-"))
    with LocalServices.start(folder / "services") as services:
        sys.stdout.write("\n".join(resume(services, folder, given)) + "\n")


if __name__ == "__main__":
    main()
