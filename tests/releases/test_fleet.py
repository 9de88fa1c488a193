"""Workers of this release finish what 0.1.0 left, alone and beside workers of 0.1.0 on one queue."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from redis import Redis

from storage.errors import RunNotFoundError
from storage.journal import Journal
from storage.objects.s3 import S3Store
from storage.redis.state import RunState
from tests.releases.old_worker import OldRelease
from tests.releases.restore import PREFIX, restore_bucket, restore_redis
from tests.worker.serving import WorkerProcess, config_of, env_of, eventually, objects_of, ready_worker, recipe
from worker.client import Client
from worker.errors import RunCancelled
from worker.history.verify import verify
from worker.jobs.stored_recipe import read_stored_recipe
from worker.local.services import LocalServices
from worker.settings import PROJECT

DATABASE = 13
RELEASE = Path(__file__).parent / "0.1.0"
EXPECTED: dict[str, dict[str, str]] = json.loads((RELEASE / "expected.json").read_text())
TINY = "inflight-tiny"
STARTED = [run_id for run_id in EXPECTED if run_id != TINY and (RELEASE / "bucket" / PREFIX / run_id).is_dir()]
PAGE = "index.html"
"""A view, which each release draws in its own way."""
SUBMIT = """
import sys
from worker.client import Client
from worker.settings import Settings
with Client(Settings()) as client:
    for number in range(int(sys.argv[1])):
        print(client.submit({"name": "old", "context": [{"text": f"A cat {number}"}], "num_images": 2, "think": True}))
"""


@pytest.fixture
def env(services: LocalServices) -> dict[str, str]:
    """Of workers of either release: a sign of life is missed after seconds."""
    return env_of(
        services, DATABASE, s3_prefix=PREFIX, scripted_delay_s=0.002, visibility_timeout_s=5, lease_s=3, max_attempts=9
    )


@pytest.fixture
def left_by_0_1(services: LocalServices, s3_store: S3Store) -> Iterator[None]:
    """The snapshot, in a database of its own and where its messages look for its objects."""
    with Redis.from_url(f"{services.redis_url.rpartition('/')[0]}/{DATABASE}") as redis:
        redis.flushdb()
        for key in list(s3_store.list(f"{PREFIX}/")):
            s3_store.delete(key)
        restore_redis(RELEASE, redis)
        restore_bucket(RELEASE, s3_store, PREFIX)
        yield
        redis.flushdb()


@pytest.fixture
def old(tmp_path: Path) -> OldRelease:
    return OldRelease.unpack(RELEASE, tmp_path / "code")


def hashes_of(store: S3Store, run_id: str) -> dict[str, str]:
    """What a run left, but for what a release may add or draw in its own way."""
    left = objects_of(store, run_id, prefix=PREFIX)
    return {name: hashlib.sha256(data).hexdigest() for name, data in left.items() if name != PAGE}


def open_runs(client: Client) -> list[RunState]:
    """The scripted runs that have no final state."""
    return [state for state in client.list(100) if not state.is_final and state.run_id != TINY]


def check_whole(client: Client, store: S3Store, run_id: str) -> None:
    journal = Journal(store, PREFIX, run_id)
    flaws = [str(flaw) for flaw in verify(journal).flaws]
    assert flaws == [], run_id
    assert client.state(run_id).state == "succeeded"


def kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


@pytest.mark.usefixtures("left_by_0_1")
def test_new_workers_finish_what_0_1_0_left_in_its_bytes(
    env: dict[str, str], s3_store: S3Store, tmp_path: Path
) -> None:
    with ready_worker(env, tmp_path / "log"), Client(config_of(env)) as client:
        client.resume("failed")
        client.resume("cancelled")
        eventually(lambda: not open_runs(client), "the end of every run", deadline_s=180)
        for run_id in STARTED:
            expected = {name: sha256 for name, sha256 in EXPECTED[run_id].items() if name != PAGE}
            assert hashes_of(s3_store, run_id) == expected, run_id
        for run_id in EXPECTED:
            if run_id != TINY:
                check_whole(client, s3_store, run_id)
        assert {run_id: client.state(run_id).state for run_id in ("refused", "withdrawn")} == {
            "refused": "failed",
            "withdrawn": "cancelled",
        }
        with pytest.raises(RunCancelled):
            client.result("withdrawn", timeout_s=1)


@pytest.mark.usefixtures("left_by_0_1")
def test_a_run_on_tiny_bagel_is_continued_from_its_commits(
    env: dict[str, str], s3_store: S3Store, tmp_path: Path
) -> None:
    before = hashes_of(s3_store, TINY)
    tiny = {**env, "AUTOSEQ_MODEL": str(PROJECT / "models" / "tiny-bagel")}
    with ready_worker(tiny, tmp_path / "log"), Client(config_of(env)) as client:
        client.result(TINY, timeout_s=120)
        check_whole(client, s3_store, TINY)
    after = hashes_of(s3_store, TINY)
    assert {name: after[name] for name in before if name.startswith(("commits", "recipe"))} == {
        name: sha256 for name, sha256 in before.items() if name.startswith(("commits", "recipe"))
    }
    assert set(after) == set(EXPECTED[TINY]) - {PAGE}


@pytest.mark.usefixtures("left_by_0_1")
def test_old_and_new_workers_finish_every_run_of_one_queue(
    env: dict[str, str], old: OldRelease, s3_store: S3Store, tmp_path: Path
) -> None:
    """Runs of both clients, and those of the snapshot; each worker is killed once in the middle of a run."""
    done = subprocess.run(
        [sys.executable, "-c", SUBMIT, "8"], env=old.env(env), cwd=old.code, capture_output=True, text=True, check=True
    )
    with Client(config_of(env)) as client, ExitStack() as workers:

        def start_old(name: str) -> subprocess.Popen[bytes]:
            started = old.start_worker(env, tmp_path / name)
            workers.callback(started.wait)
            workers.callback(kill_group, started.pid)
            return started

        run_ids = [*done.stdout.split(), *(client.submit(recipe(seed=number)) for number in range(8))]
        new_worker = workers.enter_context(WorkerProcess(env, tmp_path / "new"))
        old_worker = start_old("old")
        eventually(lambda: _finished(client, run_ids) >= 3, "some finished runs", deadline_s=120)
        new_worker.kill()
        kill_group(old_worker.pid)
        old_worker.wait()
        new_worker = workers.enter_context(WorkerProcess(env, tmp_path / "new again"))
        old_worker = start_old("old again")
        eventually(lambda: not open_runs(client), "the end of every run", deadline_s=240)
        for run_id in run_ids:
            check_whole(client, s3_store, run_id)
            assert read_stored_recipe(Journal(s3_store, PREFIX, run_id)).recipe.num_images == 2
        for run_id in EXPECTED:
            if run_id != TINY:
                check_whole(client, s3_store, run_id)
        with pytest.raises(RunNotFoundError):
            client.state("never-submitted")
        assert new_worker.stop() == 0, new_worker.output
        old_worker.terminate()
        assert old_worker.wait(60) == 0
    for name in ("new", "old"):
        logs = (tmp_path / name).read_text() + (tmp_path / f"{name} again").read_text()
        assert "succeeded" in logs, f"the {name} workers served nothing"


def _finished(client: Client, run_ids: list[str]) -> int:
    return sum(client.state(run_id).is_final for run_id in run_ids)
