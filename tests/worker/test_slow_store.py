"""A store that is slow or hangs: a resume reads each object once, and nothing keeps a shutdown or a cancel."""

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from storage import keys
from storage.events import Queued, Started
from storage.objects.memory import MemoryStore
from storage.objects.s3 import S3Store
from storage.redis.lease import Lease
from storage.redis.progress import Progress
from storage.redis.record import RunRecord
from tests.faults.proxy import FaultProxy
from tests.worker.serving import (
    DEADLINE_S,
    PREFIX,
    WorkerProcess,
    config_of,
    empty_database,
    env_of,
    eventually,
    make_run,
    objects_of,
    picture_uri,
    ready_worker,
    recipe,
    request,
    undisturbed,
)
from worker.client import Client
from worker.errors import ClaimLost, RunHandedBack
from worker.jobs.request import RunRequest
from worker.local.services import LocalServices
from worker.serve.delivery import Delivery, Message
from worker.serve.drain import DrainFlag
from worker.serve.runtime import WorkerRuntime

IN_PROCESS_DATABASE, STOPPED_DATABASE, HUNG_DATABASE = 9, 10, 11
LEASE_S = 200
"""A call to S3 may then hang for longer than a test waits: WorkerRuntime derives its timeout from the lease."""


@pytest.fixture(scope="module")
def proxy(services: LocalServices) -> Iterator[FaultProxy]:
    with FaultProxy(int(services.env()["AUTOSEQ_S3_ENDPOINT"].rpartition(":")[2])) as started:
        yield started


@pytest.fixture
def releasing(proxy: FaultProxy) -> Iterator[None]:
    yield
    proxy.hold = ""
    eventually(lambda: not proxy.held, "all requests released")


def left_by_a_dead_worker(objects: S3Store, runtime: WorkerRuntime, asked: RunRequest, committed: int) -> None:
    """A run in Redis and S3, of which the first steps are committed."""
    whole = MemoryStore()
    make_run(asked, whole)
    for key in whole.list(""):
        folder, name = key.removeprefix(f"{PREFIX}/{asked.run_id}").split("/")[-2:]
        is_left = int(name[:3]) <= committed if folder in {"commits", "steps"} else name[:5] not in {"manif", "index"}
        if is_left:
            objects.put(key, whole.get(key), content_type="application/octet-stream")
    record = RunRecord(run_id=asked.run_id, document=asked.recipe, queue="none", submitted_at=1.0)
    runtime.runs.create(record)
    Progress(runtime.redis, asked.run_id).publish(Started(name="test", model="scripted", steps=20))


def test_a_resume_reads_each_object_once_and_what_only_the_page_needs_last(
    services: LocalServices, proxy: FaultProxy, s3_store: S3Store, run_id: str
) -> None:
    context = [{"text": "A cat"}, {"image": picture_uri()}]
    document = recipe(context=context, num_images=5, max_context_items=5, retry={"below": 0.9, "times": 1})
    asked = request(run_id, document)
    runtime = WorkerRuntime.connect(config_of(env_of(services, IN_PROCESS_DATABASE, s3_endpoint=proxy.endpoint)))
    left_by_a_dead_worker(s3_store, runtime, asked, 12)
    left = list(objects_of(s3_store, run_id))
    proxy.requests.clear()
    Delivery(asked, Message(), runtime).run_to_completion()
    runtime.close()
    assert objects_of(s3_store, run_id) == undisturbed(asked)
    folder = f"/autosequence/{PREFIX}/{run_id}/"
    reads = [one.removeprefix(f"GET {folder}") for one in proxy.requests if one.startswith(f"GET {folder}")]
    assert Counter(reads) == Counter([*left, "manifest.json"])
    assert len([one for one in proxy.requests if one.startswith("GET") and "prefix=" in one]) == 1
    last_object = max(proxy.requests.index(one) for one in proxy.requests if f"PUT {folder}steps/" in one)
    read_last = [one.removeprefix(f"GET {folder}") for one in proxy.requests[last_object:] if one.startswith("GET")]
    assert "steps/004-thinking.txt" in read_last, read_last
    assert not any(name.startswith("commits/") for name in read_last)


@pytest.mark.usefixtures("releasing")
def test_no_step_waits_for_a_put(services: LocalServices, proxy: FaultProxy, s3_store: S3Store, run_id: str) -> None:
    """All steps are computed while the first PUT of the run is under way."""
    folder = f"PUT /autosequence/{PREFIX}/{run_id}/"
    proxy.hold = folder
    proxy.requests.clear()

    def release(step: int, steps: int) -> None:
        if step == steps:
            eventually(lambda: proxy.held, "the first request")
            assert proxy.held == [f"{folder}model.json"]
            proxy.hold = ""

    runtime = WorkerRuntime.connect(config_of(env_of(services, IN_PROCESS_DATABASE, s3_endpoint=proxy.endpoint)))
    Delivery(request(run_id), Message(update_state=release), runtime).run_to_completion()
    runtime.close()
    puts = [one.removeprefix(folder) for one in proxy.requests if one.startswith(folder)]
    assert puts[:2] == ["model.json", "recipe.json"]
    assert puts[-1] == "manifest.json"
    assert objects_of(s3_store, run_id) == undisturbed(request(run_id))


class StolenStore(S3Store):
    """While a commit is read, another worker takes the run."""

    def __init__(self, store: S3Store, runtime: WorkerRuntime, run_id: str) -> None:
        super().__init__(store.settings)
        self.runtime, self.run_id = runtime, run_id
        self.answered = threading.Event()

    def get(self, key: str) -> bytes:
        if "/commits/" in key:
            self.runtime.redis.delete(keys.run_lease(self.run_id))
            Lease(self.runtime.redis, self.run_id, ttl_s=60).acquire()
            assert self.answered.wait(DEADLINE_S)
        return super().get(key)


def test_workers_that_lose_the_run_while_they_resume_it_are_no_failed_attempts(
    services: LocalServices, s3_store: S3Store, run_id: str
) -> None:
    """Only workers that died count; the settings allow three of them."""
    asked = request(run_id)
    runtime = WorkerRuntime.connect(config_of(env_of(services, IN_PROCESS_DATABASE, lease_s=0.2)))
    left_by_a_dead_worker(s3_store, runtime, asked, 1)
    for _ in range(5):
        slow = StolenStore(s3_store, runtime, run_id)
        with pytest.raises(ClaimLost):
            Delivery(asked, Message(), replace(runtime, objects=slow)).run_to_completion()
        slow.answered.set()
        runtime.redis.delete(keys.run_lease(run_id))
    assert Delivery(asked, Message(), runtime).run_to_completion()["state"] == "succeeded"
    assert runtime.redis.hget(keys.run_state(run_id), "attempts") == "1"
    runtime.close()


def test_an_attempt_that_lost_redis_is_refunded_once_redis_is_back(
    services: LocalServices, s3_store: S3Store, run_id: str
) -> None:
    asked = request(run_id)
    env = env_of(services, IN_PROCESS_DATABASE, outage_timeout_s=0.1, lease_s=0.2)
    port = int(services.redis_url.rpartition(":")[2].partition("/")[0])
    with FaultProxy(port) as to_redis:
        url = env["AUTOSEQ_REDIS_URL"].replace(f":{port}/", f":{to_redis.port}/")
        runtime = WorkerRuntime.connect(config_of({**env, "AUTOSEQ_REDIS_URL": url}))
        left_by_a_dead_worker(s3_store, runtime, asked, 1)

        class RedislessStore(S3Store):
            def get(self, key: str) -> bytes:
                to_redis.mode = "off" if "/commits/" in key else to_redis.mode
                return super().get(key)

        for _ in range(5):
            without_redis = Delivery(asked, Message(), replace(runtime, objects=RedislessStore(s3_store.settings)))
            with pytest.raises(RedisError):
                without_redis.run_to_completion()
            to_redis.mode = "clear"
            runtime.redis.delete(keys.run_lease(run_id))
        assert Delivery(asked, Message(), runtime).run_to_completion()["state"] == "succeeded"
        assert runtime.redis.hget(keys.run_state(run_id), "attempts") == "1"
        runtime.close()


@pytest.mark.usefixtures("releasing")
def test_a_run_that_is_handed_back_before_it_was_counted_takes_no_attempt_away(
    services: LocalServices, proxy: FaultProxy, run_id: str, tmp_path: Path
) -> None:
    """Attempts of workers that died stay counted."""
    drain = DrainFlag(tmp_path / "drain")
    drain.raise_()
    runtime = WorkerRuntime.connect(config_of(env_of(services, IN_PROCESS_DATABASE, s3_endpoint=proxy.endpoint)))
    assert [runtime.runs.count_attempt(run_id, 0) for _ in range(2)] == [1, 2]
    proxy.hold = f"{run_id}/manifest.json"
    with pytest.raises(RunHandedBack):
        Delivery(request(run_id), Message(), replace(runtime, drain=drain)).run_to_completion()
    assert runtime.redis.hget(keys.run_state(run_id), "attempts") == "2"
    assert proxy.held


@pytest.fixture(scope="module")
def hung_worker(
    services: LocalServices, proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerProcess]:
    env = env_of(services, HUNG_DATABASE, s3_endpoint=proxy.endpoint, lease_s=LEASE_S, drain_timeout_s=1)
    empty_database(env)
    with ready_worker(env, tmp_path_factory.mktemp("hung") / "log") as worker:
        yield worker


@pytest.mark.usefixtures("releasing")
@pytest.mark.parametrize(
    "where", ["manifest.json", "recipe.json", "PUT {}/inputs", "PUT {}/model.json", "prefix={}", "PUT {}/steps/003"]
)
def test_a_cancel_is_seen_while_s3_hangs(
    proxy: FaultProxy, hung_worker: WorkerProcess, run_id: str, where: str
) -> None:
    """Before the first step, and in mid-run while a step waits for its upload."""
    folder = f"/autosequence/{PREFIX}/{run_id}" if where.startswith("PUT") else f"{PREFIX}%2F{run_id}"
    proxy.hold = where.format(folder)
    direct = {**hung_worker.env, "AUTOSEQ_S3_ENDPOINT": f"http://127.0.0.1:{proxy.upstream_port}"}
    with Client(config_of({name: value for name, value in direct.items() if name.startswith("AUTOSEQ_")})) as client:
        context = [{"image": picture_uri()}, {"text": "A cat"}]
        client.submit(recipe(context=context), run_id=run_id)
        eventually(lambda: proxy.held, f"a request to {proxy.hold}")
        client.cancel(run_id)
        eventually(lambda: client.state(run_id).is_final, "its end, while S3 hangs")
        assert client.state(run_id).state == "cancelled"
        eventually(lambda: not client.redis.exists(keys.run_lease(run_id)), "a free worker, while S3 hangs")
        assert proxy.held


@pytest.mark.usefixtures("releasing")
def test_a_worker_shuts_down_while_s3_hangs_and_another_one_ends_the_run(
    services: LocalServices, proxy: FaultProxy, s3_store: S3Store, run_id: str, tmp_path: Path
) -> None:
    """At once before the first step, though a step may take an hour; in mid-run within the drain timeout."""
    asked = request(run_id)
    env = env_of(services, STOPPED_DATABASE, s3_endpoint=proxy.endpoint, lease_s=LEASE_S, reconcile_interval_s=0.2)
    empty_database(env)
    with Client(config_of(env_of(services, STOPPED_DATABASE))) as client:
        client.submit(asked.recipe, run_id=run_id)
        for where, drain_timeout_s in (("recipe.json", 3600), ("steps/003", 1)):
            proxy.hold = f"{run_id}/{where}"
            with ready_worker(env | {"AUTOSEQ_DRAIN_TIMEOUT_S": str(drain_timeout_s)}, tmp_path / f"{drain_timeout_s}"):
                eventually(lambda: proxy.held, f"a request to {proxy.hold}")
            assert client.state(run_id).state == "queued"
            proxy.hold = ""
            eventually(lambda: not proxy.held, "all requests released")
        with ready_worker(env, tmp_path / "log"):
            assert client.result(run_id, timeout_s=DEADLINE_S)["state"] == "succeeded"
        assert client.runs.state(run_id) is not None
        handed_back = [event for event in client.watch(run_id) if isinstance(event, Queued) and event.reason]
        assert len(handed_back) == 2
        assert client.redis.hget(keys.run_state(run_id), "attempts") == "1"
    assert objects_of(s3_store, run_id) == undisturbed(asked)
