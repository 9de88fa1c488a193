"""What each script does to the keys that it is given, and what it returns."""

import secrets
from collections.abc import Mapping
from typing import cast

import pytest
from redis import Redis

from storage.redis.scripts import Arguments, load_script


class Room:
    """Scripts on keys that no other test has."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._prefix = f"test-{secrets.token_hex(6)}:"

    def key(self, name: str) -> str:
        return f"{self._prefix}{name}"

    def run(self, script: str, keys: str, **args: str | float | Mapping[str, str]) -> object:
        """Call a script with its own key for each of the names in `keys`."""
        given: Arguments = args
        return load_script(self.redis, script)(keys={name: self.key(name) for name in keys.split()}, args=given)

    def set_state(self, state: str, **fields: str) -> None:
        self.redis.hset(self.key("state"), items=["state", state, *(part for pair in fields.items() for part in pair)])

    def state(self) -> dict[str, str]:
        return cast("dict[str, str]", self.redis.hgetall(self.key("state")))

    def members(self, index: str) -> list[str]:
        return cast("list[str]", self.redis.zrange(self.key(index), 0, -1))

    def now_ms(self) -> float:
        seconds, microseconds = self.redis.time()
        return seconds * 1000 + microseconds // 1000


@pytest.fixture
def room(redis_client: Redis) -> Room:
    return Room(redis_client)


def test_claim_key_keeps_the_first_owner(room: Room) -> None:
    assert room.run("claim_key", "idempotency_key", run_id="r1", ttl_s=60) == "r1"
    assert room.run("claim_key", "idempotency_key", run_id="r2", ttl_s=60) == "r1"
    assert 0 < room.redis.ttl(room.key("idempotency_key")) <= 60


CREATE = "record state events runs open_runs queue_slots waiting"


def create(room: Room, run_id: str, **changed: str | float) -> object:
    args: dict[str, str | float | Mapping[str, str]] = {
        "run_id": run_id,
        "document": '{"a": 1}',
        "submitted_at": 5.25,
        "max_recent": 2,
        "queue_slot": "model.tiny|3",
        "event": '{"type": "queued"}',
        "fields": {"name": "forest"},
    }
    return room.run("create_run", CREATE, **{**args, **changed})


def test_create_run_writes_all_of_it(room: Room) -> None:
    before = room.now_ms()
    assert create(room, "r1") == 1
    hashed = {"state": "queued", "fraction": "0", "events": "1", "line": "model.tiny|3", "name": "forest"}
    assert room.state() == hashed
    assert room.redis.get(room.key("record")) == '{"a": 1}'
    events = room.redis.xrange(room.key("events")) or []
    assert [fields for _id, fields in events] == [{"event": '{"type": "queued"}'}]
    assert room.redis.zscore(room.key("open_runs"), "r1") == room.redis.zscore(room.key("runs"), "r1") == 5.25
    assert room.redis.smembers(room.key("queue_slots")) == {"model.tiny|3"}
    joined = room.redis.zscore(room.key("waiting"), "r1")
    assert isinstance(joined, float)
    assert before <= joined <= room.now_ms()


def test_create_run_writes_nothing_when_the_run_exists(room: Room) -> None:
    create(room, "r1")
    assert create(room, "r1", document="{}", submitted_at=9.0) == 0
    assert room.redis.get(room.key("record")) == '{"a": 1}'
    assert room.redis.zscore(room.key("runs"), "r1") == 5.25


def test_create_run_trims_the_list_and_not_the_open_runs(room: Room) -> None:
    for number in range(3):
        room.redis.delete(room.key("record"))
        create(room, f"r{number}", submitted_at=float(number))
    assert (room.members("runs"), room.members("open_runs")) == (["r1", "r2"], ["r0", "r1", "r2"])


@pytest.mark.parametrize(("state", "asked"), [("queued", 1), ("running", 1), ("succeeded", 0), ("failed", 0)])
def test_request_cancel_sets_the_flag_of_a_run_that_has_not_ended(room: Room, state: str, asked: int) -> None:
    room.set_state(state)
    assert room.run("request_cancel", "state cancel") == state
    assert room.redis.exists(room.key("cancel")) == asked


def test_request_cancel_of_an_unknown_run_returns_nil(room: Room) -> None:
    assert room.run("request_cancel", "state cancel") is None


def test_count_attempt_starts_again_with_a_new_step(room: Room) -> None:
    counts = [room.run("count_attempt", "state", committed_steps=steps) for steps in (0, 0, 2, 2, 1, 3)]
    assert counts == [1, 2, 1, 2, 3, 1], "fewer steps than before are no progress"


REOPEN = "state cancel record events open_runs queue_slots waiting"


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_reopen_run_queues_it_and_keeps_its_keys(room: Room, state: str) -> None:
    room.set_state(state, error="no", finished_at="9", attempts="3", attempt_steps="2", line="old|3")
    for name in ("cancel", "record", "events"):
        room.redis.set(room.key(name), "1", ex=60)
    room.redis.expire(room.key("state"), 60)
    assert room.run("reopen_run", REOPEN, run_id="r1", queue_slot="new|3") == 1
    assert room.state() == {"state": "queued", "error": "", "finished_at": "", "line": "new|3"}
    assert not room.redis.exists(room.key("cancel"))
    assert [room.redis.ttl(room.key(name)) for name in ("state", "record", "events")] == [-1, -1, -1]
    assert room.members("open_runs") == room.members("waiting") == ["r1"]
    assert room.redis.smembers(room.key("queue_slots")) == {"new|3"}


@pytest.mark.parametrize("state", ["queued", "running", "succeeded"])
def test_reopen_run_leaves_every_other_state(room: Room, state: str) -> None:
    room.set_state(state)
    assert room.run("reopen_run", REOPEN, run_id="r1", queue_slot="new|3") == 0
    assert (room.state(), room.members("open_runs")) == ({"state": state}, [])


def take(room: Room, token: str, *, renew: bool = False) -> object:
    args = {"token": token, "run_id": "r1", "renew": "1" if renew else "", "waiting_prefix": room.key("waiting:")}
    return room.run("take_lease", "lease leases state started", ttl_ms=60_000, **args)


def lapse(room: Room) -> None:
    room.redis.delete(room.key("lease"))


def test_take_lease_gives_it_to_one_worker(room: Room) -> None:
    room.set_state("queued")
    assert [take(room, "a"), take(room, "b"), take(room, "b", renew=True), take(room, "a", renew=True)] == [1, 0, 0, 1]
    assert room.state()["owner"] == "a"
    lapses_ms = room.redis.zscore(room.key("leases"), "r1")
    assert isinstance(lapses_ms, float)
    assert room.now_ms() < lapses_ms <= room.now_ms() + 60_000


def test_take_lease_ends_the_wait_in_the_queue_slot(room: Room) -> None:
    room.set_state("queued", line="tiny|3")
    room.redis.zadd(room.key("waiting:tiny|3"), {"r1": 7, "r2": 9})
    room.redis.hset(room.key("started"), "tiny|3", "5")
    take(room, "a")
    assert room.members("waiting:tiny|3") == ["r2"]
    assert room.redis.hget(room.key("started"), "tiny|3") == "7"


def test_take_lease_never_moves_the_latest_start_back(room: Room) -> None:
    room.set_state("queued", line="tiny|3")
    room.redis.zadd(room.key("waiting:tiny|3"), {"r1": 7})
    room.redis.hset(room.key("started"), "tiny|3", "8")
    take(room, "a")
    assert room.redis.hget(room.key("started"), "tiny|3") == "8"


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_take_lease_renews_no_lapsed_lease_of_a_run_that_ended(room: Room, state: str) -> None:
    room.set_state("running")
    take(room, "a")
    lapse(room)
    room.set_state(state)
    assert take(room, "a", renew=True) == 0
    assert take(room, "a") == 1


def test_take_lease_renews_no_lapsed_lease_that_another_had(room: Room) -> None:
    room.set_state("running")
    take(room, "a")
    lapse(room)
    take(room, "b")
    lapse(room)
    assert (take(room, "a", renew=True), take(room, "b", renew=True)) == (0, 1)


def test_take_lease_says_that_the_run_is_unknown_and_writes_no_state(room: Room) -> None:
    assert (take(room, "a"), take(room, "a", renew=True), room.state()) == (2, 2, {})


@pytest.mark.parametrize(
    ("state", "lapsed"), [("running", ["r1"]), ("queued", ["r1"]), ("succeeded", []), ("failed", [])]
)
def test_release_lease_leaves_a_run_that_has_not_ended_among_the_lapsed(
    room: Room, state: str, lapsed: list[str]
) -> None:
    room.set_state(state)
    take(room, "a")
    assert room.run("release_lease", "lease leases state", token="b", run_id="r1") == 0
    assert room.run("release_lease", "lease leases state", token="a", run_id="r1") == 1
    assert room.run("release_lease", "lease leases state", token="a", run_id="r1") == 0
    assert room.run("find_lapsed", "leases", limit=5) == room.members("leases") == lapsed


def test_elect_reconciler_elects_one_at_a_time(room: Room) -> None:
    elected = [room.run("elect_reconciler", "reconciler", token=token, ttl_ms=60_000) for token in "aba"]
    assert elected == [1, 0, 1]


def test_find_lapsed_finds_what_lapsed_by_the_clock_of_redis(room: Room) -> None:
    now_ms = room.now_ms()
    room.redis.zadd(room.key("leases"), {"held": now_ms + 60_000, "late": now_ms - 1, "later": now_ms - 60_000})
    assert room.run("find_lapsed", "leases", limit=5) == ["later", "late"]
    assert room.run("find_lapsed", "leases", limit=1) == ["later"]


def find_overtaken(room: Room, limit: int = 5) -> object:
    return room.run("find_overtaken", "waiting started broker_list", queue_slot="tiny|3", limit=limit)


def test_find_overtaken_finds_what_joined_before_the_latest_start(room: Room) -> None:
    room.redis.zadd(room.key("waiting"), {"r1": 1, "r2": 2, "r3": 3})
    room.redis.lpush(room.key("broker_list"), "message")
    assert find_overtaken(room) == [], "nothing was started"
    room.redis.hset(room.key("started"), "tiny|3", "3")
    assert (find_overtaken(room), find_overtaken(room, limit=1)) == (["r1", "r2"], ["r1"])


def test_find_overtaken_finds_all_that_wait_when_the_broker_has_no_message(room: Room) -> None:
    room.redis.zadd(room.key("waiting"), {"r1": 1, "r2": 2, "r3": 3})
    assert (find_overtaken(room), find_overtaken(room, limit=2)) == (["r1", "r2", "r3"], ["r1", "r2"])


def requeue(room: Room) -> object:
    return room.run("requeue_run", "lease leases state waiting", run_id="r1")


@pytest.mark.parametrize("state", ["queued", "running"])
def test_requeue_run_lets_it_wait_at_the_end(room: Room, state: str) -> None:
    room.set_state(state)
    room.redis.zadd(room.key("leases"), {"r1": 1})
    room.redis.zadd(room.key("waiting"), {"r1": 1, "r2": 2})
    assert requeue(room) == state
    assert (room.members("waiting"), room.members("leases"), room.state()["state"]) == (["r2", "r1"], [], state)


def test_requeue_run_leaves_a_run_that_is_leased(room: Room) -> None:
    room.set_state("running")
    take(room, "a")
    assert requeue(room) is None
    assert (room.members("leases"), room.members("waiting")) == (["r1"], [])


def test_requeue_run_removes_a_run_that_ended_from_the_indexes(room: Room) -> None:
    room.set_state("succeeded")
    room.redis.zadd(room.key("leases"), {"r1": 1})
    room.redis.zadd(room.key("waiting"), {"r1": 1})
    assert requeue(room) is None
    assert (room.members("leases"), room.members("waiting")) == ([], [])


def test_announce_worker_removes_those_that_expired(room: Room) -> None:
    def announce(name: str, ttl_ms: int) -> object:
        return room.run("announce_worker", "workers expiries", name=name, info="{}", ttl_ms=ttl_ms, key_ttl_ms=60_000)

    assert announce("w1", 60_000) == 0
    assert announce("w2", -1) == 1
    assert room.redis.hgetall(room.key("workers")) == {"w1": "{}"}
    assert room.members("expiries") == ["w1"]


def test_count_fault_starts_again_after_a_committed_step(room: Room) -> None:
    assert [room.run("count_fault", "state") for _ in range(2)] == [1, 2]
    room.set_state("queued", attempt_steps="3")
    assert [room.run("count_fault", "state") for _ in range(2)] == [1, 2]
