"""Trees and retries on tiny-bagel outlive their worker: killed in the middle, they end in the same bytes."""

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from core.bagel import Bagel
from core.plan import plan
from recipes.load import load
from storage import keys
from storage.events import Started
from storage.objects.s3 import S3Store
from tests.worker.serving import (
    DEADLINE_S,
    PREFIX,
    WorkerProcess,
    empty_database,
    env_of,
    eventually,
    objects_of,
    recipe,
    request,
    undisturbed,
)
from worker.client import Client
from worker.local.services import LocalServices
from worker.settings import PROJECT

DATABASE = 11
LOADING_DEADLINE_S = 5 * DEADLINE_S
"""Each worker and each child here loads the model anew."""
MODEL = PROJECT / "models" / "tiny-bagel"
SMALL: dict[str, Any] = {
    "think": False,
    "variations_per_image": 2,
    "image": {"num_timesteps": 16},
    "text": {"max_new_tokens": 8},
}
TREE = recipe(**SMALL, select="tree")
RETRIED = recipe(**SMALL, select="judge", retry={"below": 1.0, "times": 2})


@pytest.fixture(scope="module")
def model() -> Bagel:
    return Bagel.load(MODEL, device="cpu")


class Fleet:
    """One worker at a time on tiny-bagel; the next starts when the one before is killed."""

    def __init__(self, services: LocalServices, logs: Path) -> None:
        self._env = env_of(services, DATABASE, model=MODEL, lease_s=3, reconcile_interval_s=0.5, visibility_timeout_s=5)
        empty_database(self._env)
        self._logs = (logs / str(number) for number in itertools.count())
        self.worker = WorkerProcess(self._env, next(self._logs))

    def kill_child(self) -> None:
        self.worker.kill_child()

    def kill_worker(self) -> None:
        self.worker.kill()
        self.worker = WorkerProcess(self._env, next(self._logs))


@pytest.fixture
def fleet(services: LocalServices, tmp_path: Path) -> Iterator[Fleet]:
    started = Fleet(services, tmp_path)
    yield started
    with started.worker as worker:
        assert worker.stop() == 0, worker.output


@pytest.mark.parametrize(
    ("asked", "steps", "child_dies_after", "worker_dies_after"),
    [(TREE, 6, 2, 4), (RETRIED, 8, 3, 6)],
    ids=["a tree of 2 x 2", "two images, each drawn three times"],
)
def test_it_ends_in_the_same_bytes_after_the_child_and_then_the_whole_worker_are_killed(
    asked: dict[str, Any],
    steps: int,
    child_dies_after: int,
    worker_dies_after: int,
    fleet: Fleet,
    model: Bagel,
    s3_store: S3Store,
    run_id: str,
) -> None:
    assert len(plan(load(asked, spec=model.spec))) == steps
    with Client(fleet.worker.config) as client:
        client.submit(asked, run_id=run_id)
        for last, kill in ((child_dies_after, fleet.kill_child), (worker_dies_after, fleet.kill_worker)):
            committed = f"{PREFIX}/{run_id}/{keys.commit(last)}"
            eventually(partial(s3_store.exists, committed), f"step {last}", deadline_s=LOADING_DEADLINE_S)
            kill()
        assert client.result(run_id, timeout_s=LOADING_DEADLINE_S)["state"] == "succeeded"
        starts = [event.done for event in client.watch(run_id) if isinstance(event, Started)]
    assert len(starts) == 3
    assert starts[0] == 0
    assert starts[1] >= child_dies_after
    assert starts[2] >= worker_dies_after
    assert objects_of(s3_store, run_id) == undisturbed(request(run_id, asked), model)
