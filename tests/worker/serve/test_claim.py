"""What ends a run between two of its events: seen in time, and told apart."""

from pathlib import Path

import pytest
import redis

from core.events import Denoised, Event, StepStarted, TextDelta
from core.plan import plan
from core.scripted import ScriptedModel
from recipes.load import load
from storage.events import Started
from storage.objects.memory import MemoryStore
from storage.redis.lease import Heartbeat, Lease, LeaseLost
from storage.redis.progress import Progress
from storage.redis.runs import Runs
from tests.worker.serving import Silent, config_of, make_run, recipe, request
from worker.errors import RunCancelled, RunFailed, RunHandedBack
from worker.serve.claim import LOOK_INTERVAL_S, DrainFlag, Guard

STEPS = plan(load(recipe()))
TEXT_STEP, IMAGE_STEP = STEPS[1], STEPS[2]


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def drain(tmp_path: Path) -> DrainFlag:
    return DrainFlag(tmp_path / "drain")


@pytest.fixture
def guard(redis_client: redis.Redis, run_id: str, clock: Clock, drain: DrainFlag) -> Guard:
    """Of a run that has just started: 10 s a step, 100 s a run, 5 s to drain."""
    Progress(redis_client, run_id).publish(Started(name="n", model="m", steps=6))
    lease = Lease(redis_client, run_id, ttl_s=60)
    assert lease.acquire()
    return Guard(
        run_id,
        runs=Runs(redis_client),
        heartbeat=Heartbeat(lease, redis_client, delivery_tag=None, interval_s=1, clock=clock),
        drain=drain,
        config=config_of(
            {"AUTOSEQ_STEP_TIMEOUT_S": "10", "AUTOSEQ_RUN_TIMEOUT_S": "100", "AUTOSEQ_DRAIN_TIMEOUT_S": "5"}
        ),
        clock=clock,
    )


def denoised() -> Event:
    return Denoised(step=IMAGE_STEP, done=1, total=2, preview=lambda: pytest.fail("nobody looks"))


def test_a_run_that_goes_well_is_left_alone(guard: Guard, clock: Clock) -> None:
    for step in STEPS:
        guard(StepStarted(step=step))
        clock.now += 9
        guard(denoised())
        guard.wait()


def test_a_step_that_takes_too_long_is_named(guard: Guard, clock: Clock) -> None:
    clock.now += 50
    guard(StepStarted(step=IMAGE_STEP))
    clock.now += 10.1
    with pytest.raises(RunFailed, match=r"step 3 took longer than 10 s \(step_timeout_s\)"):
        guard(denoised())


def test_waiting_for_the_store_is_no_fault_of_the_step(guard: Guard, clock: Clock) -> None:
    guard(StepStarted(step=IMAGE_STEP))
    clock.now += 60
    guard.wait()
    clock.now += 60
    with pytest.raises(RunFailed, match=r"the run took longer than 100 s \(run_timeout_s\)"):
        guard.wait()


@pytest.mark.parametrize(
    "event",
    [StepStarted(step=TEXT_STEP), TextDelta(step=TEXT_STEP, text="a"), denoised()],
    ids=["step", "token", "denoising step"],
)
def test_a_cancel_is_seen_at_the_next_event_of_any_kind(
    guard: Guard, clock: Clock, redis_client: redis.Redis, run_id: str, event: Event
) -> None:
    guard(StepStarted(step=TEXT_STEP))
    Runs(redis_client).request_cancel(run_id)
    clock.now += LOOK_INTERVAL_S + 0.001
    with pytest.raises(RunCancelled, match=run_id):
        guard(event)


def test_a_cancel_is_seen_while_the_run_waits(
    guard: Guard, clock: Clock, redis_client: redis.Redis, run_id: str
) -> None:
    Runs(redis_client).request_cancel(run_id)
    clock.now += 1
    with pytest.raises(RunCancelled):
        guard.wait()


def test_a_worker_that_shuts_down_ends_its_step_first(guard: Guard, clock: Clock, drain: DrainFlag) -> None:
    guard(StepStarted(step=IMAGE_STEP))
    drain.raise_()
    guard(denoised())
    clock.now += 4.9
    guard(denoised())
    with pytest.raises(RunHandedBack):
        guard(StepStarted(step=IMAGE_STEP))


@pytest.mark.parametrize("waits", [True, False])
def test_a_worker_that_shuts_down_abandons_what_takes_too_long(
    guard: Guard, clock: Clock, drain: DrainFlag, *, waits: bool
) -> None:
    drain.raise_()
    guard(denoised())
    clock.now += 5.1
    with pytest.raises(RunHandedBack):
        guard.wait() if waits else guard(denoised())


def test_a_lowered_flag_stops_nothing(drain: DrainFlag, guard: Guard) -> None:
    drain.raise_()
    drain.remove()
    guard(StepStarted(step=IMAGE_STEP))


def test_a_lease_that_another_has_ends_the_run(
    guard: Guard, clock: Clock, redis_client: redis.Redis, run_id: str
) -> None:
    guard(denoised())
    redis_client.delete(f"autoseq:run:{run_id}:lease")
    assert Lease(redis_client, run_id, ttl_s=60).acquire()
    clock.now += 1
    with pytest.raises(LeaseLost):
        guard.wait()


def test_a_run_computes_one_event_at_most_after_a_cancel(
    guard: Guard, clock: Clock, redis_client: redis.Redis, run_id: str
) -> None:
    class Telling(Silent):
        def event(self, event: Event) -> None:
            super().event(event)
            if isinstance(event, Denoised) and event.done == 3:
                Runs(redis_client).request_cancel(run_id)
            clock.now += LOOK_INTERVAL_S + 0.001

    reporter, objects = Telling(), MemoryStore()
    with pytest.raises(RunCancelled):
        make_run(request(run_id), objects, model=ScriptedModel(), reporter=reporter, guard=guard)
    last = reporter.events[-1]
    assert isinstance(last, Denoised)
    assert last.done == 3
    assert [commit.step for commit in reporter.commits] == [1, 2]
