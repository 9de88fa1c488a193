"""One run, from a resolved recipe to its manifest: `run` is the whole story, the rest is named by it."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Protocol

from core.events import Event, Evicted, ImageReady, ItemRead, Skipped, TextReady
from core.plan import Step, plan
from core.protocol import UnifiedModel
from core.sequence import StepOutput, run_sequence
from recipes.canonical import to_document
from storage import keys, page
from storage.errors import StoreUnavailableError
from storage.journal import Commit, Journal, Manifest
from storage.retry import RetryPolicy
from storage.uploader import Uploader, UploadLimits
from worker.errors import RunStopped
from worker.jobs.artifacts import check_committed, pending_step, restored
from worker.jobs.job import Job
from worker.jobs.result import manifest_of

log = logging.getLogger(__name__)


class Reporter(Protocol):
    """Who is told how a run goes."""

    def begin(self, job: Job, steps: Sequence[Step], committed: int) -> None:
        """The run starts, or goes on after its first `committed` steps."""
        ...

    def event(self, event: Event) -> None:
        """Something happened in the sequence."""
        ...

    def committed(self, commit: Commit) -> None:
        """A step and its objects are stored for good, now (called from the uploader's thread) or before the start."""
        ...


def run(
    job: Job,
    *,
    model: UnifiedModel,
    journal: Journal,
    reporter: Reporter,
    guard: Callable[[Event], None],
    uploads: UploadLimits,
    waiting: Callable[[], None] = lambda: None,
) -> Manifest:
    """Run `job` from where its journal stands, and return its manifest.

    Args:
        job: the resolved run, stored.
        model: what computes.
        journal: the run's folder: what was committed before is kept, what is missing is made.
        reporter: who is told.
        guard: told of each event before anyone else; it raises what is to end the run here.
        uploads: how far the uploads may lag behind.
        waiting: called now and then while the run waits for the store; it raises what is to end the run there.

    Raises:
        CommitConflictError: another worker committed this run differently.
        CorruptRecordError: what the journal holds is not what this job leaves there.
        StorageError: the store stayed away or refused.
    """
    retry = RetryPolicy(uploads.outage_timeout_s, on_wait=lambda _error, _pause_s: waiting())
    steps = plan(job.recipe)
    commits = list(retry(journal.commits))
    check_committed(job, steps, commits, journal)
    reporter.begin(job, steps, len(commits))
    for commit in commits:
        reporter.committed(commit)  # who committed it may have died before it was told
    inputs = [image.decode() for image in job.inputs]
    texts: dict[str, str] = {}
    done = _done(tuple(commits), lambda commit: retry(partial(restored, commit, journal)), texts)
    with _uploading(job, journal, commits, reporter, uploads, waiting) as uploader:
        for event in run_sequence(job.recipe, model, inputs=inputs, done=done):
            guard(event)
            reporter.event(event)
            if isinstance(event, TextReady):
                texts[keys.step_text(event.step.number, event.role, event.step.path)] = event.text
            if isinstance(event, ItemRead | TextReady | ImageReady | Skipped | Evicted):
                uploader.submit(pending_step(job, event))
    return retry(partial(complete, job, journal, commits, texts))


def _done(
    commits: Iterable[Commit], output_of: Callable[[Commit], StepOutput], texts: dict[str, str]
) -> Iterator[StepOutput]:
    """What each of `commits` made, fetched as it is asked for; words also go into `texts`, by their keys."""
    for commit in commits:
        made = output_of(commit)
        if isinstance(made, str):
            texts[commit.artifacts[0].key] = made
        yield made


@contextmanager
def _uploading(
    job: Job,
    journal: Journal,
    commits: list[Commit],
    reporter: Reporter,
    limits: UploadLimits,
    waiting: Callable[[], None],
) -> Iterator[Uploader]:
    """The run's uploader; at the end everything that was made is in `commits`, unless the run is no longer ours."""

    def committed(commit: Commit) -> None:
        commits.append(commit)
        reporter.committed(commit)

    uploader = Uploader(
        journal,
        recipe_sha256=job.recipe_sha256,
        on_commit=committed,
        limits=limits,
        on_wait=partial(_log_outage, job.run_id),
        while_waiting=waiting,
    )
    try:
        yield uploader
        uploader.close()
    except RunStopped:
        uploader.close(limits.last_uploads_s)  # what was made until now is kept
        raise
    except BaseException:
        uploader.abort()
        raise


def _log_outage(run_id: str, error: StoreUnavailableError, pause_s: float) -> None:
    log.warning("run %s: its uploads wait, the next try is in %.1f s: %s", run_id, pause_s, error)


def complete(job: Job, journal: Journal, commits: Sequence[Commit], texts: Mapping[str, str]) -> Manifest:
    """Write the run's page, with its `texts` by key, and last of all its manifest; the same again leaves the same."""
    manifest = manifest_of(job.run_id, job.recipe, job.recipe_sha256, commits, model_sha256=job.model_sha256)
    if job.recipe.output.page:
        html = page.render_page(manifest, to_document(job.recipe), texts)
        journal.put(keys.PAGE, html, content_type=page.CONTENT_TYPE)
    journal.write_manifest(manifest)
    return manifest
