"""A run is continued with the weights that began it, and by no others of the same name."""

import json
import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.scripted import SPEC
from storage import keys
from storage.events import Queued
from storage.objects.s3 import S3Store
from tests.worker.serving import (
    DEADLINE_S,
    PREFIX,
    WorkerProcess,
    config_of,
    env_of,
    eventually,
    objects_of,
    recipe,
    request,
)
from worker.client import Client
from worker.errors import RunNotServable
from worker.jobs.inputs import Sources
from worker.jobs.job import resolve, store
from worker.local.services import LocalServices
from worker.serve.delivery import Delivery, Message
from worker.serve.runtime import WorkerRuntime
from worker.settings import PROJECT

DATABASE = 9
OTHERS = "0" * 64
MODEL = PROJECT / "models" / "tiny-bagel"


def test_a_run_that_other_weights_began_is_given_back_unchanged(
    services: LocalServices, s3_store: S3Store, run_id: str
) -> None:
    runtime = WorkerRuntime.connect(config_of(env_of(services, DATABASE)))
    asked = request(run_id)
    begun = resolve(asked, replace(SPEC, sha256=OTHERS), recipes=PROJECT / "recipes", sources=Sources())
    store(begun, runtime.journal(run_id))
    before = objects_of(s3_store, run_id)
    delivery = Delivery(asked, Message(), runtime)
    with pytest.raises(RunNotServable, match=f"fingerprint {OTHERS}; this worker's model has"):
        delivery.run_to_completion()
    assert objects_of(s3_store, run_id) == before
    state = runtime.runs.state(run_id)
    assert state is not None
    assert state.state == "queued"
    assert runtime.redis.zscore(keys.LEASES, run_id) == 0, "it is queued again at once"
    assert runtime.runs.count_attempt(run_id, 0) == 1, "the run is charged no attempt"
    runtime.redis.delete(*(key(run_id) for key in (keys.run_state, keys.run_events)))
    runtime.redis.zrem(keys.LEASES, run_id)
    runtime.close()


def test_a_worker_with_other_weights_leaves_the_run_to_those_that_began_it(
    services: LocalServices, s3_store: S3Store, tmp_path: Path
) -> None:
    other = shutil.copytree(MODEL, tmp_path / "tiny-bagel")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "note": "trained a little longer"}))
    shared = {"visibility_timeout_s": 5, "lease_s": 3, "model_name": "twice-trained", "cache_dir": tmp_path / "cache"}
    first, second = (env_of(services, DATABASE, model=model, **shared) for model in (MODEL, other))
    with Client(config_of(first)) as client, ExitStack() as workers:
        client.redis.flushdb()

        def start(env: dict[str, str], name: str) -> WorkerProcess:
            return workers.enter_context(WorkerProcess(env, tmp_path / name))

        worker = start(first, "first")
        run_id = client.submit(recipe(num_images=2, image={"num_timesteps": 24}))
        eventually(lambda: "commits/003.json" in objects_of(s3_store, run_id), "a committed image")
        worker.kill()
        stranger = start(second, "second")
        eventually(lambda: reasons(client, run_id), "that it is given back")
        assert "commits/006.json" not in objects_of(s3_store, run_id)
        worker = start(first, "again")
        result = client.result(run_id, timeout_s=DEADLINE_S)
        assert any("was started with model" in reason for reason in reasons(client, run_id))
        assert stranger.stop() == 0
        assert worker.stop() == 0
    assert result["model"] == "twice-trained"
    manifest = json.loads(s3_store.get(f"{PREFIX}/{run_id}/manifest.json"))
    begun = json.loads(s3_store.get(f"{PREFIX}/{run_id}/model.json"))
    assert manifest["model_sha256"] == begun["sha256"]


def reasons(client: Client, run_id: str) -> list[str]:
    """Why workers gave the run back, so far."""
    stream: Any = client.redis.xrange(keys.run_events(run_id))
    events = [json.loads(fields["event"]) for _id, fields in stream]
    return [event["reason"] for event in events if event["type"] == Queued.type and event.get("reason")]
