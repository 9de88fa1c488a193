"""A worker that is faulty gives its runs back, says why and ends; the others complete them."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from storage import keys
from storage.events import Queued
from storage.objects.s3 import S3Store
from tests.faults.proxy import FaultProxy
from tests.worker.serving import (
    DEADLINE_S,
    WorkerProcess,
    env_of,
    objects_of,
    recipe,
    request,
    undisturbed,
)
from worker.client import Client
from worker.local.services import LocalServices
from worker.serve.parent import EXIT_UNHEALTHY
from worker.settings import PROJECT

pytestmark = pytest.mark.services

DATABASE = 11
FAST = {"reconcile_interval_s": 0.25, "visibility_timeout_s": 5, "lease_s": 3, "model_name": "scripted"}
CANT_START = """
import os, sys
if "from billiard.spawn import spawn_main" in " ".join(sys.orig_argv): os._exit(1)
"""


def reasons(client: Client, run_id: str) -> list[str]:
    """Why workers gave the run back."""
    stream: Any = client.redis.xrange(keys.run_events(run_id))
    events = [json.loads(fields["event"]) for _id, fields in stream]
    return [event["reason"] for event in events if event["type"] == Queued.type and event.get("reason")]


@contextmanager
def workers_of(*workers: WorkerProcess) -> Iterator[None]:
    try:
        for worker in workers:
            worker.wait_until_ready()
        yield
    finally:
        for worker in workers:
            worker.kill()


def test_faulty_workers_lose_and_charge_no_run_and_end_with_their_reasons(
    services: LocalServices, s3_store: S3Store, tmp_path: Path
) -> None:
    folder = shutil.copytree(PROJECT / "models" / "tiny-bagel", tmp_path / "model")
    with FaultProxy(int(services.env()["AUTOSEQ_S3_ENDPOINT"].rpartition(":")[2])) as proxy:
        env = env_of(services, DATABASE, scripted_delay_s=0.005, **FAST)
        stale_keys = WorkerProcess({**env, "AUTOSEQ_S3_ENDPOINT": proxy.endpoint}, tmp_path / "1", "-n", "stale@test")
        no_model = WorkerProcess({**env, "AUTOSEQ_MODEL": str(folder)}, tmp_path / "2", "-n", "no-model@test")
        healthy = WorkerProcess(env, tmp_path / "3", "-n", "healthy@test")
        with workers_of(stale_keys, no_model, healthy), Client(healthy.config) as client:
            proxy.mode = "403"
            shutil.rmtree(folder)
            runs = [client.submit(recipe(seed=seed)) for seed in range(10)]
            for run_id in runs:
                assert client.result(run_id, timeout_s=DEADLINE_S)["state"] == "succeeded"
            more: list[str] = []
            while not (stale_keys.has_ended and no_model.has_ended):
                more.append(client.submit(recipe()))
                client.result(more[-1], timeout_s=DEADLINE_S)
            assert [worker.process.wait() for worker in (stale_keys, no_model)] == [EXIT_UNHEALTHY] * 2
            for seed, run_id in enumerate(runs):
                assert objects_of(s3_store, run_id) == undisturbed(request(run_id, recipe(seed=seed)))
            given_back = [reason for run_id in runs + more for reason in reasons(client, run_id)]
            assert len(given_back) == 6, "three for each of them"
            charged = [client.redis.hget(keys.run_state(run_id), "attempts") for run_id in runs + more]
            assert charged == ["1"] * len(charged), "only the attempt that succeeded"
            listed = {worker.name: worker for worker in client.workers()}
    assert {name: worker.state for name, worker in listed.items()} == {
        "stale@test": "unhealthy",
        "no-model@test": "unhealthy",
        "healthy@test": "idle",
    }
    assert "this worker has no access to the bucket of the runs: s3://" in listed["stale@test"].reason
    assert "this worker's model can't be used" in listed["no-model@test"].reason
    for worker in (stale_keys, no_model):
        assert worker.output.count("this worker is unhealthy and ends") == 1
