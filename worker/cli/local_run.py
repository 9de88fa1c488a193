"""A run in this process, without services: its objects are files in a folder, its events go to the screen."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from recipes.load import Given
from storage import keys
from storage.events import RunEvent, Started, Succeeded
from storage.journal import Journal
from storage.objects.folder import FolderStore
from worker.connections import limits_of
from worker.jobs.inputs import Sources
from worker.jobs.job import prepare, store
from worker.serve.claim import Unclaimed
from worker.serve.engine import Engine
from worker.serve.run import run
from worker.serve.run_reporter import RunReporter
from worker.settings import Settings

SHORT_HASH = 8


class ScreenSink:
    """An EventSink that shows events as Redis would store them. Safe to share between threads."""

    def __init__(self, show: Callable[[RunEvent], None]) -> None:
        self._show = show
        self._lock = threading.Lock()
        self._count = 0
        self._fraction = 0.0
        self._committed = 0

    def publish(self, event: RunEvent) -> None:
        """Show the event, numbered."""
        if isinstance(event, Started):
            self._committed = event.done
        with self._lock:
            self._count += 1
            self._fraction = max(self._fraction, event.fraction)
            count, fraction = self._count, self._fraction
            self._show(replace(event, id=f"0-{count}", n=count, at=time.time(), fraction=fraction))

    def first_unpublished(self) -> int:
        """The step after those whose artifacts were shown before the run was interrupted."""
        return self._committed + 1

    def start_over(self) -> bool:
        """Never: nothing is lost."""
        return False


def run_here(given: Given, *, out: Path, config: Settings, show: Callable[[RunEvent], None]) -> Journal:
    """Run a recipe to its end and return its folder, out/<name>-<hash>, with the same objects as in S3.

    The hash is that of the recipe and its images, so running the same recipe again resumes the run.

    Raises:
        RecipeError, InputError: the recipe or its images can't be used.
        ModelFolderError: the model of `config` can't be used.
        OSError, StorageError: the folder can't be written.
    """
    engine = Engine(config)
    job = prepare(given, spec=engine.identified_spec(), sources=Sources(folder=given.document.folder), run_id="")
    job = replace(job, run_id=f"{job.recipe.name}-{job.recipe_sha256[:SHORT_HASH]}")
    journal = Journal(FolderStore(out), "", job.run_id)
    out.mkdir(parents=True, exist_ok=True)
    sink = ScreenSink(show)
    if journal.manifest() is None:
        store(job, journal)
        reporter = RunReporter(sink, journal, preview_interval_s=math.inf)
        run(
            job,
            model=engine.model(reporter.loading),
            journal=journal,
            reporter=reporter,
            claim=Unclaimed(),
            uploads=limits_of(config),
        )
    sink.publish(Succeeded(manifest=journal.address(keys.MANIFEST)))
    return journal
