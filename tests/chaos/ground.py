"""Servers, workers that faults can be done to, and a client: what every scenario runs on."""

import contextlib
import itertools
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.chaos.load import recipe_of, undisturbed_run
from tests.chaos.victims import Fleet, Place, Victim
from tests.faults.judge import Judge
from tests.worker.serving import PREFIX, config_of, env_of
from worker.client import Client
from worker.history.verify import verify
from worker.local.services import LocalServices
from worker.serve.engine import Engine

LONGEST_WAIT_S = 240.0
"""Far more than anything here takes: only what hangs meets it."""
SETTINGS: Final[Mapping[str, object]] = {
    "scripted_delay_s": 0.01,
    "lease_s": 3.0,
    "reconcile_interval_s": 0.5,
    "visibility_timeout_s": 5,
    "outage_timeout_s": 300,
}
"""Of workers that notice within seconds what takes minutes elsewhere, and wait out every outage."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What came of a scenario."""

    name: str
    figures: str
    faults: Sequence[str]

    def __str__(self) -> str:
        return "\n".join([f"{self.name:<28} {self.figures}", *(f"  FAULT {fault}" for fault in self.faults)])


@dataclass
class Ground:
    """Where a scenario takes place."""

    services: LocalServices
    folder: Path
    env: Mapping[str, str]
    client: Client
    engine: Engine
    fleet: Fleet | None = None
    runs: list[str] = field(default_factory=list)
    """All that were submitted and are to be judged."""

    def have_workers(self, places: int | Sequence[Place]) -> Fleet:
        """These workers and no others; those that are there already stay when there are as many."""
        wanted = places if isinstance(places, int) else len(places)
        if self.fleet is None or len(self.fleet.victims) != wanted:
            self.dismiss()
            self.fleet = Fleet(places, self.env, self.folder / "fleet")
        return self.fleet

    def dismiss(self) -> None:
        """No workers."""
        if self.fleet is not None:
            self.fleet.stop()
            self.fleet = None

    def submit(self, run_id: str, recipe: Mapping[str, Any] | None = None) -> str:
        """The run of that name, with the recipe that belongs to the name unless another is given."""
        self.runs.append(run_id)
        return self.client.submit(recipe or recipe_of(run_id), run_id=run_id)

    def until(self, holds: Callable[[], object], what: str) -> None:
        """Wait, with the workers tended, until `holds()`. Raises TimeoutError."""
        deadline = time.monotonic() + LONGEST_WAIT_S
        while not holds():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not seen: {what}")
            if self.fleet is not None:
                self.fleet.tend()
            time.sleep(0.02)

    def is_over(self, run_id: str) -> bool:
        state = self.client.runs.state(run_id)
        return state is not None and state.is_final

    def until_over(self, run_ids: Sequence[str]) -> None:
        for run_id in run_ids:
            self.until(lambda one=run_id: self.is_over(one), f"the end of {run_id}")  # type: ignore[misc]

    def who_serves(self, run_id: str) -> Victim:
        """The worker that has the run, as soon as one has."""
        assert self.fleet is not None
        victims = self.fleet.victims
        while True:
            self.until(lambda: any(one.run_id == run_id for one in victims), f"a worker on {run_id}")
            for one in victims:
                if one.run_id == run_id:
                    return one

    def faults(self, run_ids: Sequence[str], *, recipe: Mapping[str, object] | None = None) -> list[str]:
        """All that is wrong with these runs, each of which is to have succeeded; of one `recipe`, or their own."""

        def expected(run_id: str) -> dict[str, bytes]:
            return undisturbed_run(run_id, self.engine, recipe)

        judge = Judge(self.client.redis, self.client.objects, PREFIX, expected)
        found = judge.judge(run_ids, alone=False).faults()
        whole = [verify(self.client.journal(run_id)) for run_id in run_ids if self.is_over(run_id)]
        return [*found, *(f"{one.run_id}: {flaw}" for one in whole for flaw in one.flaws)]

    def events(self, run_id: str) -> list[Mapping[str, object]]:
        return [event.to_document() for event in self.client.watch(run_id)]


@contextlib.contextmanager
def ground(folder: Path, services: LocalServices, *, database: int = 0, **settings: object) -> Iterator[Ground]:
    """A ground over servers that run, with an empty database of Redis; it ends with its workers."""
    env = env_of(services, database, **{**SETTINGS, **settings})
    engine = Engine(config_of({**env, "AUTOSEQ_SCRIPTED_DELAY_S": "0"}))
    with Client(config_of(env)) as client:
        client.redis.flushdb()
        made = Ground(services=services, folder=folder, env=env, client=client, engine=engine)
        try:
            yield made
        finally:
            made.dismiss()


def names(topic: str, seed: int, *, images: int = 0) -> Iterator[str]:
    """New names of runs whose recipes have at least so many images; the same for the same seed."""
    every = (f"{topic}-{seed}-{number:05d}" for number in itertools.count())
    return (name for name in every if recipe_of(name)["num_images"] >= images)


def moments(topic: str, seed: int) -> random.Random:
    """Where the chances of a scenario come from."""
    return random.Random(f"{topic}/{seed}")
