"""A watcher sees every event once, from wherever it starts, and always the end."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from storage import keys
from storage.errors import CorruptRecordError, InvalidNameError, RunNotFoundError, StoreUnavailableError
from storage.events import Cancelled, Denoised, Failed, Gap, RunEvent, Started, StepStarted, Succeeded, TextDelta
from storage.redis.follow import BLOCK_MS, follow
from storage.redis.progress import Progress
from storage.redis.record import RunRecord
from storage.redis.runs import Runs
from worker.local.services import LocalServices


@pytest.fixture
def progress(redis_client: redis.Redis, run_id: str) -> Progress:
    Runs(redis_client).create(RunRecord(run_id=run_id, document="forest", name="forest", submitted_at=1))
    return Progress(redis_client, run_id, owner="worker", max_events=100)


def told(progress: Progress, messages: range) -> None:
    for number in messages:
        progress.publish(TextDelta(step=1, delta=str(number)))


def messages_of(events: list[RunEvent]) -> list[int]:
    return [int(event.delta) for event in events if isinstance(event, TextDelta)]


def test_a_late_watcher_sees_all_of_it(redis_client: redis.Redis, progress: Progress, run_id: str) -> None:
    told(progress, range(1200))  # more than one batch, and the cap is approximate
    progress.publish(Succeeded())
    events = list(follow(redis_client, run_id))
    assert events[-1].type == "succeeded"
    assert events[-1].is_final


def test_a_watcher_sees_events_as_they_come(redis_client: redis.Redis, progress: Progress, run_id: str) -> None:
    def work() -> None:
        told(progress, range(50))
        progress.publish(Failed(error="out of memory"))

    watched = follow(redis_client, run_id)
    assert next(watched).type == "queued"
    worker = threading.Thread(target=work)
    worker.start()
    events = list(watched)
    worker.join()
    assert messages_of(events) == list(range(50))
    assert isinstance(events[-1], Failed)
    assert events[-1].error == "out of memory"


@pytest.mark.parametrize("live", [True, False])
def test_an_end_that_was_taken_back_is_not_the_end(
    redis_client: redis.Redis, progress: Progress, run_id: str, *, live: bool
) -> None:
    watched = follow(redis_client, run_id)
    seen = [next(watched).type] if live else []
    progress.publish(Failed(error="S3 was away"))
    seen += [next(watched).type] if live else []
    Runs(redis_client).reopen(run_id)
    seen += [next(watched).type] if live else []
    progress.publish(Started(name="n", model="m", steps=3))
    progress.publish(Succeeded())
    seen += [event.type for event in watched]
    assert seen == ["queued", "failed", "queued", "started", "succeeded"]


def test_a_watcher_goes_on_from_the_last_event_it_saw(
    redis_client: redis.Redis, progress: Progress, run_id: str
) -> None:
    told(progress, range(5))
    first = follow(redis_client, run_id)
    seen = [next(first) for _ in range(3)]
    progress.publish(Cancelled())
    rest = list(follow(redis_client, run_id, after=seen[-1].id))
    assert messages_of([*seen, *rest]) == list(range(5))
    assert [event.n for event in [*seen, *rest]] == list(range(1, 8))


def test_a_watcher_of_the_very_end_is_told_it_again(redis_client: redis.Redis, progress: Progress, run_id: str) -> None:
    progress.publish(Succeeded(manifest="s3://b/m"))
    last = list(follow(redis_client, run_id))[-1]
    (again,) = follow(redis_client, run_id, after=last.id)
    assert isinstance(again, Succeeded)
    assert (again.id, again.manifest) == (last.id, "s3://b/m")


def test_a_silence_longer_than_the_clients_own_timeout_is_waited_through(
    redis_url: str, progress: Progress, run_id: str
) -> None:
    timeout_s = BLOCK_MS / 1000 + 0.5
    default: Any = redis.Redis().connection_pool.connection_kwargs.get("socket_timeout")
    assert default is None or default > timeout_s, "what a plain client has is longer than what is shown here"
    with redis.Redis.from_url(redis_url, decode_responses=True, socket_timeout=timeout_s) as client:
        watched = follow(client, run_id)
        assert next(watched).type == "queued"
        ending = threading.Timer(2 * timeout_s, progress.publish, [Succeeded()])
        ending.start()
        assert next(watched).type == "succeeded"
        ending.join()


def test_what_the_stream_dropped_is_a_gap_with_the_state(
    redis_client: redis.Redis, progress: Progress, run_id: str
) -> None:
    old = next(follow(redis_client, run_id))
    told(progress, range(1000))
    progress.publish(StepStarted(step=4, kind="draw", fraction=0.5))
    progress.publish(Succeeded())
    for events in (list(follow(redis_client, run_id)), list(follow(redis_client, run_id, after=old.id))):
        gap = events[0]
        assert isinstance(gap, Gap)
        assert (gap.state, gap.name, gap.step, gap.fraction) == ("succeeded", "forest", 4, 1.0)
        assert [event.type for event in events].count("gap") == 1
        assert messages_of(events)[-1] == 999


def test_a_watcher_that_is_overtaken_is_told_of_the_gap(
    redis_client: redis.Redis, progress: Progress, run_id: str
) -> None:
    watched = follow(redis_client, run_id)
    assert next(watched).type == "queued"
    told(progress, range(1000))
    assert next(watched).type == "gap"
    assert next(watched).type == "text"


def test_an_end_whose_event_expired_is_made_up_from_the_state(
    redis_client: redis.Redis, progress: Progress, run_id: str
) -> None:
    progress.publish(Failed(error="no such model"))
    redis_client.delete(keys.run_events(run_id))
    (end,) = follow(redis_client, run_id)
    assert isinstance(end, Failed)
    assert end.error == "no such model"


def test_the_last_preview_is_seen_where_it_belongs_and_none_is_kept_after_the_end(
    redis_client: redis.Redis, progress: Progress, run_id: str
) -> None:
    for done in (1, 2):
        progress.publish(Denoised(step=1, done=done, total=3, preview=f"data:{done}"))
    progress.publish(Denoised(step=1, done=3, total=3))
    watched = follow(redis_client, run_id)
    assert [getattr(next(watched), "preview", None) for _ in range(4)] == [None, None, "data:2", None]
    assert redis_client.ttl(keys.run_preview(run_id)) == -1, "nothing of a run expires before its end"
    progress.publish(Succeeded())
    assert not redis_client.exists(keys.run_preview(run_id))
    late = [event for event in follow(redis_client, run_id) if isinstance(event, Denoised)]
    assert [(event.done, event.preview) for event in late] == [(1, None), (2, None), (3, None)]


def test_an_unknown_run_is_told_at_once(redis_client: redis.Redis, run_id: str) -> None:
    with pytest.raises(RunNotFoundError, match=run_id):
        next(follow(redis_client, run_id))


@pytest.mark.parametrize("after", ["", "$", "-", "0", "1-1; FLUSHALL", "1-" + "9" * 30])
def test_an_id_that_no_event_had_is_refused(redis_client: redis.Redis, progress: Progress, after: str) -> None:
    with pytest.raises(InvalidNameError, match="event id"):
        next(follow(redis_client, progress.run_id, after=after))


def test_a_watcher_has_only_so_much_time(redis_client: redis.Redis, progress: Progress) -> None:
    watched = follow(redis_client, progress.run_id, timeout_s=0.2)
    assert next(watched).type == "queued"
    with pytest.raises(TimeoutError, match=r"no end within 0\.2 s"):
        next(watched)


@pytest.fixture
def own_redis(data_dir: Path) -> Iterator[LocalServices]:
    with LocalServices.start(data_dir) as services:
        yield services


@pytest.mark.services
def test_a_watcher_survives_a_restart_of_redis(own_redis: LocalServices, run_id: str) -> None:
    with redis.Redis.from_url(own_redis.redis_url, decode_responses=True) as client:
        progress = Progress(client, run_id, owner="worker")
        progress.publish(Started(name="forest", model="tiny", steps=1))
        told(progress, range(3))
        watched = follow(client, run_id)
        before = [next(watched) for _ in range(4)]
        own_redis.kill_redis()
        events: list[RunEvent] = []
        watcher = threading.Thread(target=lambda: events.extend(watched))
        watcher.start()
        watcher.join(0.3)
        assert watcher.is_alive()
        own_redis.restart_redis()
        told(progress, range(3, 6))
        progress.publish(Succeeded())
        watcher.join(30)
    assert messages_of([*before, *events]) == list(range(6))
    assert events[-1].is_final


@pytest.mark.services
def test_a_watcher_does_not_wait_for_redis_for_ever(own_redis: LocalServices, run_id: str) -> None:
    with redis.Redis.from_url(own_redis.redis_url, decode_responses=True) as client:
        Progress(client, run_id).publish(Started(name="forest", model="tiny", steps=1))
        own_redis.kill_redis()
        with pytest.raises(StoreUnavailableError, match="Redis was unavailable"):
            list(follow(client, run_id, outage_s=0.3))


def test_an_event_that_is_none_is_told(redis_client: redis.Redis, progress: Progress, run_id: str) -> None:
    redis_client.xadd(keys.run_events(run_id), {"event": "odd"})
    with pytest.raises(CorruptRecordError, match=f"run {run_id}: its event"):
        list(follow(redis_client, progress.run_id))


@pytest.mark.parametrize("clock", ["right", "behind"])
def test_a_watcher_of_a_run_that_redis_lost_sees_it_told_again_from_its_start(
    redis_client: redis.Redis, progress: Progress, run_id: str, clock: str
) -> None:
    """Each event once, after a wait without the run, and also if the new stream's ids are lower than the last."""
    progress.publish(Started(name="forest", model="m", steps=3))
    told(progress, range(5))
    watched = follow(redis_client, run_id, timeout_s=60)
    before = [next(watched) for _ in range(7)]
    redis_client.delete(keys.run_state(run_id), keys.run_events(run_id), keys.run_record(run_id))
    again = Progress(redis_client, run_id, owner="the worker")

    def tell_again() -> None:
        again.publish(Started(name="forest", model="m", steps=3, done=1))
        told(again, range(5, 8))
        if clock == "right":
            again.publish(Succeeded())

    if clock == "behind":
        tell_again()
        entries: Any = redis_client.xrange(keys.run_events(run_id))
        redis_client.delete(keys.run_events(run_id))
        for number, (_, fields) in enumerate(entries, 1):
            redis_client.xadd(keys.run_events(run_id), fields, id=f"1000-{number}")
        again.publish(Succeeded())
        after = list(watched)
    else:
        worker = threading.Timer(1.2 * BLOCK_MS / 1000, tell_again)
        worker.start()
        after = list(watched)
        worker.join()
    assert [event.n for event in before] == list(range(1, 8))
    assert [event.n for event in after] == list(range(1, 6))
    assert [event.type for event in after] == ["started", "text", "text", "text", "succeeded"]
    assert messages_of(after) == [5, 6, 7]


def test_a_watcher_of_a_run_that_nobody_tells_again_is_told_that_it_is_gone(
    redis_client: redis.Redis, progress: Progress
) -> None:
    run_id = progress.run_id
    watched = follow(redis_client, run_id, outage_s=0.1)
    assert next(watched).type == "queued"
    redis_client.delete(keys.run_state(run_id), keys.run_events(run_id))
    with pytest.raises(RunNotFoundError, match=run_id):
        next(watched)
