"""A run's life as a machine with rules: what may happen to it, in any order; its promises hold after each step."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from storage.redis.state import FINAL
from tests.properties.attempts import Attempt, Trouble
from tests.properties.promises import look_at_rest, promised
from tests.properties.world import DOCUMENTS, World
from worker.local.services import LocalServices

MOST_RUNS = 5
MOST_WORKERS = 3
STEPS_AN_EXAMPLE = 50

which = st.integers(0, 11)
"""Which of those that are there."""
ticks = st.integers(0, 8)
troubles = st.builds(
    Trouble,
    service=st.sampled_from(["S3", "Redis"]),
    calls=st.integers(0, 12),
    effect=st.sampled_from(["before", "after"]),
    kills=st.booleans(),
)
T = TypeVar("T", bound=Callable[..., Any])


class LifeOfRuns(RuleBasedStateMachine):
    """A few runs, and up to three workers; each of them may be one that was given up for dead."""

    services: ClassVar[LocalServices]
    folder: ClassVar[Path]
    counts: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.services, self.folder)
        self.keyed: dict[str, str] = {}
        """Run ids by idempotency key, or by the document that stands for itself."""

    def _happens(self, name: str) -> None:
        self.counts[name] += 1

    def _run(self, index: int) -> str:
        return [*self.world.runs][index % len(self.world.runs)]

    def _attempt(self, index: int) -> Attempt:
        return self.world.attempts[index % len(self.world.attempts)]

    # The client.

    @precondition(lambda self: len(self.world.runs) < MOST_RUNS)
    @rule(document=st.sampled_from(DOCUMENTS), key=st.sampled_from([None, None, "first", "second"]), ticks=ticks)
    def submit(self, document: dict[str, Any], key: str | None, ticks: int) -> None:
        self._happens("submit")
        run_id = self.world.submit(document, idempotency_key=key)
        if key:
            promised(self.keyed.setdefault(key, run_id) == run_id, f"{key}: a second run, {run_id}")
        self._take_at_once(ticks)

    def _take_at_once(self, ticks: int) -> None:
        """A worker takes the next message, and comes so far; at 0 none does."""
        if ticks and self.world.waiting and len(self.world.attempts) < MOST_WORKERS:
            self.world.take()
            if self.world.attempts:
                self.world.go_on(self.world.attempts[-1], ticks)

    @precondition(lambda self: len(self.world.runs) < MOST_RUNS)
    @rule(document=st.sampled_from(DOCUMENTS))
    def submit_the_same_work(self, document: dict[str, Any]) -> None:
        self._happens("submit: dedupe")
        run_id = self.world.submit(document, dedupe=True)
        promised(self.keyed.setdefault(document["name"], run_id) == run_id, f"{document['name']}: done twice")

    @precondition(lambda self: self.world.attempts)
    @rule(index=which)
    def submit_again(self, index: int) -> None:
        self._happens("submit: same id")
        run_id, before = self._run(index), self.world.waiting
        again = self.world.client.submit(self.world.runs[run_id].document, run_id=run_id)
        promised((again, self.world.waiting) == (run_id, before), f"{run_id}: queued again as {again}")

    @precondition(lambda self: self.world.attempts)
    @rule(index=which)
    def cancel(self, index: int) -> None:
        self._happens("cancel")
        self.world.client.cancel(self._run(index))

    @precondition(lambda self: self._ended())
    @rule(index=which, ticks=ticks)
    def resume(self, index: int, ticks: int) -> None:
        self._happens("resume")
        ended = self._ended()
        run_id = ended[index % len(ended)]
        before = self.world.client.state(run_id).state
        promised(self.world.resume(run_id) == (before != "succeeded"), f"{run_id}: resumed from {before}")
        self._take_at_once(ticks)

    def _ended(self) -> list[str]:
        return [run_id for run_id in self.world.runs if self.world.client.state(run_id).state in FINAL]

    # The broker.

    @precondition(lambda self: self.world.runs and self.world.waiting < MOST_WORKERS)
    @rule(index=which, ticks=ticks)
    def deliver_twice(self, index: int, ticks: int) -> None:
        self._happens("duplicate")
        self.world.duplicate(self._run(index))
        self._take_at_once(ticks)

    @precondition(lambda self: self.world.waiting and self.world.attempts)
    @rule()
    def lose_a_message(self) -> None:
        self._happens("lose message")
        self.world.lose_a_message()

    @precondition(lambda self: self.world.adrift)
    @rule()
    def give_back_a_message(self) -> None:
        self._happens("redeliver")
        self.world.give_back_a_message()

    # The workers.

    @precondition(lambda self: self.world.waiting and len(self.world.attempts) < MOST_WORKERS)
    @rule(trouble=st.none() | st.none() | troubles)
    def take(self, trouble: Trouble | None) -> None:
        self._happens("take" if trouble is None else f"take: {_word(trouble)}")
        self.world.take([trouble] if trouble else [])

    @precondition(lambda self: self.world.attempts)
    @rule(index=which, ticks=st.integers(1, 8))
    def go_on(self, index: int, ticks: int) -> None:
        self._happens("go on")
        self.world.go_on(self._attempt(index), ticks)

    @precondition(lambda self: self.world.attempts)
    @rule(index=which)
    def go_on_to_the_end(self, index: int) -> None:
        self._happens("go on: to the end")
        self.world.go_on(self._attempt(index), 10**6)

    @precondition(lambda self: self.world.attempts)
    @rule(index=which, ticks=st.integers(1, 12))
    def go_on_ahead_of_the_uploads(self, index: int, ticks: int) -> None:
        self._happens("go on: uploads lag")
        attempt = self._attempt(index)
        attempt.hold_uploads(held=True)
        self.world.go_on(attempt, ticks)

    @precondition(lambda self: self.world.attempts)
    @rule(index=which, ticks=st.sampled_from([1, 3, 10**6]), trouble=troubles)
    def go_on_into_trouble(self, index: int, ticks: int, trouble: Trouble) -> None:
        self._happens(_word(trouble))
        attempt = self._attempt(index)
        attempt.hold_uploads(held=False)
        attempt.expect(trouble)
        self.world.go_on(attempt, ticks)

    @precondition(lambda self: self.world.attempts)
    @rule(index=which)
    def kill(self, index: int) -> None:
        self._happens("kill")
        self.world.kill(self._attempt(index))

    @precondition(lambda self: self.world.attempts)
    @rule(index=which)
    def drain(self, index: int) -> None:
        self._happens("drain")
        self.world.drain(self._attempt(index))

    @precondition(lambda self: self.world.are_leases_held)
    @rule()
    def lapse(self) -> None:
        self._happens("lapse")
        self.world.let_leases_lapse()

    @precondition(lambda self: len(self._ended()) < len(self.world.runs))
    @rule(ticks=ticks)
    def reconcile(self, ticks: int) -> None:
        self._happens("reconcile")
        self.world.reconcile()
        self._take_at_once(ticks)

    @invariant()
    def every_promise_holds(self) -> None:
        self.world.look()

    def teardown(self) -> None:
        try:
            self.world.bring_all_to_an_end()
            for run in self.world.runs.values():
                run.look_at_every_byte()
            look_at_rest(self.world.redis)
        finally:
            self.world.close()


def _word(trouble: Trouble) -> str:
    return f"{trouble.service} {'kill' if trouble.kills else 'fault'} {trouble.effect} its effect"


def live(services: LocalServices, folder: Path, *, examples: int, number: int) -> None:
    """So many lives, the same for the same `number`. Raises what broke, with the steps that led there."""
    machine = type("Life", (LifeOfRuns,), {"services": services, "folder": folder})
    run_state_machine_as_test(
        seed(number)(machine),
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS_AN_EXAMPLE,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
