"""Progress goes one way: fractions never fall, an end is an end, and each write is one round trip."""

import json
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
import redis

from storage import keys
from storage.events import (
    ArtifactStored,
    Cancelled,
    Denoised,
    Failed,
    Queued,
    RunEvent,
    Started,
    StepStarted,
    Succeeded,
    TextDelta,
)
from storage.redis.lease import Lease
from storage.redis.progress import Progress
from storage.redis.record import RunRecord
from storage.redis.runs import Runs
from storage.redis.state import RunState


def events_of(client: redis.Redis, run_id: str) -> list[dict[str, Any]]:
    entries: Any = client.xrange(keys.run_events(run_id))
    return [json.loads(fields["event"]) for _id, fields in entries]


def started(done: int = 0) -> Started:
    return Started(name="forest", model="tiny", steps=3, done=done)


def part(step: int, *, fraction: float = 0.0) -> TextDelta:
    return TextDelta(step=step, delta="a", fraction=fraction)


def stored(step: int, key: str) -> ArtifactStored:
    return ArtifactStored(step=step, role="image", key=key, url="http://x", size=9, sha256="aa", index=0)


@pytest.fixture
def clock() -> Iterator[int]:
    return count(1000)


@pytest.fixture
def progress(redis_client: redis.Redis, run_id: str, clock: Iterator[int]) -> Progress:
    return Progress(redis_client, run_id, owner="worker", clock=lambda: next(clock))


@pytest.fixture
def runs(redis_client: redis.Redis) -> Runs:
    return Runs(redis_client)


def state_of(runs: Runs, run_id: str) -> RunState:
    state = runs.state(run_id)
    assert state is not None
    return state


def test_a_run_from_start_to_end(progress: Progress, runs: Runs, redis_client: redis.Redis, run_id: str) -> None:
    progress.publish(started())
    progress.publish(StepStarted(step=1, kind="read", fraction=0.25, eta_s=12.34))
    progress.publish(TextDelta(step=2, delta="A küste"))
    progress.publish(Denoised(step=2, done=1, total=2, fraction=0.5))
    progress.publish(stored(3, "steps/003-image.png"))
    running = state_of(runs, run_id)
    assert (running.state, running.step, running.steps, running.fraction) == ("running", 3, 3, 0.5)
    assert (running.name, running.model, running.eta_s) == ("forest", "tiny", 12.3)
    progress.publish(Succeeded(manifest="s3://b/manifest.json"))
    ended = state_of(runs, run_id)
    assert (ended.state, ended.fraction, ended.eta_s) == ("succeeded", 1.0, None)
    assert (ended.manifest, ended.error) == ("s3://b/manifest.json", None)
    assert ended.started_at is not None
    assert ended.finished_at is not None
    assert ended.started_at < ended.finished_at
    events = events_of(redis_client, run_id)
    assert [event["type"] for event in events] == ["started", "step", "text", "denoised", "artifact", "succeeded"]
    assert [event["n"] for event in events] == [1, 2, 3, 4, 5, 6]
    assert [event["fraction"] for event in events] == [0, 0.25, 0.25, 0.5, 0.5, 1]
    assert events[2]["delta"] == "A küste"


def test_the_fraction_never_falls_not_even_on_another_worker(
    progress: Progress, runs: Runs, redis_client: redis.Redis, run_id: str
) -> None:
    progress.publish(started())
    for given, kept in ((0.4, 0.4), (0.2, 0.4), (-1, 0.4), (0.6, 0.6), (7, 1.0)):
        progress.publish(part(1, fraction=given))
        assert state_of(runs, run_id).fraction == kept
    Progress(redis_client, run_id).publish(started(done=2))
    assert state_of(runs, run_id).fraction == 1.0


def test_the_start_is_the_first_start(progress: Progress, runs: Runs, run_id: str) -> None:
    progress.publish(started())
    first = state_of(runs, run_id).started_at
    progress.publish(Queued())
    progress.publish(started(done=1))
    again = state_of(runs, run_id)
    assert (again.started_at, again.step) == (first, 1)


@pytest.mark.parametrize("end", [Succeeded(manifest="s3://b/m"), Failed(error="out of memory"), Cancelled()])
def test_an_end_is_an_end(
    progress: Progress, runs: Runs, redis_client: redis.Redis, run_id: str, end: RunEvent
) -> None:
    assert progress.publish(started())
    assert progress.publish(end)
    before, told = state_of(runs, run_id), events_of(redis_client, run_id)
    written = [
        progress.publish(started()),
        progress.publish(Queued()),
        progress.publish(part(3, fraction=0.9)),
        progress.publish(Succeeded()),
        progress.publish(Cancelled()),
    ]
    assert not any(written)
    assert state_of(runs, run_id) == before
    assert events_of(redis_client, run_id) == told
    assert (before.state, before.error) == (end.type, "out of memory" if isinstance(end, Failed) else None)


def test_an_end_can_depend_on_the_state_before(progress: Progress, runs: Runs, run_id: str) -> None:
    progress.publish(started())
    assert not progress.publish(Cancelled(), only_from="queued")
    assert state_of(runs, run_id).state == "running"


def test_the_stream_is_capped_and_the_count_goes_on(redis_client: redis.Redis, run_id: str) -> None:
    progress = Progress(redis_client, run_id, max_events=200)
    for _ in range(1000):
        progress.publish(part(1))
    events = events_of(redis_client, run_id)
    assert 200 <= len(events) < 400
    assert events[-1]["n"] == 1000


def test_only_a_run_with_an_end_expires(redis_client: redis.Redis, runs: Runs, run_id: str) -> None:
    runs.create(RunRecord(run_id=run_id, document="forest", submitted_at=1))
    progress = Progress(redis_client, run_id, owner="worker", ttl_s=77)
    progress.publish(started())
    runs.request_cancel(run_id)
    lasting = (keys.run_state(run_id), keys.run_record(run_id), keys.run_cancel(run_id))
    assert [redis_client.ttl(key) for key in lasting] == [-1, -1, -1]
    progress.publish(Cancelled())
    assert all(0 < redis_client.ttl(key) <= 77 for key in (*lasting, keys.run_events(run_id)))


def test_a_write_is_one_round_trip(progress: Progress, redis_client: redis.Redis, run_id: str) -> None:
    progress.publish(started())
    sent: list[str] = []
    with redis_client.monitor() as monitor:  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
        progress.publish(part(1, fraction=0.5))
        while not sent or "EVALSHA" not in sent[-1]:
            command = monitor.next_command()
            if run_id in command["command"] and command["client_type"] != "lua":
                sent.append(command["command"])
    assert len(sent) == 1


def test_progress_goes_on_after_redis_forgot_the_script(
    progress: Progress, runs: Runs, redis_client: redis.Redis, run_id: str
) -> None:
    progress.publish(started())
    redis_client.script_flush()
    assert progress.publish(part(1, fraction=0.5))
    assert state_of(runs, run_id).fraction == 0.5


def test_a_write_that_is_repeated_because_its_answer_was_lost_is_made_once(
    progress: Progress, redis_client: redis.Redis, run_id: str
) -> None:
    progress.publish(started())

    class Repeating:
        """A script that is sent twice, as a client does whose connection broke before the answer."""

        def __init__(self, script: Callable[..., object]) -> None:
            self.script = script

        def __call__(self, **arguments: object) -> object:
            self.script(**arguments)
            return self.script(**arguments)

    progress._script = Repeating(progress._script)  # type: ignore[assignment]  # between the client and the server
    assert progress.publish(part(1))
    assert progress.publish(part(2))
    assert [event.get("step") for event in events_of(redis_client, run_id)] == [None, 1, 2]


def test_artifacts_are_told_once_whoever_tells_them_again(
    progress: Progress, redis_client: redis.Redis, run_id: str
) -> None:
    def tell(teller: Progress, step: int, name: str) -> None:
        assert teller.publish(stored(step, name))

    another = Progress(redis_client, run_id)
    tell(progress, 3, "003.png")
    tell(progress, 4, "004.png")
    for teller in (another, progress):
        tell(teller, 3, "003.png")
        tell(teller, 4, "004.png")
        tell(teller, 4, "004.v1.png")
        tell(teller, 11, "011.png")
    told = events_of(redis_client, run_id)
    assert [event["key"] for event in told] == ["003.png", "004.png", "004.v1.png", "011.png"]
    assert [event["n"] for event in told] == [1, 2, 3, 4]


def test_a_worker_whose_run_another_has_tells_nothing_more(redis_client: redis.Redis, runs: Runs, run_id: str) -> None:
    late = Progress(redis_client, run_id, owner="late")
    redis_client.set(keys.run_lease(run_id), "late")
    assert late.publish(started())
    redis_client.delete(keys.run_lease(run_id))
    assert late.publish(part(1)), "a lease that only lapsed has no other owner"
    redis_client.set(keys.run_lease(run_id), "another")
    another = Progress(redis_client, run_id, owner="another")
    assert another.publish(started(done=1))
    late_words = (
        late.publish(part(2)),
        late.publish(stored(1, "001.png")),
        late.publish(Queued()),
        late.publish(Failed(error="S3 was away")),
    )
    assert late_words == (False,) * 4
    assert [event["type"] for event in events_of(redis_client, run_id)] == ["started", "text", "started"]
    assert state_of(runs, run_id).state == "running"
    assert another.publish(Succeeded())
    redis_client.delete(keys.run_lease(run_id))


@pytest.mark.parametrize("end", [Succeeded(), Failed(error="wrong arguments"), Cancelled()])
@pytest.mark.parametrize("leased", [True, False])
def test_without_a_lease_no_run_is_ended(
    progress: Progress, runs: Runs, redis_client: redis.Redis, run_id: str, *, leased: bool, end: RunEvent
) -> None:
    runs.create(RunRecord(run_id=run_id, document="forest", submitted_at=1))
    if leased:
        redis_client.set(keys.run_lease(run_id), "worker")
    stranger = Progress(redis_client, run_id)
    assert not stranger.publish(end)
    assert progress.publish(started())
    assert not stranger.publish(end)
    assert state_of(runs, run_id).state == "running"
    assert progress.publish(end)
    assert Progress(redis_client, f"{run_id}-unknown").publish(end), "nobody has a run that does not exist"
    redis_client.set(keys.run_lease(f"{run_id}-lost"), "worker", ex=60)
    assert not Progress(redis_client, f"{run_id}-lost").publish(end), "a worker has it, though Redis lost its state"


def test_a_worker_that_had_the_run_before_another_does_not_end_it(redis_client: redis.Redis, run_id: str) -> None:
    Runs(redis_client).create(RunRecord(run_id=run_id, document="forest", submitted_at=1))
    first, second = (Lease(redis_client, run_id, ttl_s=60) for _ in range(2))
    assert first.acquire()
    redis_client.delete(keys.run_lease(run_id))
    assert second.acquire()
    second.release()
    assert not Progress(redis_client, run_id, owner=first.token).publish(Failed(error="late"))
    assert Progress(redis_client, run_id, owner=second.token).publish(Cancelled())
