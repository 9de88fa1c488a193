"""The judge of the campaigns passes a run that is as it should be, and sees each way in which one may not be."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from redis import Redis

from storage import keys
from storage.objects.s3 import S3Store
from tests.chaos.load import recipe_of, undisturbed_run
from tests.faults.judge import Judge, Verdict
from tests.faults.stream import StreamCheck, StreamFault
from tests.worker.serving import PREFIX, config_of, env_of, request
from worker.local.services import LocalServices
from worker.serve.delivery import Delivery, Message
from worker.serve.runtime import WorkerRuntime

DATABASE = 9


@dataclass(frozen=True, kw_only=True)
class Served:
    """A run that ended well."""

    run_id: str
    redis: Redis
    store: S3Store
    host: WorkerRuntime

    @property
    def events(self) -> list[tuple[str, dict[str, Any]]]:
        entries: Any = self.redis.xrange(keys.run_events(self.run_id))
        return [(entry, json.loads(fields["event"])) for entry, fields in entries]

    def event_of(self, kind: str) -> tuple[str, dict[str, Any]]:
        return next((entry, event) for entry, event in self.events if event["type"] == kind)

    def publish(self, event: dict[str, Any]) -> None:
        self.redis.xadd(keys.run_events(self.run_id), {"event": json.dumps(event)})

    def key(self, name: str) -> str:
        return f"{PREFIX}/{self.run_id}/{name}"

    def judged(self) -> Verdict:
        return self.judge().judge([self.run_id], alone=False)

    def judge(self) -> Judge:
        def expected(run_id: str) -> dict[str, bytes]:
            return undisturbed_run(run_id, self.host.engine)

        return Judge(self.redis, self.store, PREFIX, expected, settle_s=0)


@pytest.fixture
def served(services: LocalServices, s3_store: S3Store, run_id: str) -> Iterator[Served]:
    host = WorkerRuntime.connect(config_of(env_of(services, DATABASE)))
    host.redis.flushdb()
    Delivery(request(run_id, recipe_of(run_id)), Message(), host).run_to_completion()
    yield Served(run_id=run_id, redis=host.redis, store=s3_store, host=host)
    host.close()


def lose_an_object(run: Served) -> None:
    run.store.delete(run.key("commits/002.json"))


def lose_the_model(run: Served) -> None:
    run.store.delete(run.key("model.json"))


def leave_an_object(run: Served) -> None:
    run.store.put(run.key("steps/999-image.png"), b"", content_type="image/png")


def change_an_object(run: Served) -> None:
    run.store.put(run.key("manifest.json"), b"{}", content_type="application/json")


def lose_an_artifact(run: Served) -> None:
    run.redis.xdel(keys.run_events(run.run_id), run.event_of("artifact")[0])


def repeat_an_artifact(run: Served) -> None:
    run.publish(run.event_of("artifact")[1])


def repeat_the_end(run: Served) -> None:
    run.publish(run.event_of("succeeded")[1])


def repeat_a_step_after_the_end(run: Served) -> None:
    run.publish(run.event_of("step")[1])


def leave_a_lease(run: Served) -> None:
    run.redis.set(keys.run_lease(run.run_id), "someone", ex=100)


def leave_a_key(run: Served) -> None:
    run.redis.persist(keys.run_state(run.run_id))


def test_a_good_run_passes(served: Served) -> None:
    assert served.judged().faults() == []


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (lose_an_object, "lost"),
        (lose_the_model, "lost"),
        (leave_an_object, "doubled"),
        (change_an_object, "differing"),
        (lose_an_artifact, "lost"),
        (repeat_an_artifact, "doubled"),
        (repeat_the_end, "doubled"),
        (repeat_a_step_after_the_end, "differing"),
        (leave_a_lease, "left"),
        (leave_a_key, "left"),
    ],
)
def test_what_is_wrong_is_seen(served: Served, wrong: Callable[[Served], None], kind: str) -> None:
    wrong(served)
    assert getattr(served.judged(), kind)


def test_a_run_that_never_was_is_lost(served: Served) -> None:
    assert any("unknown" in line for line in served.judge().judge(["no-such-run"], alone=False).lost)


def faults_of(*events: str) -> list[StreamFault]:
    """Of a run of 3 steps without artifacts, whose events are given as started2 or step3; it succeeds."""
    check = StreamCheck([], 3)
    found: list[StreamFault] = []
    for n, word in enumerate([*events, "succeeded0"], start=1):
        number = int(word[-1])
        found += check.follow({"type": word[:-1], "step": number, "done": number, "n": n, "fraction": n / 10})
    return [*found, *check.at_end()]


@pytest.mark.parametrize(
    "events",
    [
        ("started0", "step1", "step2", "step3"),
        ("started0", "step1", "step2", "started1", "step2", "step3"),
        ("started0", "step1", "started0", "started0", "step1", "step2", "step3"),
        ("started0", "step1", "step2", "step3", "started3"),
    ],
)
def test_steps_may_come_again_after_a_start(events: tuple[str, ...]) -> None:
    assert faults_of(*events) == []


@pytest.mark.parametrize(
    "events",
    [
        ("started0", "step1", "step3"),
        ("started0", "step1", "step2"),
        ("started0", "step1", "step1", "step2", "step3"),
        ("started0", "step1", "step2", "started2", "step2", "step3"),
        ("started2", "step3", "started1", "step2", "step3"),
    ],
)
def test_steps_come_in_order_and_none_is_left_out(events: tuple[str, ...]) -> None:
    assert {fault.kind for fault in faults_of(*events)} == {"differing"}


def test_a_cancelled_run_passes_where_a_cancel_was_asked_for(served: Served) -> None:
    served.redis.hset(keys.run_state(served.run_id), "state", "cancelled")
    assert served.judge().judge([served.run_id], alone=False, cancellable={served.run_id}).faults() == []
    assert served.judged().lost == [f"{served.run_id}: cancelled: None"]
