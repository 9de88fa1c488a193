"""A client, a broker, a reconciler and workers around the real Redis and S3; time passes when the test says."""

import base64
import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

from redis import Redis

from core.scripted import SPEC
from storage import keys
from storage.objects.s3 import S3Store
from storage.redis.reconcile import Reconciler
from storage.redis.record import RunRecord
from storage.redis.state import RunState
from tests.properties.attempts import Attempt, Clock, Trouble
from tests.properties.promises import Watched, promised
from tests.worker.serving import config_of, env_of, picture_uri
from worker.app import publish
from worker.client import Client
from worker.jobs.request import RunRequest
from worker.local.services import LocalServices

DATABASE: Final = 12
LEASE_S: Final = 600.0
"""Far more than a test takes: here leases lapse when the test says."""
QUEUE: Final = "model.scripted"
MESSAGES: Final = keys.broker_list(keys.queue_slot(QUEUE, 3))


def documents() -> list[dict[str, Any]]:
    """Short recipes with steps of every kind."""
    given = {"image": picture_uri((90, 40, 80))}
    settings = {
        "image": {"width": 64, "height": 64, "num_timesteps": 3},
        "text": {"max_new_tokens": 3},
        "context": [{"text": "A cat"}],
    }
    return [
        {"name": "thinking", "num_images": 2, "think": True, **settings},
        {"name": "one-image", **settings},
        {"name": "given", "num_images": 3, "auto_refine": False, "refinement_prompts": ["larger", "bluer"], **settings},
        {"name": "forgetting", "num_images": 3, "max_context_items": 2, **settings},
        {
            "name": "judged",
            "variations_per_image": 2,
            "select": "judge",
            "retry": {"below": 0.6, "times": 1},
            **settings,
        },
        {"name": "tree", "num_images": 2, "variations_per_image": 2, "select": "tree", **settings},
        {
            "name": "editing",
            "num_images": 2,
            **settings,
            "context": [{"text": "A cat"}, given],
        },
    ]


DOCUMENTS: Final = documents()


class World:
    """Everything that is there, empty at first."""

    def __init__(self, services: LocalServices, folder: Path) -> None:
        self.config = config_of(env_of(services, DATABASE, lease_s=LEASE_S, step_timeout_s=1e9, run_timeout_s=1e9))
        self.client = Client(self.config)
        self.store = cast("S3Store", self.client.objects)
        self.redis: Redis = self.client.redis
        self.clock, self.lookout = Clock(), Clock()
        self.runs: dict[str, Watched] = {}
        self.attempts: list[Attempt] = []
        """Those under way, and no others."""
        self.adrift: list[str] = []
        """Messages that a worker took with it when it died: the broker may give them back."""
        self._folder = folder
        self._name = secrets.token_hex(6)
        self._taken: dict[Attempt, str] = {}
        self._tokens: dict[Attempt, str] = {}
        self._reconciler = Reconciler(self.redis, self._publish, grace_s=LEASE_S, clock=self.lookout)
        self.redis.flushdb()
        self.client.runs.announce(SPEC.name, SPEC.to_json(), SPEC.to_json_0_1())

    def close(self) -> None:
        for attempt in self.attempts:
            attempt.kill()
        self.client.close()

    # The client.

    def submit(self, document: dict[str, Any], **options: Any) -> str:
        """A run that is not there yet, or the one that stands for it."""
        name = f"life-{self._name}-{len(self.runs)}"
        run_id = self.client.submit(document, run_id=name, **options)
        if run_id == name:
            self.runs[run_id] = Watched(self.redis, self.store, run_id, document)
        return run_id

    def resume(self, run_id: str) -> bool:
        self.runs[run_id].may_go_on = True
        return self.client.resume(run_id)

    # The broker.

    @property
    def are_leases_held(self) -> bool:
        return any(self._token_of(run_id) for run_id in self.runs)

    @property
    def waiting(self) -> int:
        return self.redis.llen(MESSAGES)

    def duplicate(self, run_id: str) -> None:
        self._publish(self.client.runs.record(run_id))

    def lose_a_message(self) -> None:
        self.redis.rpop(MESSAGES)

    def give_back_a_message(self) -> None:
        self.redis.rpush(MESSAGES, self.adrift.pop(0))

    def _publish(self, record: RunRecord) -> None:
        with self.client.app.connection_for_write() as connection:
            publish(self.client.app, RunRequest.of(record), record.queue, connection)

    # The workers.

    def take(self, troubles: Sequence[Trouble] = ()) -> None:
        """A worker takes the next message, and stands at its first step if it may have the run."""
        raw = cast("str", self.redis.rpop(MESSAGES))
        message = json.loads(raw)
        args, kwargs, _ = json.loads(base64.b64decode(message["body"]))
        asked = RunRequest.parse(message["headers"]["id"], args, kwargs)
        held = self._token_of(asked.run_id)
        flag = self._folder / secrets.token_hex(8)
        attempt = Attempt(asked, config=self.config, store=self.store, clock=self.clock, flag=flag, troubles=troubles)
        promised(not (held and attempt.began), f"{asked.run_id}: a second owner, while the first holds its lease")
        token = self._token_of(asked.run_id)
        if token and token != held:
            self._tokens[attempt] = token
        self.attempts.append(attempt)
        self._taken[attempt] = raw
        self._settle(attempt)

    def go_on(self, attempt: Attempt, ticks: int) -> None:
        """Let an attempt take so many steps of its own; one that lost its run may take one."""
        owner = self._token_of(attempt.request.run_id)
        attempt.go_on(ticks)
        if owner not in (None, self._tokens.get(attempt)) and ticks > 1:
            words = f"{attempt.request.run_id}: goes on though another has its lease; ended: {attempt.ended}"
            promised(attempt.ended in {"lease lost", "killed", "cancelled"}, words)
        self._settle(attempt)

    def kill(self, attempt: Attempt) -> None:
        attempt.kill()
        self._settle(attempt)

    def drain(self, attempt: Attempt) -> None:
        """The worker shuts down, and its run is handed back before its next step."""
        attempt.runtime.drain.raise_()
        self.go_on(attempt, 10**6)

    def let_leases_lapse(self) -> None:
        """Every worker has stood still for longer than a lease."""
        self.clock.now += LEASE_S + 1
        for run_id in self.runs:
            self.redis.delete(keys.run_lease(run_id))
            self.redis.zadd(keys.LEASES, {run_id: 0}, xx=True)

    def reconcile(self) -> None:
        """The reconciler looks, and again after its delay."""
        held = {run_id for run_id in self.runs if self._token_of(run_id)}
        again = self._reconciler.requeue_lost()
        self.lookout.now += LEASE_S
        again += self._reconciler.requeue_lost()
        promised(held.isdisjoint(again), f"queued again while held: {held.intersection(again)}")

    def _token_of(self, run_id: str) -> str | None:
        return cast("str | None", self.redis.get(keys.run_lease(run_id)))

    def _settle(self, attempt: Attempt) -> None:
        """What becomes of the message of an attempt that is over."""
        promised(not attempt.store.overwritten, f"put over: {attempt.store.overwritten}")
        if not attempt.is_over:
            return
        if attempt.unforeseen:
            raise attempt.unforeseen
        self.attempts.remove(attempt)
        raw = self._taken.pop(attempt)
        if attempt.ended == "killed":
            self.adrift.append(raw)
        elif attempt.ended == "rejected":
            self.redis.rpush(MESSAGES, raw)

    # The end.

    def look(self) -> list[RunState]:
        """Every promise, for every run."""
        return [run.look() for run in self.runs.values()]

    def bring_all_to_an_end(self, rounds: int = 30) -> None:
        """Let everything go on without further trouble. Raises Broken when a run has no end then."""
        for attempt in [*self.attempts]:
            self.go_on(attempt, 10**6)
        for _ in range(rounds):
            while self.adrift:
                self.give_back_a_message()
            self.let_leases_lapse()
            self.reconcile()
            while self.waiting:
                self.take()
                for attempt in [*self.attempts]:
                    self.go_on(attempt, 10**6)
            states = self.look()
            for state in states:
                if state.state == "failed":
                    self.resume(state.run_id)
            if all(state.state in {"succeeded", "cancelled"} for state in states):
                self.reconcile()  # which clears away what believes to wait
                return
        promised(holds=False, words=f"no end after {rounds} rounds: {[(one.run_id, one.state) for one in states]}")
