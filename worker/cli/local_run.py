"""One run in this process, without services: its objects become files in a folder, its progress goes to a screen."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from recipes.load import Given
from storage.journal import Journal
from storage.objects.folder import FolderStore
from storage.redis.state import ProgressEvent
from worker.connections import limits_of
from worker.jobs.inputs import Sources
from worker.jobs.job import Job, prepare, store
from worker.serve.engine import Engine
from worker.serve.report import ProgressReporter
from worker.serve.run import run
from worker.settings import Settings

SHORT_HASH = 8


class Shown:
    """A ProgressWriter for a screen: what would be told to Redis is shown. Safe to share between threads."""

    def __init__(self, show: Callable[[ProgressEvent], None]) -> None:
        self._show = show
        self._lock = threading.Lock()
        self._count = 0
        self._fraction = 0.0
        self._done = 0

    def started(self, *, name: str, model: str, steps: int, done: int = 0) -> None:
        self._done = done
        self.event("started", name=name, model=model, steps=steps, done=done)

    def event(
        self,
        type: str,  # noqa: A002 - the field's name
        *,
        step: int | None = None,
        fraction: float | None = None,
        eta_s: float | None = None,
        **fields: Any,
    ) -> None:
        del eta_s  # whoever shows it measures that
        with self._lock:
            self._count += 1
            self._fraction = max(self._fraction, fraction or 0.0)
            told = fields if step is None else {"step": step, **fields}
            data = {"type": type, "n": self._count, "at": time.time(), "fraction": self._fraction, **told}
            self._show(ProgressEvent(id=f"0-{self._count}", type=type, data=data))

    def artifact(self, *, step: int, role: str, key: str, url: str, size: int, sha256: str, **fields: Any) -> None:
        if step <= self._done:
            return  # shown when it was made, before the run was interrupted
        self.event("artifact", step=step, role=role, key=key, url=url, size=size, sha256=sha256, **fields)


def run_here(given: Given, *, out: Path, config: Settings, show: Callable[[ProgressEvent], None]) -> Journal:
    """Run a recipe to its end and return its folder, out/<name>-<hash>, which holds what S3 would.

    The folder's name follows from the recipe and its images: the same again goes on where it was left, or is done.

    Raises:
        RecipeError, InputError: what is wrong with the recipe or its images.
        ModelFolderError: the model of `config` can't be used.
        OSError, StorageError: the folder can't be written.
    """
    engine = Engine(config)
    job = _named(prepare(given, spec=engine.spec(), sources=Sources(folder=given.document.folder), run_id=""))
    journal = Journal(FolderStore(out), "", job.run_id)
    out.mkdir(parents=True, exist_ok=True)
    shown = Shown(show)
    if journal.manifest() is None:
        store(job, journal)
        reporter = ProgressReporter(
            shown, journal, celery_state=lambda _step, _steps: None, preview_interval_s=math.inf
        )
        run(
            job,
            model=engine.model(reporter.loading),
            journal=journal,
            reporter=reporter,
            guard=lambda _event: None,
            uploads=limits_of(config),
        )
    shown.event("succeeded", fraction=1.0, manifest=journal.address("manifest.json"))
    return journal


def _named(job: Job) -> Job:
    return replace(job, run_id=f"{job.recipe.name}-{job.recipe_sha256[:SHORT_HASH]}")
