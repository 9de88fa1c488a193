"""A worker that is faulty gives its runs back, says why and ends; the others complete them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from storage import keys
from storage.events import Queued
from storage.objects.s3 import S3Store
from storage.redis.workers import WorkerInfo
from tests.faults.proxy import FaultProxy
from tests.worker.serving import (
    DEADLINE_S,
    WorkerProcess,
    config_of,
    empty_database,
    env_of,
    eventually,
    long_recipe,
    objects_of,
    recipe,
    request,
    undisturbed,
)
from worker.client import Client
from worker.errors import EXIT_UNHEALTHY
from worker.local.services import LocalServices
from worker.serve.health import STALE_S, Health, problem_of
from worker.settings import PROJECT

pytestmark = pytest.mark.services

DATABASE = 5
FAST = {"reconcile_interval_s": 0.25, "visibility_timeout_s": 5, "lease_s": 3, "model_name": "scripted"}
IN_CHILD = """
import os, sys, time
if "spawn_main" in " ".join(sys.orig_argv):
    import core.scripted
    {code}
"""
"""A sitecustomize.py with code for the child process alone."""
CANT_LOAD = 'os.environ["AUTOSEQ_MODEL"] = "/no/such/folder"'
SLOW_TO_LOAD = """
    def warm_up(self):
        while not os.path.exists({flag!r}):
            time.sleep(0.02)
    core.scripted.ScriptedModel.warm_up = warm_up
"""
DEVICE_FAILS_ONCE = """
    def draw(self, context, settings, *, seeds, draw=core.scripted.ScriptedModel.draw):
        if not os.path.exists({flag!r}):
            open({flag!r}, "w").close()
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return draw(self, context, settings, seeds=seeds)
    core.scripted.ScriptedModel.draw = draw
"""
CANT_START = """
import os, sys, time
if "spawn_main" in " ".join(sys.orig_argv):
    while not os.path.exists({flag!r}):
        time.sleep(0.02)
    os._exit(1)
"""


def reasons(client: Client, run_id: str) -> list[str]:
    """Why workers gave the run back."""
    stream: Any = client.redis.xrange(keys.run_events(run_id))
    events = [json.loads(fields["event"]) for _id, fields in stream]
    return [event["reason"] for event in events if event["type"] == Queued.type and event.get("reason")]


@contextmanager
def all_ready(*workers: WorkerProcess) -> Iterator[None]:
    """Until the block ends; none outlives it."""
    with ExitStack() as stack:
        for worker in workers:
            stack.enter_context(worker)
        for worker in workers:
            worker.wait_until_ready()
        yield


def with_code_in_child(env: Mapping[str, str], folder: Path, code: str) -> dict[str, str]:
    """`env` for a worker whose child process runs `code` when it starts."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(IN_CHILD.format(code=code))
    return {**env, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


def test_faulty_workers_lose_and_charge_no_run_and_end_with_their_reasons(
    services: LocalServices, s3_store: S3Store, tmp_path: Path
) -> None:
    with FaultProxy(int(services.env()["AUTOSEQ_S3_ENDPOINT"].rpartition(":")[2])) as proxy:
        env = env_of(services, DATABASE, scripted_delay_s=0.005, **FAST)
        empty_database(env)
        stale_keys = WorkerProcess({**env, "AUTOSEQ_S3_ENDPOINT": proxy.endpoint}, tmp_path / "1", "-n", "stale@test")
        without_model = with_code_in_child(env, tmp_path / "code", CANT_LOAD)
        no_model = WorkerProcess(without_model, tmp_path / "2", "-n", "no-model@test")
        healthy = WorkerProcess(env, tmp_path / "3", "-n", "healthy@test")
        with all_ready(stale_keys, no_model, healthy), Client(healthy.config) as client:
            proxy.mode = "403"
            runs = [client.submit(recipe(seed=seed)) for seed in range(10)]
            for run_id in runs:
                assert client.result(run_id, timeout_s=DEADLINE_S)["state"] == "succeeded"
            more: list[str] = []

            def have_ended() -> bool:
                more.append(client.submit(recipe()))
                client.result(more[-1], timeout_s=DEADLINE_S)
                return stale_keys.has_ended and no_model.has_ended

            eventually(have_ended, "the end of both faulty workers")
            assert [worker.process.wait() for worker in (stale_keys, no_model)] == [EXIT_UNHEALTHY] * 2
            for seed, run_id in enumerate(runs):
                assert objects_of(s3_store, run_id) == undisturbed(request(run_id, recipe(seed=seed)))
            given_back = [reason for run_id in runs + more for reason in reasons(client, run_id)]
            assert len(given_back) == 3, "a worker without a model takes none"
            charged = [client.redis.hget(keys.run_state(run_id), "attempts") for run_id in runs + more]
            assert charged == ["1"] * len(charged), "only the attempt that succeeded"
            states = {"stale@test": "unhealthy", "no-model@test": "unhealthy", "healthy@test": "idle"}
            eventually(lambda: {one.name: one.state for one in client.workers()} == states, str(states))
            listed = {worker.name: worker for worker in client.workers()}
    assert "this worker has no access to the bucket of the runs: s3://" in listed["stale@test"].reason
    assert "this worker can't load its model" in listed["no-model@test"].reason
    assert "/no/such/folder" in listed["no-model@test"].reason
    assert "received" not in no_model.output
    for worker in (stale_keys, no_model):
        assert worker.output.count("this worker is unhealthy and ends") == 1


def test_a_failed_device_costs_the_child_process_and_no_attempt(
    services: LocalServices, s3_store: S3Store, tmp_path: Path
) -> None:
    env = env_of(services, DATABASE, **FAST)
    empty_database(env)
    code = DEVICE_FAILS_ONCE.format(flag=str(tmp_path / "failed"))
    worker = WorkerProcess(with_code_in_child(env, tmp_path / "code", code), tmp_path / "log")
    with all_ready(worker), Client(worker.config) as client:
        (child,) = worker.children()
        run_id = client.submit(recipe())
        assert client.result(run_id, timeout_s=DEADLINE_S)["state"] == "succeeded"
        assert worker.children() not in ([], [child])
        assert reasons(client, run_id) == [
            "this worker's device failed: CUDA error: an illegal memory access was encountered"
        ]
        assert client.redis.hget(keys.run_state(run_id), "attempts") == "1"
        assert objects_of(s3_store, run_id) == undisturbed(request(run_id))
        assert worker.stop() == 0


def test_a_worker_takes_no_run_before_its_child_process_has_loaded_the_model(
    services: LocalServices, tmp_path: Path
) -> None:
    env = env_of(services, DATABASE, health_file=tmp_path / "health.json", **FAST)
    empty_database(env)
    loaded = tmp_path / "loaded"
    code = SLOW_TO_LOAD.format(flag=str(loaded))
    worker = WorkerProcess(with_code_in_child(env, tmp_path / "code", code), tmp_path / "log")

    def states() -> list[str]:
        return [one.state for one in client.workers()]

    with all_ready(worker), Client(worker.config) as client:
        for is_first in (True, False):  # at the start, and after the child process was killed
            eventually(lambda: states() == ["starting"], "a worker that loads")
            assert problem_of(tmp_path / "health.json", ready=True) == "the worker loads its model"
            assert problem_of(tmp_path / "health.json", ready=False) is None
            run_id = client.submit(recipe())
            assert client.live_workers.served_models() == {"scripted"}, "the run will be taken"
            assert client.app.control.ping(timeout=DEADLINE_S, limit=1), "a worker that loads answers"
            assert client.state(run_id).state == "queued"
            assert worker.received(run_id) == 0
            loaded.touch()
            assert client.result(run_id, timeout_s=DEADLINE_S)["state"] == "succeeded"
            assert client.redis.hget(keys.run_state(run_id), "attempts") == "1"
            eventually(lambda: states() == ["idle"], "a worker that is ready")
            if is_first:
                loaded.unlink()
                worker.kill_child()
        assert worker.stop() == 0


def test_a_worker_whose_child_process_cannot_start_ends_and_gives_its_run_back(
    services: LocalServices, tmp_path: Path
) -> None:
    broken_now = tmp_path / "broken"
    (tmp_path / "sitecustomize.py").write_text(CANT_START.format(flag=str(broken_now)))
    env = env_of(services, DATABASE, **FAST)
    empty_database(env)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    broken = WorkerProcess({**env, "PYTHONPATH": path}, tmp_path / "1", "-n", "broken@test")
    with all_ready(broken), Client(broken.config) as client:
        run_id = client.submit(recipe())
        broken_now.touch()
        assert broken.process.wait(DEADLINE_S) == EXIT_UNHEALTHY, broken.output
        (listed,) = [worker for worker in client.workers() if worker.name == "broken@test"]
        assert listed.state == "unhealthy"
        assert "its child process can't start" in listed.reason
        queue_slot = client.runs.record(run_id).queue_slot
        assert client.redis.llen(keys.broker_list(queue_slot)) >= 1, "its message waits for another worker"
        assert client.redis.zcard(keys.BROKER_CLAIMS) == 0


def autoseq(env: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command as a probe runs it."""
    command = [sys.executable, "-m", "worker.cli.main", *arguments]
    return subprocess.run(
        command, env={**os.environ, **env}, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=DEADLINE_S
    )


def test_a_worker_tells_what_it_does_and_its_probes_tell_an_outage_from_its_death(
    services: LocalServices, tmp_path: Path
) -> None:
    direct = env_of(services, DATABASE, scripted_delay_s=0.005, health_file=tmp_path / "health.json", **FAST)
    empty_database(direct)
    url, _, database = direct["AUTOSEQ_REDIS_URL"].rpartition("/")
    host, _, port = url.rpartition(":")
    with FaultProxy(int(port)) as redis_link, Client(config_of(direct)) as client:
        env = {**direct, "AUTOSEQ_REDIS_URL": f"{host}:{redis_link.port}/{database}"}
        worker = WorkerProcess(env, tmp_path / "log", "-n", "told@test")

        def listed() -> WorkerInfo | None:
            return next((one for one in client.workers() if one.name == "told@test"), None)

        def does(state: str, run_id: str | None = None) -> bool:
            return (found := listed()) is not None and (found.state, found.run_id) == (state, run_id)

        with all_ready(worker):
            eventually(lambda: does("idle"), "an idle worker")
            eventually(lambda: autoseq(env, "health", "--ready").returncode == 0, "a ready worker")
            run_id = client.submit(long_recipe())
            eventually(lambda: does("busy", run_id), "a busy worker")
            assert client.live_workers.served_models() == {"scripted"}
            told = json.loads(autoseq(direct, "workers", "--json").stdout)
            assert [(one["name"], one["run_id"], one["steps"]) for one in told] == [("told@test", run_id, 24)]
            head, row = (line.split("\t") for line in autoseq(direct, "workers").stdout.splitlines())
            assert head == ["worker", "model", "device", "state", "run", "step", "since", "reason"]
            assert row[:2] + row[3:5] == ["told@test", "scripted", "busy", run_id]

            redis_link.mode = "off"
            eventually(lambda: autoseq(env, "health", "--ready").returncode == 1, "a worker that is not ready")
            assert "Redis can't be used" in autoseq(env, "health", "--ready").stderr
            assert autoseq(env, "health").stdout == "alive\n"
            client.redis.delete(keys.SPECS, keys.MODELS)
            redis_link.mode = "clear"
            eventually(lambda: autoseq(env, "health", "--ready").returncode == 0, "a ready worker")
            assert client.models().keys() == {"scripted"}, "announced with each heartbeat"

            worker.process.terminate()
            eventually(lambda: does("draining", run_id), "a draining worker")
            assert autoseq(env, "health").returncode == 0
            assert autoseq(env, "health", "--ready").stderr == "error: the worker shuts down\n"
            client.cancel(run_id)
            assert worker.process.wait(DEADLINE_S) == 0
        assert listed() is None
        assert "no such file" in autoseq(env, "health").stderr


def test_a_health_file_is_fresh_by_the_clock_that_all_processes_share(tmp_path: Path) -> None:
    path = tmp_path / "health.json"
    Health(state="busy", monotonic_s=100, unavailable="S3 can't be used").write(path)
    assert problem_of(path, ready=False, monotonic_s=100 + STALE_S / 2) is None
    assert problem_of(path, ready=True, monotonic_s=100) == "S3 can't be used"
    for moment in (100 + STALE_S, 99):  # it stopped, or it is from before the machine started
        assert "last sign of life" in str(problem_of(path, ready=False, monotonic_s=moment))
    Health(state="unhealthy", reason="the disk is full", monotonic_s=100).write(path)
    assert problem_of(path, ready=False, monotonic_s=100) == "the worker is unhealthy: the disk is full"
    path.write_text("[]")
    assert "can't be read" in str(problem_of(path, ready=False))


def test_a_probe_loads_neither_torch_nor_celery(tmp_path: Path) -> None:
    Health(state="idle", monotonic_s=time.monotonic()).write(tmp_path / "health.json")
    env = {"AUTOSEQ_HEALTH_FILE": str(tmp_path / "health.json"), "PYTHONPROFILEIMPORTTIME": "1"}
    probed = autoseq(env, "health")
    assert (probed.returncode, probed.stdout) == (0, "alive\n")
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in probed.stderr.splitlines()}
    assert "worker" in loaded
    assert not loaded & {"torch", "celery", "kombu", "boto3"}
    assert autoseq({}, "health").returncode == 2
