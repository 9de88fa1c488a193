"""A claim keeps a run while there is progress, and ends it where it is to end."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from core.events import Denoised, Event, StepStarted, TextDelta
from core.plan import plan
from core.protocol import Context
from core.scripted import ScriptedModel
from recipes.load import load
from recipes.recipe import ImageSettings, TextSettings
from storage import keys
from storage.errors import StoreRefusedError, StoreUnavailableError
from storage.events import Started
from storage.journal import Journal
from storage.objects.memory import MemoryStore
from storage.redis.lease import Lease
from storage.redis.progress import Progress
from storage.redis.runs import Runs
from tests.worker.serving import PREFIX, UPLOADS, Silent, config_of, make_run, recipe, request, spec_of
from worker.errors import ClaimLost, RunCancelled, RunFailed, RunHandedBack
from worker.jobs.inputs import Sources
from worker.jobs.job import resolve, store
from worker.serve.claim import CANCEL_CHECK_INTERVAL_S, POLL_S, Claim
from worker.serve.drain import DrainFlag
from worker.serve.run import run
from worker.settings import PROJECT

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
    (tmp_path / "flag").mkdir()
    return DrainFlag(tmp_path / "flag" / "drain")


@pytest.fixture
def claim(redis_client: redis.Redis, run_id: str, clock: Clock, drain: DrainFlag) -> Iterator[Claim]:
    """Of a run that has just started: 10 s a step, 100 s a run, 5 s to drain, renewed each second."""
    Progress(redis_client, run_id).publish(Started(name="n", model="m", steps=6))
    settings = {"STEP_TIMEOUT_S": "10", "RUN_TIMEOUT_S": "100", "DRAIN_TIMEOUT_S": "5", "LEASE_S": "4"}
    with Claim(
        Lease(redis_client, run_id, ttl_s=60),
        runs=Runs(redis_client),
        drain=drain,
        config=config_of({f"AUTOSEQ_{name}": value for name, value in settings.items()}),
        clock=clock,
    ) as taken:
        yield taken


def denoised() -> Event:
    return Denoised(step=IMAGE_STEP, done=1, total=2, preview=lambda: pytest.fail("nobody looks"))


def test_a_run_that_goes_well_is_left_alone(claim: Claim, clock: Clock) -> None:
    for step in STEPS:
        claim.checkpoint(StepStarted(step=step))
        clock.now += 9
        claim.checkpoint(denoised())
        claim.checkpoint()


def test_a_step_that_takes_too_long_is_named(claim: Claim, clock: Clock) -> None:
    clock.now += 50
    claim.checkpoint(StepStarted(step=IMAGE_STEP))
    clock.now += 10.1
    with pytest.raises(RunFailed, match=r"step 3 took longer than 10 s \(step_timeout_s\)"):
        claim.checkpoint(denoised())


def test_waiting_for_the_store_is_no_fault_of_the_step(claim: Claim, clock: Clock) -> None:
    claim.checkpoint(StepStarted(step=IMAGE_STEP))
    clock.now += 60
    claim.checkpoint()
    clock.now += 60
    with pytest.raises(RunFailed, match=r"the run took longer than 100 s \(run_timeout_s\)"):
        claim.checkpoint()


@pytest.mark.parametrize(
    "event",
    [StepStarted(step=TEXT_STEP), TextDelta(step=TEXT_STEP, text="a"), denoised()],
    ids=["step", "token", "denoising step"],
)
def test_a_cancel_is_seen_at_the_next_event_of_any_kind(
    claim: Claim, clock: Clock, redis_client: redis.Redis, run_id: str, event: Event
) -> None:
    claim.checkpoint(StepStarted(step=TEXT_STEP))
    Runs(redis_client).request_cancel(run_id)
    clock.now += CANCEL_CHECK_INTERVAL_S + 0.001
    with pytest.raises(RunCancelled, match=run_id):
        claim.checkpoint(event)


def test_a_cancel_is_seen_while_the_run_waits(
    claim: Claim, clock: Clock, redis_client: redis.Redis, run_id: str
) -> None:
    Runs(redis_client).request_cancel(run_id)
    clock.now += 1
    with pytest.raises(RunCancelled):
        claim.checkpoint()


def test_a_worker_that_shuts_down_ends_its_step_first(claim: Claim, clock: Clock, drain: DrainFlag) -> None:
    claim.checkpoint(StepStarted(step=IMAGE_STEP))
    drain.raise_()
    claim.checkpoint(denoised())
    clock.now += 4.9
    claim.checkpoint(denoised())
    with pytest.raises(RunHandedBack):
        claim.checkpoint(StepStarted(step=IMAGE_STEP))


def test_a_worker_that_shuts_down_before_the_first_step_hands_the_run_back_at_once(
    claim: Claim, drain: DrainFlag
) -> None:
    claim.checkpoint()
    drain.raise_()
    with pytest.raises(RunHandedBack):
        claim.checkpoint()


@pytest.mark.parametrize("waits", [True, False])
def test_a_worker_that_shuts_down_abandons_what_takes_too_long(
    claim: Claim, clock: Clock, drain: DrainFlag, *, waits: bool
) -> None:
    drain.raise_()
    claim.checkpoint(denoised())
    clock.now += 5.1
    with pytest.raises(RunHandedBack):
        claim.checkpoint(None if waits else denoised())


def test_a_lowered_flag_stops_nothing(drain: DrainFlag, claim: Claim) -> None:
    drain.raise_()
    drain.remove()
    claim.checkpoint(StepStarted(step=IMAGE_STEP))


def test_a_lease_that_another_has_ends_the_run(
    claim: Claim, clock: Clock, redis_client: redis.Redis, run_id: str
) -> None:
    claim.checkpoint(denoised())
    redis_client.delete(f"autoseq:run:{run_id}:lease")
    assert Lease(redis_client, run_id, ttl_s=60).acquire()
    clock.now += 1
    with pytest.raises(ClaimLost):
        claim.checkpoint()


def test_a_run_computes_one_event_at_most_after_a_cancel(
    claim: Claim, clock: Clock, redis_client: redis.Redis, run_id: str
) -> None:
    class Telling(Silent):
        def event(self, event: Event) -> None:
            super().event(event)
            if isinstance(event, Denoised) and event.done == 3:
                Runs(redis_client).request_cancel(run_id)
            clock.now += CANCEL_CHECK_INTERVAL_S + 0.001

    reporter, objects = Telling(), MemoryStore()
    with pytest.raises(RunCancelled):
        make_run(request(run_id), objects, model=ScriptedModel(), reporter=reporter, checkpoint=claim.checkpoint)
    last = reporter.events[-1]
    assert isinstance(last, Denoised)
    assert last.done == 3
    assert [commit.step for commit in reporter.commits] == [1, 2]


def test_a_cancel_is_seen_while_a_long_context_is_read(
    claim: Claim, clock: Clock, redis_client: redis.Redis, run_id: str
) -> None:
    class Slow(ScriptedModel):
        def prefill(self, context: Context, settings: TextSettings | ImageSettings) -> Iterator[None]:
            for number, _ in enumerate(super().prefill(context, settings)):
                if number == 1:
                    Runs(redis_client).request_cancel(run_id)
                assert number < 2, "no further item is read"
                clock.now += 1
                yield

    reporter = Silent()
    with pytest.raises(RunCancelled):
        make_run(request(run_id), MemoryStore(), model=Slow(), reporter=reporter, checkpoint=claim.checkpoint)
    assert isinstance(reporter.events[-1], StepStarted), "the step has not generated anything"
    assert len(reporter.commits) == reporter.events[-1].step.number - 1


def test_a_store_that_hangs_delays_no_cancel(
    claim: Claim, clock: Clock, redis_client: redis.Redis, run_id: str
) -> None:
    answered = threading.Event()

    def hang() -> None:
        Runs(redis_client).request_cancel(run_id)
        clock.now += 1
        assert answered.wait(30)

    with pytest.raises(RunCancelled):
        claim.retry(hang)
    answered.set()


class CancelledAtTheEnd(MemoryStore):
    """Its run is cancelled while the manifest is written, which takes a while."""

    def __init__(self, cancel: Callable[[], object]) -> None:
        super().__init__()
        self.cancel = cancel

    def put(self, key: str, data: bytes, *, content_type: str, only_if_absent: bool = False) -> None:
        if key.endswith(keys.MANIFEST):
            self.cancel()
            time.sleep(2 * POLL_S)
        super().put(key, data, content_type=content_type, only_if_absent=only_if_absent)


def test_a_cancel_while_the_manifest_is_written_comes_too_late(
    claim: Claim, clock: Clock, redis_client: redis.Redis, run_id: str
) -> None:
    def cancel() -> None:
        Runs(redis_client).request_cancel(run_id)
        clock.now += 1

    journal, model = Journal(CancelledAtTheEnd(cancel), PREFIX, run_id), ScriptedModel()
    job = resolve(request(run_id), spec_of(model), recipes=PROJECT / "recipes", sources=Sources())
    store(job, journal)
    manifest = run(job, model=model, journal=journal, reporter=Silent(), claim=claim, uploads=UPLOADS)
    assert journal.manifest() == manifest


def test_a_cancel_is_seen_between_two_attempts_to_write_the_manifest(
    claim: Claim, clock: Clock, redis_client: redis.Redis, run_id: str
) -> None:
    def fail() -> None:
        Runs(redis_client).request_cancel(run_id)
        clock.now += 1
        raise StoreUnavailableError("restarting")

    with pytest.raises(RunCancelled):
        claim.conclude(fail)


def test_a_claim_is_renewed_while_the_store_is_unavailable(
    claim: Claim, clock: Clock, redis_client: redis.Redis, run_id: str
) -> None:
    calls: list[int] = []

    def recover() -> str:
        calls.append(1)
        clock.now += 2
        redis_client.pexpire(f"autoseq:run:{run_id}:lease", 1000)
        if len(calls) < 4:
            raise StoreUnavailableError("restarting")
        return "stored"

    assert claim.retry(recover) == "stored"
    claim.checkpoint()
    assert int(redis_client.pttl(f"autoseq:run:{run_id}:lease")) > 50_000


def test_a_claim_is_renewed_while_many_results_come_one_after_the_other(
    claim: Claim, clock: Clock, redis_client: redis.Redis, run_id: str
) -> None:
    """None of them takes long enough to be waited for."""
    for _ in claim.map(str, range(20)):
        clock.now += 2
        redis_client.pexpire(f"autoseq:run:{run_id}:lease", 1000)
    assert int(redis_client.pttl(f"autoseq:run:{run_id}:lease")) > 50_000


def test_what_the_call_raises_is_raised_once(claim: Claim) -> None:
    calls: list[int] = []

    def refuse() -> None:
        calls.append(1)
        raise StoreRefusedError("no such bucket")

    with pytest.raises(StoreRefusedError, match="no such bucket"):
        claim.retry(refuse)
    assert len(calls) == 1


def test_a_claim_that_another_worker_holds_is_not_taken(
    claim: Claim, redis_client: redis.Redis, drain: DrainFlag
) -> None:
    lease = Lease(redis_client, claim.lease.run_id, ttl_s=60)
    with (
        pytest.raises(ClaimLost, match="another worker has it"),
        Claim(lease, runs=Runs(redis_client), drain=drain, config=config_of({})),
    ):
        pytest.fail("two workers hold one run")
