"""Celery's own controls: a revoke is a cancel, every stop drains, and what breaks one run per process is refused."""

import fcntl
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from storage.events import Started
from storage.objects.s3 import S3Store
from tests.worker.serving import (
    DEADLINE_S,
    WorkerProcess,
    celery_result,
    empty_database,
    env_of,
    eventually,
    objects_of,
    ready_worker,
    recipe,
    request,
    start_long_run,
)
from worker.app import RECORDED, TASK, write_record
from worker.client import Client
from worker.local.services import LocalServices
from worker.serve.temp_folder import TempFolder
from worker.settings import queue_of

DATABASE = 12


def settings_of(services: LocalServices) -> dict[str, str]:
    return env_of(services, DATABASE, scripted_delay_s=0.002, visibility_timeout_s=5, lease_s=3)


@pytest.fixture(scope="module")
def worker(services: LocalServices, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    env = settings_of(services)
    empty_database(env)
    with ready_worker(env, tmp_path_factory.mktemp("controlled") / "log", "--hostname", "first@x") as started:
        yield started


@pytest.fixture
def start(services: LocalServices, tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Starts further workers with a folder for temporary files of their own; none outlives the test."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    logs = (tmp_path / f"log{number}" for number in itertools.count())
    with ExitStack() as started:

        def one(*options: str, inside: Sequence[str] = ()) -> WorkerProcess:
            env = settings_of(services) | {"TMPDIR": str(folder)}
            return started.enter_context(WorkerProcess(env, next(logs), *options, inside=inside))

        yield one


@pytest.fixture
def own(worker: WorkerProcess) -> Iterator[Client]:
    with Client(worker.config) as opened:
        yield opened


def end_of_run(client: Client, run_id: str) -> str:
    eventually(lambda: client.state(run_id).is_final, f"the end of {run_id}")
    return client.state(run_id).state


# A revoke is a cancel


def test_a_revoke_cancels_what_runs_and_what_waits_and_both_can_be_resumed(worker: WorkerProcess, own: Client) -> None:
    running = start_long_run(own)
    waiting = own.submit(recipe())
    own.app.AsyncResult(running).revoke()
    own.app.control.revoke([waiting])
    assert [end_of_run(own, run_id) for run_id in (running, waiting)] == ["cancelled", "cancelled"]
    states = {celery_result(worker, run_id).state for run_id in (running, waiting)}
    assert states == {"FAILURE"}, "as after a cancel: the error is RunCancelled"
    assert own.resume(waiting)
    own.result(waiting, timeout_s=DEADLINE_S)
    assert own.count_open() == 0


def test_a_run_whose_process_is_terminated_ends_cancelled_and_can_be_resumed(
    worker: WorkerProcess, own: Client
) -> None:
    running = start_long_run(own)
    (child,) = worker.children()
    own.app.control.revoke(running, terminate=True, signal="KILL")
    assert end_of_run(own, running) == "cancelled"
    assert celery_result(worker, running).state == "REVOKED"
    eventually(lambda: child not in worker.children(), "the end of the child")
    assert own.resume(running)
    eventually(lambda: own.state(running).state == "running", "the run in progress again")
    own.app.control.broadcast("terminate", arguments={"task_id": [running], "signal": "TERM"})
    assert end_of_run(own, running) == "cancelled"


def test_a_revoke_of_what_is_no_run_does_nothing(own: Client) -> None:
    running = start_long_run(own)
    replies = own.app.control.revoke([running[:8], "a b", "nobody"], reply=True, timeout=DEADLINE_S, limit=1)
    assert replies
    assert "error" not in str(replies)
    assert own.runs.state("nobody") is None
    assert own.runs.state(running[:8]) is None
    assert own.state(running).state == "running"
    own.cancel(running)
    assert end_of_run(own, running) == "cancelled"


def test_a_message_that_celery_itself_discards_ends_its_run(own: Client) -> None:
    own.app.control.revoke("known-later", reply=True, timeout=DEADLINE_S, limit=1)
    assert own.submit(recipe(), run_id="known-later") == "known-later"
    assert end_of_run(own, "known-later") == "cancelled"
    late = request("too-late")
    write_record(own.runs, late, queue=queue_of("scripted"), model="scripted")
    own.app.send_task(
        TASK,
        kwargs=late.kwargs(),
        task_id=late.run_id,
        queue=queue_of("scripted"),
        expires=datetime.now(UTC) - timedelta(hours=1),
        headers={RECORDED: True},
    )
    assert end_of_run(own, "too-late") == "cancelled"
    for run_id in ("known-later", "too-late"):
        assert own.resume(run_id)
        own.result(run_id, timeout_s=DEADLINE_S)


@pytest.mark.parametrize("command", ["pool_grow", "pool_shrink", "autoscale", "time_limit"])
def test_commands_that_break_one_run_per_process_are_refused(worker: WorkerProcess, own: Client, command: str) -> None:
    child = worker.children()
    replies: Any = own.app.control.broadcast(command, arguments={}, reply=True, timeout=DEADLINE_S, limit=1)
    ((answer,),) = (reply.values() for reply in replies)
    assert "one run at a time" in answer["error"]
    assert worker.children() == child


# Every stop drains


def namespace() -> Sequence[str]:
    """A command that gives another one process ids of its own, as a container does; none where that is forbidden."""
    command = ["unshare", "--pid", "--fork", "--mount-proc"]
    allowed = shutil.which("unshare") and subprocess.run([*command, "true"], check=False, capture_output=True)
    return command if allowed and allowed.returncode == 0 else []


def celery_parent(worker: WorkerProcess) -> int:
    """The parent process of a worker, which may run in a namespace."""
    pid = worker.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if worker.process.args[0] == "unshare" else pid  # type: ignore[index]


def test_control_shutdown_and_sighup_drain_one_worker_and_none_with_the_same_process_id(
    worker: WorkerProcess, own: Client, start: Callable[..., WorkerProcess], s3_store: S3Store, tmp_path: Path
) -> None:
    one, other = (start("--hostname", f"{name}@x", inside=namespace()) for name in ("one", "other"))
    for started in (one, other):
        started.wait_until_loaded()
    runs = [start_long_run(own) for _ in range(3)]
    eventually(lambda: all(own.state(run_id).step == 3 for run_id in runs), "an image under way in each")
    of_one, of_other, elsewhere = (
        next(run_id for run_id in runs if started.received(run_id)) for started in (one, other, worker)
    )
    own.app.control.shutdown(destination=["one@x"])
    assert one.process.wait(DEADLINE_S) == 0
    assert own.state(of_one).state == "queued"
    assert own.state(of_other).state == "running"
    own.app.control.revoke(elsewhere, destination=["other@x"])  # it reaches a run on another worker
    assert end_of_run(own, elsewhere) == "cancelled"
    eventually(lambda: own.state(of_one).state == "running", "the run on the free worker")
    os.kill(celery_parent(other), signal.SIGHUP)
    assert other.process.wait(DEADLINE_S) == 0
    assert own.state(of_other).state == "queued"
    for run_id in (of_one, of_other):
        own.cancel(run_id)
        assert end_of_run(own, run_id) == "cancelled"
        done = [event.done for event in own.watch(run_id) if isinstance(event, Started)]
        assert done == sorted(done)
        assert "commits/003.json" in objects_of(s3_store, run_id)
    assert "Traceback" not in one.output + other.output
    assert list((tmp_path / "tmp").iterdir()) == []


# What a killed worker leaves, and what is refused


def test_a_worker_removes_what_killed_ones_left_and_nothing_else(
    start: Callable[..., WorkerProcess], tmp_path: Path
) -> None:
    folder = tmp_path / "tmp"
    (folder / "autoseq-worker-file").write_text("of somebody else")
    killed = [start() for _ in range(2)]
    for one in killed:
        one.wait_until_ready()
    left = {path for path in folder.iterdir() if path.is_dir()}
    assert len(left) == len(killed)
    for one in killed:
        one.kill()
    living = start()
    living.wait_until_ready()
    (its_folder,) = (path for path in folder.iterdir() if path.is_dir())
    assert its_folder not in left
    assert list(its_folder.glob("pymp-*"))
    assert living.stop() == 0
    assert [path.name for path in folder.iterdir()] == ["autoseq-worker-file"]


def test_folders_of_ten_killed_workers_are_removed_and_no_locked_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create() -> TempFolder:
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setattr(tempfile, "tempdir", None)
        return TempFolder.create()

    living = create()
    assert tempfile.gettempdir() == os.environ["TMPDIR"] == str(living.path)
    for number in range(10):
        (tmp_path / f"autoseq-worker-{number}").mkdir()
        (tmp_path / f"autoseq-worker-{number}" / "lock").touch()
    (tmp_path / "autoseq-worker-unlocked").mkdir()  # its worker was killed before it locked it
    (tmp_path / "autoseq-worker-link").symlink_to(tmp_path.parent)
    with (tmp_path / "autoseq-worker-5" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        another = create()
    kept = {"autoseq-worker-5", "autoseq-worker-link"}
    assert {path.name for path in tmp_path.iterdir()} == {living.path.name, another.path.name, *kept}
    another.remove()
    living.remove()
    assert {path.name for path in tmp_path.iterdir()} == kept


REFUSED = {
    "--concurrency is 4; allowed: 1": ["-c", "4"],
    "--autoscale is (4, 1); allowed: none": ["--autoscale", "4,1"],
    "--beat is True; allowed: none": ["-B"],
    "--time-limit is 5.0; allowed: none": ["--time-limit", "5"],
    "--prefetch-multiplier is 4; allowed: 1": ["--prefetch-multiplier", "4"],
    "--pool-start-method is fork; allowed: spawn": ["--pool-start-method", "fork"],
}


def test_options_that_break_one_run_per_process_are_refused(start: Callable[..., WorkerProcess]) -> None:
    started = {words: start(*options) for words, options in REFUSED.items()}
    for words, worker in started.items():
        assert worker.process.wait(DEADLINE_S) == 2, worker.output
        assert f"autosequence: this worker can't start: {words}\n" in worker.output
