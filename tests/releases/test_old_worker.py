"""A worker of an earlier release starts from its wheel and serves a run of its snapshot."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from storage import keys
from storage.objects.s3 import S3Store
from tests.releases.old_worker import OldRelease
from tests.releases.restore import restore_bucket, restore_redis
from tests.worker.serving import DEADLINE_S, env_of, eventually, objects_of
from worker.local.services import LocalServices

DATABASE = 15
RELEASE = Path(__file__).parent / "0.1.0"
RUN = "queued"


@pytest.fixture
def old(tmp_path: Path) -> OldRelease:
    return OldRelease.unpack(RELEASE, tmp_path / "code")


@pytest.fixture
def redis(services: LocalServices) -> Iterator[Redis]:
    """A database with the snapshot's."""
    with Redis.from_url(f"{services.redis_url.rpartition('/')[0]}/{DATABASE}") as client:
        client.flushdb()
        restore_redis(RELEASE, client)
        yield client
        client.flushdb()


def test_the_old_code_is_imported(old: OldRelease) -> None:
    script = (
        "import core, recipes, storage, worker; print(*(room.__file__ for room in (core, recipes, storage, worker)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=old.env({}), cwd=old.code, capture_output=True, text=True, check=True
    )
    assert [Path(file).parent.parent for file in done.stdout.split()] == [old.code] * 4


def test_it_serves_a_run_of_its_snapshot(
    old: OldRelease, redis: Redis, services: LocalServices, s3_store: S3Store, prefix: str, tmp_path: Path
) -> None:
    restore_bucket(RELEASE, s3_store, prefix)
    log = tmp_path / "log"
    worker = old.start_worker(env_of(services, DATABASE, s3_prefix=prefix), log)
    try:
        eventually(lambda: redis.hget(keys.run_state(RUN), "state") == b"succeeded", f"the end of {RUN}")
    finally:
        worker.terminate()
        assert worker.wait(DEADLINE_S) == 0, log.read_text()
    expected = json.loads((RELEASE / "expected.json").read_text())[RUN]
    left = objects_of(s3_store, RUN, prefix=prefix)
    assert {name: hashlib.sha256(data).hexdigest() for name, data in left.items()} == expected


def test_one_signal_to_its_process_group_ends_it_with_its_child(
    old: OldRelease, services: LocalServices, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    worker = old.start_worker(env_of(services, DATABASE), log)
    try:
        eventually(lambda: " ready." in log.read_text() or worker.poll() is not None, "a worker that is ready")
        children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
        assert children
        assert {os.getpgid(int(child)) for child in children} == {worker.pid}
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
    assert worker.wait(DEADLINE_S) == -signal.SIGKILL
