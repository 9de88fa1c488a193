"""Builders for the tests of serving: settings, recipes, real worker processes, and runs without any disturbance."""

import base64
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from PIL import Image

from core.events import Event
from core.plan import Step
from core.protocol import UnifiedModel
from core.scripted import ScriptedModel
from recipes.model_spec import ModelSpec
from storage.journal import Commit, Journal, Manifest
from storage.objects import ObjectStore
from storage.objects.memory import MemoryStore
from storage.retry import RetryPolicy
from storage.uploader import UploadLimits
from worker.app import make_app
from worker.client import Client
from worker.connections import connect_redis
from worker.jobs.inputs import Sources
from worker.jobs.job import Job, resolve, store
from worker.jobs.request import RunRequest
from worker.local.services import LocalServices
from worker.serve.claim import Unclaimed
from worker.serve.engine import Engine
from worker.serve.report import Ended, Reporter
from worker.serve.run import run
from worker.settings import PROJECT, Settings

PREFIX = "served"
DEADLINE_S = 60.0
"""Far more than anything here takes: only what hangs meets it."""
UPLOADS = UploadLimits(pending_bytes=2**20, outage_timeout_s=DEADLINE_S)


def env_of(services: LocalServices, database: int, **settings: object) -> dict[str, str]:
    """The environment of a worker or client with a Redis database of its own."""
    env = {**services.env(), "AUTOSEQ_MODEL": "scripted", "AUTOSEQ_S3_PREFIX": PREFIX}
    env["AUTOSEQ_REDIS_URL"] = f"{services.redis_url.rpartition('/')[0]}/{database}"
    return env | {f"AUTOSEQ_{name.upper()}": str(value) for name, value in settings.items()}


def config_of(env: Mapping[str, str]) -> Settings:
    """The settings that a process with the environment `env` has."""
    ours = {name.removeprefix("AUTOSEQ_"): value for name, value in env.items() if name.startswith("AUTOSEQ_")}
    given: dict[str, Any] = {name.lower(): value for name, value in ours.items()}
    given["_env_file"] = None
    return Settings(**given)


def recipe(**fields: object) -> dict[str, Any]:
    """A recipe of six steps."""
    return {"name": "test", "context": [{"text": "A cat"}], "num_images": 2, "think": True, "seed": 5, **fields}


def picture_uri(color: str | tuple[int, int, int] = "teal") -> str:
    """A PNG of 64 x 64 pixels, as a recipe holds it."""
    data = io.BytesIO()
    Image.new("RGB", (64, 64), color).save(data, "PNG")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def long_recipe() -> dict[str, Any]:
    """Takes a minute on the slowed scripted model, so that it can be met while it runs."""
    return recipe(num_images=8, image={"num_timesteps": 1000})


def some_steps_recipe() -> dict[str, Any]:
    """Takes a few seconds on the slowed scripted model, most of them after its first image."""
    return recipe(num_images=4, image={"num_timesteps": 250})


def request(run_id: str, document: str | Mapping[str, Any] | None = None) -> RunRequest:
    return RunRequest(run_id=run_id, recipe=document or recipe(), overrides={})


class Silent(Reporter):
    """A Reporter that remembers."""

    def __init__(self) -> None:
        self.end: Ended | None = None
        self.began_after: int | None = None
        self.events: list[Event] = []
        self.commits: list[Commit] = []

    def begin(self, job: Job, steps: Sequence[Step], committed: int) -> None:
        del job, steps
        self.began_after = committed

    def event(self, event: Event) -> None:
        self.events.append(event)

    def committed(self, commit: Commit) -> None:
        self.commits.append(commit)

    def loading(self, done_bytes: int, total_bytes: int) -> None:
        pass

    def ended(self, event: Ended) -> None:
        self.end = event


class Watched(Unclaimed):
    """The claim of a run that nobody else can take, with what a test does at each checkpoint."""

    def __init__(self, at_checkpoint: Callable[..., None]) -> None:
        self.checkpoint = at_checkpoint  # type: ignore[method-assign]
        self.retry = RetryPolicy(DEADLINE_S)  # type: ignore[method-assign]


def spec_of(model: UnifiedModel) -> ModelSpec:
    """The spec that a worker with this model announces."""
    name = "scripted" if isinstance(model, ScriptedModel) else str(PROJECT / "models" / model.spec.name)
    return Engine(config_of({"AUTOSEQ_MODEL": name})).identified_spec()


def make_run(
    asked: RunRequest,
    objects: ObjectStore,
    *,
    prefix: str = PREFIX,
    job: Job | None = None,
    model: UnifiedModel | None = None,
    reporter: Silent | None = None,
    checkpoint: Callable[..., None] = lambda *_: None,
    uploads: UploadLimits = UPLOADS,
) -> Manifest:
    """The run that `asked` describes, or its `job`, in this process; on the scripted model unless another is given."""
    journal, model = Journal(objects, prefix, asked.run_id), model or ScriptedModel()
    job = job or resolve(asked, spec_of(model), recipes=PROJECT / "recipes", sources=Sources())
    store(job, journal)
    reporter = reporter or Silent()
    return run(job, model=model, journal=journal, reporter=reporter, claim=Watched(checkpoint), uploads=uploads)


def objects_of(objects: ObjectStore, run_id: str, *, prefix: str = PREFIX) -> dict[str, bytes]:
    """All that a run left, by name within its folder."""
    folder = f"{prefix}/{run_id}/"
    return {key.removeprefix(folder): objects.get(key) for key in objects.list(folder)}


def undisturbed(asked: RunRequest, model: UnifiedModel | None = None) -> dict[str, bytes]:
    """The objects that the run leaves when nothing happens to it."""
    objects = MemoryStore()
    make_run(asked, objects, model=model)
    return objects_of(objects, asked.run_id)


def eventually(holds: Callable[[], object], what: str, *, deadline_s: float = DEADLINE_S) -> None:
    """Wait until `holds()`; fail when it never does."""
    deadline = time.monotonic() + deadline_s
    while not holds():
        assert time.monotonic() < deadline, f"not seen: {what}"
        time.sleep(0.02)


def empty_database(env: Mapping[str, str]) -> None:
    """Remove what other modules left in a Redis database: a recipe without a model goes to one that is known there."""
    with connect_redis(config_of(env)) as redis:
        redis.flushdb()


class WorkerProcess:
    """`celery -A worker worker`, as anyone starts it, in a process group of its own.

    As a context manager it is killed with its children at the end of the block, as far as they live.

    Args:
        env: added to the environment `base`, which is by default that of this process.
        log: the file that its output is appended to.
        options: of the command.
        inside: a command that runs another one somewhere else.
    """

    def __init__(
        self,
        env: Mapping[str, str],
        log: Path,
        *options: str,
        base: Mapping[str, str] = os.environ,
        inside: Sequence[str] = (),
    ) -> None:
        self.env = {**base, **env}
        self.log = log
        self.config = config_of(env)
        command = [*inside, sys.executable, "-m", "celery", "-A", "worker", "worker", "--loglevel", "INFO", *options]
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command, env=self.env, cwd=PROJECT, stdout=output, stderr=output, start_new_session=True
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.kill()

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_until_ready(self) -> None:
        eventually(lambda: " ready." in self.output or self.has_ended, "a worker that is ready")
        assert not self.has_ended, self.output

    def wait_until_loaded(self) -> None:
        """As `wait_until_ready`, until it can also take a run."""
        self.wait_until_ready()
        eventually(lambda: "the model is loaded" in self.output or self.has_ended, "a worker that can take a run")
        assert not self.has_ended, self.output

    def received(self, run_id: str) -> int:
        """How many messages of the run it has taken."""
        return self.output.count(f"Task worker.run[{run_id}] received")

    def children(self) -> list[int]:
        """The processes that compute; the parent has another, which keeps its semaphores."""
        with contextlib.suppress(FileNotFoundError):
            listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            return [int(child) for child in listed if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
        return []

    def kill_child(self) -> None:
        """End the process that computes, as the kernel does when memory runs out."""
        for child in self.children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    def kill(self) -> None:
        """End it with its children, as a machine does that loses its power."""
        self.signal_all(signal.SIGKILL)
        self.process.wait()

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to the worker and to its children, as far as they live."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def stop(self) -> int:
        """Let it finish what it does; its exit code."""
        if not self.has_ended:
            self.process.terminate()
        return self.process.wait(DEADLINE_S)


@contextlib.contextmanager
def ready_worker(env: Mapping[str, str], log: Path, *options: str) -> Iterator[WorkerProcess]:
    """A worker that can take a run. At the end of the block it has to end with exit code 0."""
    with WorkerProcess(env, log, *options) as worker:
        worker.wait_until_loaded()
        yield worker
        assert worker.stop() == 0, worker.output


def start_long_run(client: Client) -> str:
    """A run that takes a minute, as soon as it runs."""
    run_id = client.submit(long_recipe())
    eventually(lambda: client.state(run_id).state == "running", "a run in progress")
    return run_id


@dataclass(frozen=True, kw_only=True)
class CeleryResult:
    """What Celery keeps of a run that has its end."""

    state: str
    result: Any


def celery_result(worker: WorkerProcess, run_id: str) -> CeleryResult:
    """What anyone gets who has the Celery app alone."""
    app = make_app(worker.config)
    backend: Any = app.backend
    try:
        told = app.AsyncResult(run_id)
        result = told.get(timeout=DEADLINE_S, propagate=False)
        return CeleryResult(state=told.state, result=result)
    finally:
        backend.result_consumer.stop()
        backend.client.close()


def celery_call(env: Mapping[str, str], **kwargs: object) -> str:
    """`celery -A worker call worker.run`; the id of the run."""
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "worker",
        "call",
        "worker.run",
        "--kwargs",
        json.dumps(kwargs),
    ]
    done = subprocess.run(
        command, env={**os.environ, **env}, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=DEADLINE_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
