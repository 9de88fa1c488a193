"""The broker refuses writes or credentials, holds garbage or is damaged: workers wait, and lose nothing else."""

import base64
import json
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import Any

import pytest
from redis import Redis

from storage import keys
from storage.redis.dead_letters import MAX_MESSAGE_CHARS
from tests.faults.judge import kept
from tests.worker.serving import DEADLINE_S, WorkerProcess, env_of, eventually, ready_worker, recipe
from worker.app import TASK
from worker.client import Client
from worker.local.services import LocalServices

pytestmark = pytest.mark.services

QUEUE = "model.scripted"
SLOT = keys.queue_slot(QUEUE, 3)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Servers of our own to break, a worker that survives it, and a client."""

    services: LocalServices
    worker: WorkerProcess
    client: Client

    @property
    def redis(self) -> Redis:
        return self.client.redis

    @property
    def refused(self) -> int:
        """How many commands Redis has refused."""
        return int(self.redis.info("stats")["total_error_replies"])

    def serves(self) -> bool:
        """Whether the worker completes another run, as the process that it was at first."""
        result = self.client.result(self.client.submit(recipe()), timeout_s=DEADLINE_S)
        return result["state"] == "succeeded" and not self.worker.has_ended

    def eventually_said(self, words: str, since: int) -> None:
        eventually(lambda: words in self.worker.output[since:] or self.worker.has_ended, f"{words!r} in the log")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with LocalServices.start(tmp_path_factory.mktemp("own")) as own:
        env = env_of(own, 0, scripted_delay_s=0.002, visibility_timeout_s=5, lease_s=3, outage_timeout_s=60)
        log = tmp_path_factory.mktemp("broker") / "log"
        with ready_worker(env, log) as worker, Client(worker.config) as client:
            yield Stage(services=own, worker=worker, client=client)


@contextmanager
def noreplicas(stage: Stage) -> Iterator[None]:
    stage.redis.config_set("min-replicas-to-write", 1)
    try:
        yield
    finally:
        stage.redis.config_set("min-replicas-to-write", 0)


@contextmanager
def readonly(stage: Stage) -> Iterator[None]:
    stage.redis.replicaof("127.0.0.1", 1)
    try:
        yield
    finally:
        stage.redis.replicaof("NO", "ONE")


@contextmanager
def oom(stage: Stage) -> Iterator[None]:
    stage.redis.config_set("maxmemory", 1)
    try:
        yield
    finally:
        stage.redis.config_set("maxmemory", 0)


@contextmanager
def misconf(stage: Stage) -> Iterator[None]:
    """Its snapshots fail: a folder is where the file should be."""
    dump = stage.services.data_dir / "redis" / "dump.rdb"
    dump.mkdir()
    try:
        stage.redis.config_set("save", "3600 1")
        stage.redis.bgsave()
        eventually(lambda: stage.redis.info("persistence")["rdb_last_bgsave_status"] == "err", "a failed snapshot")
        yield
    finally:
        dump.rmdir()
        stage.redis.config_set("save", "")


@contextmanager
def other_credentials(stage: Stage) -> Iterator[None]:
    password = stage.redis.config_get("requirepass")["requirepass"]
    with Redis(connection_pool=stage.redis.connection_pool, single_connection_client=True) as known:
        known.config_set("requirepass", "other")
        known.client_kill_filter(_type="normal", skipme=True)
        try:
            yield
        finally:
            known.config_set("requirepass", password)


REFUSALS = {"NOREPLICAS": noreplicas, "READONLY": readonly, "OOM": oom, "MISCONF": misconf}


def refuse_acknowledgement(stage: Stage, kind: str) -> str:
    """A run that ends while Redis refuses all writes; the worker then serves another one."""
    run_id = stage.client.submit(recipe())
    eventually(lambda: stage.client.state(run_id).state == "running", "a run under way")
    stage.worker.process.send_signal(signal.SIGSTOP)
    result = f"autoseq:celery-task-meta-{run_id}"
    eventually(lambda: '"SUCCESS"' in str(stage.redis.get(result)), "its result, which its child stores last")
    with REFUSALS[kind](stage):
        since = len(stage.worker.output)
        stage.worker.process.send_signal(signal.SIGCONT)
        stage.eventually_said("Couldn't ack", since)
        before = stage.refused
        eventually(lambda: stage.refused > before + 3 or stage.worker.has_ended, "what the idle worker asks for")
    assert stage.serves(), kind
    return run_id


def test_a_worker_whose_acknowledgement_is_refused_waits_and_serves_again(stage: Stage) -> None:
    """The runs are delivered again, and have one end."""
    runs = [refuse_acknowledgement(stage, kind) for kind in REFUSALS]
    eventually(lambda: not stage.redis.exists("autoseq:unacked"), "their second deliveries")
    listed = {run.run_id for run in stage.client.list()}
    assert listed >= set(runs)
    for run_id in listed:
        assert [event.type for event in stage.client.watch(run_id)].count("succeeded") == 1


def test_a_worker_whose_credentials_are_refused_for_a_while_continues_its_run_and_serves_again(stage: Stage) -> None:
    run_id = stage.client.submit(recipe(think=False, image={"num_timesteps": 700}))
    eventually(lambda: stage.client.state(run_id).fraction > 0.1, "a run in the middle of an image")
    since = len(stage.worker.output)
    with other_credentials(stage):
        stage.eventually_said("Couldn't reject", since)
    assert stage.client.result(run_id, timeout_s=DEADLINE_S)["state"] == "succeeded"
    assert stage.serves()


def test_a_heartbeat_that_redis_refuses_does_not_block_the_loop_of_the_worker(stage: Stage) -> None:
    """Celery would try again until Redis is back, and see no shutdown meanwhile."""
    app = stage.client.app
    with app.connection_for_write() as connection, app.events.Dispatcher(connection, hostname="any") as events:
        events.send("worker-online")
        with other_credentials(stage):
            sending = Thread(target=events.send, args=["worker-heartbeat"], kwargs={"retry": True}, daemon=True)
            sending.start()
            sending.join(DEADLINE_S / 6)
            assert not sending.is_alive()
        events.flush()
    assert stage.serves()


def message(**changed: object) -> dict[str, Any]:
    """A message as Celery publishes it, without a recipe; `changed` replaces its parts."""
    sent: dict[str, Any] = {
        "body": body([[], {"recipe": recipe()}, {}]),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"id": "garbage", "task": TASK},
        "properties": {
            "body_encoding": "base64",
            "delivery_info": {"exchange": "", "routing_key": QUEUE},
            "delivery_tag": "garbage",
        },
    }
    return sent | changed


def body(content: object) -> str:
    return base64.b64encode(json.dumps(content).encode()).decode()


GARBAGE: dict[str, str | bytes | dict[str, Any]] = {
    "nothing": "",
    "no JSON": "{",
    "no UTF-8": b"\xff\xfe",
    "null": "null",
    "a number": "17",
    "a list": "[]",
    "deep": "[" * 100_000,
    "30 MB": "x" * 30_000_000,
    "no properties": {"body": ""},
    "no headers": message(headers=None),
    "no id": message(headers={"task": TASK}),
    "an id that is none": message(headers={"id": {"a": 1}, "task": TASK}),
    "no task": message(headers={"id": "garbage"}),
    "another task": message(headers={"id": "garbage", "task": "worker.other"}),
    "no base64": message(body="a"),
    "base64 of no JSON": message(body=base64.b64encode(b"junk").decode()),
    "no body": message(body=""),
    "another content type": message(**{"content-type": "application/x-python-serialize"}),
    "no content type": message(**{"content-type": None}),
    "compressed by nothing": message(headers={"id": "garbage", "task": TASK, "compression": "application/x-gzip"}),
    "arguments that are no list": message(body=body(["recipe", {}, {}])),
    "named arguments that are no object": message(body=body([[], [], {}])),
    "a body of two": message(body=body([[], {}])),
    "unknown arguments": message(body=body([[], {"nonsense": 1}, {}])),
    "a time that is none": message(headers={"id": "garbage", "task": TASK, "eta": "soon"}),
    "an end that is none": message(headers={"id": "garbage", "task": TASK, "expires": [1]}),
    "limits that are none": message(headers={"id": "garbage", "task": TASK, "timelimit": ["a", "b"]}),
    "stamps that are none": message(headers={"id": "garbage", "task": TASK, "stamped_headers": 5}),
    "no tag": message(properties={"delivery_info": {"exchange": "", "routing_key": QUEUE}}),
    "no place": message(properties={"delivery_tag": "garbage"}),
}


def test_garbage_in_a_queue_costs_nothing_but_itself(stage: Stage) -> None:
    stage.redis.delete(keys.DEAD_LETTERS)
    for garbage in GARBAGE.values():
        stage.redis.lpush(keys.BROKER_PREFIX + QUEUE, json.dumps(garbage) if isinstance(garbage, dict) else garbage)
    assert stage.serves()
    eventually(lambda: len(stage.client.dead_letters(100)) == len(GARBAGE), "all of it among the dead letters")
    letters = stage.client.dead_letters(100)
    assert all(
        letter.reason and letter.queue == QUEUE and len(letter.message) <= MAX_MESSAGE_CHARS for letter in letters
    )
    eventually(lambda: not stage.redis.exists("autoseq:unacked", keys.BROKER_PREFIX + QUEUE), "none of it elsewhere")
    assert kept(stage.redis) == []


def break_key(redis: Redis, key: str) -> None:
    """Give a key a type that nothing expects."""
    redis.delete(key)
    redis.lpush(key, "damage")


def test_garbage_among_the_unacknowledged_messages_delays_no_other(stage: Stage) -> None:
    stage.redis.delete(keys.DEAD_LETTERS)
    whole = json.dumps([message(headers={"id": "redelivered", "task": TASK}), "", QUEUE])
    for score, (tag, content) in enumerate({"whole": whole, "junk": "{", "half": "[1]"}.items(), start=1):
        stage.redis.hset("autoseq:unacked", tag, content)
        stage.redis.zadd(keys.BROKER_CLAIMS, {tag: score})  # the highest score is restored first
    eventually(lambda: stage.client.runs.state("redelivered") is not None, "the whole message in its queue again")
    eventually(lambda: not stage.redis.exists("autoseq:unacked", keys.BROKER_CLAIMS), "its end")
    assert sorted(letter.message for letter in stage.client.dead_letters()) == ["[1]", "{"]


BROKEN: dict[str, Callable[[Redis, str], object]] = {
    "the state": lambda redis, run_id: break_key(redis, keys.run_state(run_id)),
    "the lease": lambda redis, run_id: break_key(redis, keys.run_lease(run_id)),
    "a text that is none": lambda redis, run_id: redis.hset(keys.run_state(run_id), "name", b"\xff"),
    "the events": lambda redis, run_id: break_key(redis, keys.run_events(run_id)),
    "a number that a script reads": lambda redis, run_id: redis.hset(keys.run_state(run_id), "fraction", "much"),
}


def test_a_run_with_a_damaged_key_is_given_up_and_the_next_is_served(stage: Stage) -> None:
    stage.redis.delete(keys.DEAD_LETTERS)
    stage.worker.process.send_signal(signal.SIGSTOP)
    damaged = []
    for damage in BROKEN.values():
        damaged.append(run_id := f"run-{secrets.token_hex(6)}")
        stage.client.submit(recipe(), run_id=run_id)
        damage(stage.redis, run_id)
    stage.worker.process.send_signal(signal.SIGCONT)
    eventually(lambda: len(stage.client.dead_letters()) == len(BROKEN), "their messages among the dead letters")
    letters = {letter.task_id: letter for letter in stage.client.dead_letters()}
    assert letters.keys() == set(damaged)
    assert all(
        "giving up after 3 attempts: the run's keys in Redis are damaged" in one.reason for one in letters.values()
    )
    assert stage.serves()
    places = ("autoseq:unacked", keys.LEASES, keys.OPEN_RUNS, keys.waiting(SLOT), keys.broker_list(SLOT))
    eventually(lambda: not stage.redis.exists(*places), "no place that has one of them")
    assert all(stage.worker.received(run_id) < 10 for run_id in damaged)
    assert stage.client.state(damaged[list(BROKEN).index("the lease")]).state == "failed"  # its state can be written
    stage.redis.delete(*(keys.run_lease(run_id) for run_id in damaged))
    assert kept(stage.redis) == []


def test_a_damaged_list_of_the_broker_is_logged_without_spinning(stage: Stage) -> None:
    assert stage.serves()  # so that the reconciler knows the queue slot
    since = len(stage.worker.output)
    stage.redis.set(keys.broker_list(SLOT), "damage")
    stage.eventually_said(f"queue slot {SLOT} can't be used", since)
    eventually(lambda: stage.worker.output[since:].count("Connection to broker lost") >= 2, "its second pause")
    stage.redis.delete(keys.broker_list(SLOT))
    assert stage.serves()


@pytest.mark.parametrize("index", [keys.LEASES, keys.STARTED, keys.OPEN_RUNS, keys.RUNS, keys.QUEUE_SLOTS])
def test_a_damaged_index_stops_no_run(stage: Stage, index: str) -> None:
    break_key(stage.redis, index)
    assert stage.serves()
    stage.redis.delete(index)


def test_a_damaged_idempotency_key_stops_no_run(stage: Stage) -> None:
    stage.worker.process.send_signal(signal.SIGSTOP)
    run_id = stage.client.submit(recipe(), idempotency_key="damaged")
    break_key(stage.redis, keys.idempotency("damaged"))
    stage.worker.process.send_signal(signal.SIGCONT)
    assert stage.client.result(run_id, timeout_s=DEADLINE_S)["state"] == "succeeded"
