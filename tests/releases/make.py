"""`python -m tests.releases.make OUT`: write to OUT what this release leaves behind, with runs in every state.

Real workers serve the runs, one worker at a time. Those that leave a run in flight are killed with SIGKILL.
"""

import argparse
import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis

from storage import keys
from storage.objects import ObjectStore
from tests.releases.restore import BUCKET, PREFIX, REDIS, dump_bucket, dump_redis, restore_bucket, restore_redis
from tests.worker.serving import WorkerProcess, config_of, eventually
from worker.client import Client
from worker.local.services import LocalServices
from worker.settings import PROJECT

TINY = PROJECT / "models" / "tiny-bagel"
EDIT = PROJECT / "recipes" / "edit-photo.yaml"
LEASE_S = 900
"""Longer than the whole program takes, so that no worker takes over the runs of killed workers."""
SLOW = {"scripted_delay_s": 0.03, "preview_interval_s": 0.05}
"""A step takes a quarter of a second, and has previews."""
RUN_DEADLINE_S = 300.0
TINY_SIZES = {"image": {"num_timesteps": 12}, "text": {"max_new_tokens": 16}}
SEND_TASK = """
import json, sys
from worker.app import app
app.send_task("worker.run", kwargs=json.loads(sys.argv[2]), task_id=sys.argv[1])
"""
"""Submits as a program does that uses Celery alone; `celery call` does the same, but can't choose the id."""


def recipe(**fields: object) -> dict[str, Any]:
    """A recipe of nine steps."""
    return {"name": "story", "context": [{"text": "A cat"}], "num_images": 3, "think": True, "seed": 5, **fields}


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Redis, S3, a client and workers."""

    env: Mapping[str, str]
    client: Client
    redis: Redis
    """A client without decode_responses, as snapshots need it."""
    logs: Iterator[Path]

    @staticmethod
    @contextmanager
    def start(folder: Path, *, lease_s: int) -> Iterator["Stack"]:
        """Start the servers over an empty `folder`; no worker yet."""
        with LocalServices.start(folder) as services, Redis.from_url(services.redis_url) as redis:
            limits = {"AUTOSEQ_LEASE_S": str(lease_s), "AUTOSEQ_VISIBILITY_TIMEOUT_S": str(lease_s)}
            env = {**services.env(), "AUTOSEQ_MODEL": "scripted", "AUTOSEQ_S3_PREFIX": PREFIX, **limits}
            logs = (folder / f"worker-{number}.log" for number in itertools.count())
            with Client(config_of(env)) as client:
                yield Stack(env=env, client=client, redis=redis, logs=logs)

    @contextmanager
    def worker(self, **settings: object) -> Iterator[WorkerProcess]:
        """A worker that is ready; it is stopped at the end unless it was killed."""
        given = {f"AUTOSEQ_{name.upper()}": str(value) for name, value in settings.items()}
        worker = WorkerProcess({**self.env, **given}, next(self.logs))
        try:
            worker.wait_until_ready()
            yield worker
        finally:
            worker.stop()

    def send_task(self, run_id: str, **kwargs: object) -> None:
        """Queue a run without the client."""
        command = [sys.executable, "-c", SEND_TASK, run_id, json.dumps(kwargs)]
        subprocess.run(command, env={**os.environ, **self.env}, cwd=PROJECT, check=True)

    def wait_for_end(self, run_id: str) -> None:
        eventually(lambda: self.client.state(run_id).is_final, f"the end of {run_id}", deadline_s=RUN_DEADLINE_S)

    def wait_for_commit(self, run_id: str, step: int) -> None:
        commit = keys.run_folder(PREFIX, run_id) + keys.commit(step)
        eventually(lambda: self.client.objects.exists(commit), commit, deadline_s=RUN_DEADLINE_S)

    def kill_after(self, run_id: str, step: int, **settings: object) -> None:
        """Serve what is queued until the run has committed `step`, then kill the worker."""
        with self.worker(**(settings or SLOW)) as worker:
            self.wait_for_commit(run_id, step)
            worker.kill()

    def kill_before_commit(self, run_id: str, images: Mapping[int, str]) -> None:
        """Kill the worker when an object of a step is stored and its commit is not.

        Args:
            run_id: the run.
            images: for each step that may be the one: the name of its first object.
        """
        folder = keys.run_folder(PREFIX, run_id)
        objects = self.client.objects
        with self.worker(**SLOW) as worker:
            for step, name in images.items():
                while not objects.exists(folder + name):  # without a pause: the commit follows within milliseconds
                    pass
                (child,) = worker.children()
                os.kill(child, signal.SIGSTOP)
                time.sleep(0.2)  # what it had sent is stored
                if not objects.exists(folder + keys.commit(step)):
                    worker.kill()
                    return
                os.kill(child, signal.SIGCONT)
        raise TimeoutError(f"{run_id}: each step was committed before its worker could be stopped")


def finish_some(stack: Stack) -> None:
    """Make runs in every final state, among them a sweep and a branch."""
    client = stack.client
    with stack.worker(model=TINY):
        client.submit(recipe(model="tiny-bagel", num_images=2, **TINY_SIZES), run_id="done-tiny")
        stack.wait_for_end("done-tiny")
    with stack.worker():
        client.submit(recipe(), run_id="done")
        client.submit(EDIT, run_id="edited", dedupe=True)
        stack.send_task("refused", recipe="any-place", overrides={"num_images": 0})
        sweep = client.sweep(recipe(num_images=1), {"seed": [1, 2], "think": [True, False]}, sweep_id="grid")
        for run_id in ("done", "edited", "refused", *sweep.run_ids):
            stack.wait_for_end(run_id)
        client.branch("done", at=6, run_id="done-branch", overrides={"seed": 9})
        stack.wait_for_end("done-branch")
    with stack.worker(**SLOW, run_timeout_s=1):
        client.submit(recipe(), run_id="failed")
        stack.wait_for_end("failed")
    with stack.worker(**SLOW):
        client.submit(recipe(), run_id="cancelled")
        stack.wait_for_commit("cancelled", 3)
        client.cancel("cancelled")
        stack.wait_for_end("cancelled")


def leave_in_flight(stack: Stack) -> None:
    """Make runs in every kind of sequence and kill the worker of each before it ends."""
    client = stack.client
    client.submit(recipe(num_images=8, variations_per_image=4), run_id="inflight")
    stack.kill_before_commit("inflight", {step: keys.step_image(step) for step in range(6, 25, 3)})
    client.submit(recipe(model="tiny-bagel", num_images=2, **TINY_SIZES), run_id="inflight-tiny")
    stack.kill_after("inflight-tiny", 3, model=TINY)
    client.submit(EDIT, overrides={"num_images": 4, "think": True}, run_id="inflight-input")
    stack.kill_after("inflight-input", 5)
    client.submit(recipe(num_images=2, variations_per_image=2, select="tree"), run_id="tree")
    stack.kill_after("tree", 6)
    judged = recipe(variations_per_image=2, select="judge", retry={"below": 1.0, "times": 2})
    client.submit(judged, run_id="judged")
    stack.kill_after("judged", 4)
    client.submit(recipe(num_images=6, max_context_items=4), run_id="windowed")
    stack.kill_after("windowed", 12)
    client.branch("done", at=6, run_id="inflight-branch", overrides={"num_images": 3})
    stack.kill_after("inflight-branch", 8)


def leave_waiting(stack: Stack) -> None:
    """Make queued runs: handed back by a worker that shut down, part of an unfinished sweep, or never started."""
    client = stack.client
    client.submit(recipe(), run_id="handed-back")
    with stack.worker(**SLOW):
        stack.wait_for_commit("handed-back", 3)
    sweep = client.sweep(recipe(num_images=2), {"seed": [1, 2, 3]}, sweep_id="open", priority="high")
    stack.kill_after(sweep.run_ids[1], 3)
    client.submit(recipe(), run_id="queued")
    client.submit(recipe(seed=6), run_id="with-key", idempotency_key="order-17")
    client.submit(recipe(seed=7), run_id="deduped", dedupe=True)
    client.submit(recipe(seed=8), run_id="withdrawn")
    client.cancel("withdrawn")
    options = {"overrides": {"num_images": 2}, "variables": {"place": "A harbour"}, "priority": "low"}
    stack.send_task("sent", recipe="any-place", **options)


def finish_all(stack: Stack) -> dict[str, dict[str, str]]:
    """Serve every unfinished run; return the SHA-256 of each object that it then has, by run id."""
    run_ids: Any = stack.client.redis.zrange(keys.OPEN_RUNS, 0, -1)
    for model in (TINY, "scripted"):
        served = [run_id for run_id in run_ids if stack.client.state(run_id).model == Path(model).name]
        with stack.worker(model=model):
            for run_id in served:
                stack.wait_for_end(run_id)
    return {run_id: hashes_of(stack.client.objects, run_id) for run_id in sorted(run_ids)}


def hashes_of(objects: ObjectStore, run_id: str) -> dict[str, str]:
    """The SHA-256 of each object of a run, by its name in the run's folder."""
    folder = keys.run_folder(PREFIX, run_id)
    return {key.removeprefix(folder): hashlib.sha256(objects.get(key)).hexdigest() for key in objects.list(folder)}


def hide_paths(file: Path) -> None:
    """Replace the folders of this machine, which are in the tracebacks that Celery stores, by those of a container."""
    text = file.read_text(encoding="utf-8").replace(sys.prefix, "/usr/local").replace(str(PROJECT), "/app")
    file.write_text(text, encoding="utf-8")


def make(out: Path, scratch: Path) -> None:
    """Make the runs, write the snapshot, then finish the runs in a restored copy for `expected.json`."""
    if (out / BUCKET).exists():
        raise SystemExit(f"{out / BUCKET} exists: choose another folder, or delete it")
    with Stack.start(scratch / "first", lease_s=LEASE_S) as stack:
        finish_some(stack)
        leave_in_flight(stack)
        leave_waiting(stack)
        dump_redis(out, stack.redis)
        hide_paths(out / REDIS)
        dump_bucket(out, stack.client.objects)
    with Stack.start(scratch / "second", lease_s=5) as stack:
        restore_redis(out, stack.redis)
        restore_bucket(out, stack.client.objects)
        expected = finish_all(stack)
    (out / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.releases.make", description="Write a release snapshot.")
    parser.add_argument("out", type=Path, help="the folder to write to, such as tests/releases/0.1.0")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # sums in the same order, whatever the number of cores
    with tempfile.TemporaryDirectory(prefix="autoseq-release-") as created:
        make(arguments.out, Path(created))
