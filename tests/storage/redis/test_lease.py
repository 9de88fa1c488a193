"""One worker at a time may write a run, and keeps it only while it shows signs of life."""

import pytest
from redis import Redis

from storage import keys
from storage.events import Cancelled, Failed, RunEvent, Started, Succeeded
from storage.redis.lease import Lease, LeaseLost
from storage.redis.progress import Progress

TTL_S = 3600.0


def lease(redis: Redis, run_id: str, ttl_s: float = TTL_S) -> Lease:
    return Lease(redis, run_id, ttl_s=ttl_s)


def test_of_two_workers_one_gets_the_run(redis_client: Redis, run_id: str) -> None:
    ours, theirs = lease(redis_client, run_id), lease(redis_client, run_id)
    assert ours.acquire()
    assert not theirs.acquire()
    ours.release()
    assert theirs.acquire()


def test_a_lease_lapses_by_itself(redis_client: Redis, run_id: str) -> None:
    assert lease(redis_client, run_id).acquire()
    ttl_ms = redis_client.pttl(keys.run_lease(run_id))
    assert 0 < int(ttl_ms) <= TTL_S * 1000


def test_a_damaged_index_of_the_broker_costs_no_run_its_lease(redis_client: Redis, run_id: str) -> None:
    redis_client.set(keys.BROKER_CLAIMS, "damage")
    is_taken = Lease(redis_client, run_id, ttl_s=TTL_S, delivery_tag="tag").acquire()
    redis_client.delete(keys.BROKER_CLAIMS)
    assert is_taken


def test_a_lease_that_lapsed_is_still_ours_while_no_one_took_it(redis_client: Redis, run_id: str) -> None:
    ours = lease(redis_client, run_id)
    ours.acquire()
    redis_client.delete(keys.run_lease(run_id))
    ours.renew()
    assert not lease(redis_client, run_id).acquire()


def test_a_lease_that_another_took_is_lost(redis_client: Redis, run_id: str) -> None:
    ours, theirs = lease(redis_client, run_id), lease(redis_client, run_id)
    ours.acquire()
    redis_client.delete(keys.run_lease(run_id))
    theirs.acquire()
    with pytest.raises(LeaseLost, match=run_id):
        ours.renew()
    ours.release()
    theirs.renew()


@pytest.mark.parametrize("end", [Succeeded(), Failed(), Cancelled()])
def test_a_lease_that_lapsed_is_lost_when_the_run_had_its_end_meanwhile(
    redis_client: Redis, run_id: str, end: RunEvent
) -> None:
    ours = lease(redis_client, run_id)
    ours.acquire()
    redis_client.delete(keys.run_lease(run_id))
    Progress(redis_client, run_id).publish(end)
    with pytest.raises(LeaseLost, match="has ended it"):
        ours.renew()
    assert lease(redis_client, run_id).acquire(), "a message that comes again is served"


def test_a_renewal_lasts_the_whole_time(redis_client: Redis, run_id: str) -> None:
    ours = lease(redis_client, run_id)
    ours.acquire()
    redis_client.pexpire(keys.run_lease(run_id), 1_000_000)
    ours.renew()
    assert int(redis_client.pttl(keys.run_lease(run_id))) > 1_000_000


def test_a_renewal_keeps_its_own_message_and_touches_no_other(redis_client: Redis, run_id: str) -> None:
    mine, other, done = (f"{run_id}-{name}" for name in ("mine", "other", "done"))
    redis_client.zadd(keys.BROKER_CLAIMS, {mine: 1.0, other: 1.0})
    for tag in (mine, done):
        ours = Lease(redis_client, f"{run_id}-{tag}", ttl_s=TTL_S, delivery_tag=tag)
        ours.acquire()
        ours.renew()
    scores = [redis_client.zscore(keys.BROKER_CLAIMS, tag) for tag in (mine, other, done)]
    redis_client.zrem(keys.BROKER_CLAIMS, mine, other)
    assert scores[0] is not None
    assert float(scores[0]) > 1.0
    assert scores[1:] == [1.0, None], "a message that was acknowledged does not come back"


def test_a_lost_lease_leaves_the_message_to_its_new_owner(redis_client: Redis, run_id: str) -> None:
    ours = Lease(redis_client, run_id, ttl_s=TTL_S, delivery_tag=run_id)
    lease(redis_client, run_id).acquire()
    redis_client.zadd(keys.BROKER_CLAIMS, {run_id: 1.0})
    with pytest.raises(LeaseLost):
        ours.renew()
    assert redis_client.zscore(keys.BROKER_CLAIMS, run_id) == 1.0
    redis_client.zrem(keys.BROKER_CLAIMS, run_id)


def test_a_lease_that_lapsed_is_lost_once_another_had_the_run(redis_client: Redis, run_id: str) -> None:
    Progress(redis_client, run_id).publish(Started(name="n", model="m", steps=6))
    late, other = lease(redis_client, run_id), lease(redis_client, run_id)
    late.acquire()
    redis_client.delete(keys.run_lease(run_id))
    other.acquire()
    other.release()
    with pytest.raises(LeaseLost, match=run_id):
        late.renew()
    assert lease(redis_client, run_id).acquire()
