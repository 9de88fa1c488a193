"""A run whose keys in Redis are damaged is given up, unless another worker has it; an outage ends no run."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from storage.redis.dead_letters import DeadLetters
from storage.redis.lease import Lease
from storage.redis.record import RunRecord
from tests.worker.serving import config_of, env_of
from worker.local.services import LocalServices
from worker.serve.damage import LONGEST_PAUSE_S, DamagedRuns
from worker.serve.drain import DrainFlag
from worker.serve.runtime import WorkerRuntime

DATABASE = 4
DAMAGE = ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
OUTAGE = RedisConnectionError("refused")


class Pauses(DrainFlag):
    """Notes how long it should wait."""

    def __init__(self) -> None:
        super().__init__(None)
        self.asked_s: list[float] = []

    def wait(self, timeout_s: float) -> None:
        self.asked_s.append(timeout_s)


@pytest.fixture
def runtime(services: LocalServices, run_id: str) -> Iterator[WorkerRuntime]:
    opened = replace(WorkerRuntime.connect(config_of(env_of(services, DATABASE))), drain=Pauses())
    opened.runs.create(RunRecord(run_id=run_id, document="forest", submitted_at=1.0))
    yield opened
    opened.redis.flushdb()
    opened.close()


def state_of(runtime: WorkerRuntime, run_id: str) -> str | None:
    state = runtime.runs.state(run_id)
    return state.state if state else None


def give_up(runtime: WorkerRuntime, run_id: str, *errors: Exception) -> list[bool]:
    damaged = DamagedRuns(runtime)
    return [damaged.give_up(run_id, {}, error) for error in errors]


def test_a_damaged_run_is_given_up_once(runtime: WorkerRuntime, run_id: str) -> None:
    errors = [OUTAGE, DAMAGE, OUTAGE, DAMAGE, OUTAGE, DAMAGE, DAMAGE]
    assert give_up(runtime, run_id, *errors) == [False] * 5 + [True] * 2
    assert state_of(runtime, run_id) == "failed"
    assert DeadLetters(runtime.redis).count() == 1


def test_a_run_that_another_worker_has_is_not_ended(runtime: WorkerRuntime, run_id: str) -> None:
    theirs = Lease(runtime.redis, run_id, ttl_s=60)
    theirs.acquire()
    damaged = DamagedRuns(runtime)
    assert not any(damaged.give_up(run_id, {}, DAMAGE) for _ in range(9))
    assert state_of(runtime, run_id) == "queued"
    theirs.release()
    assert damaged.give_up(run_id, {}, DAMAGE)
    assert (state_of(runtime, run_id), DeadLetters(runtime.redis).count()) == ("failed", 1)


def test_an_outage_may_last_for_days(runtime: WorkerRuntime, run_id: str) -> None:
    assert not any(give_up(runtime, run_id, *[OUTAGE] * 2_000))
    assert isinstance(runtime.drain, Pauses)
    assert (runtime.drain.asked_s[:2], runtime.drain.asked_s[-1]) == ([0.5, 1.0], LONGEST_PAUSE_S)
