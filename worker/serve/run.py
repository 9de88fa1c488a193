"""One run, from a resolved recipe to its manifest: `run` has all steps in order."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from core.events import StepEnded
from core.plan import Step, plan
from core.protocol import UnifiedModel
from core.sequence import StepOutput, Unused, run_sequence, used_after
from storage import keys
from storage.errors import StoreUnavailableError
from storage.journal import Commit, Journal, Manifest
from storage.page import CONTENT_TYPE
from storage.uploader import Uploader, UploadLimits
from worker.errors import RunStopped
from worker.jobs.artifacts import check_committed, pending_step, restored
from worker.jobs.job import Job, puts_of
from worker.jobs.result import manifest_of
from worker.serve.claim import Checkpoints
from worker.serve.page_builder import PageBuilder
from worker.serve.report import Reporter

log = logging.getLogger(__name__)


def run(
    job: Job,
    *,
    model: UnifiedModel,
    journal: Journal,
    reporter: Reporter,
    claim: Checkpoints,
    uploads: UploadLimits,
    stored: bool = True,
    committed: int | None = None,
) -> Manifest:
    """Run the steps of `job` that are not committed yet, and return its manifest.

    Args:
        job: the resolved run.
        model: the model to run it on.
        journal: the run's folder; its committed steps are kept.
        reporter: receives the progress.
        claim: checked at each event and while the run waits for the store; raises to end the work.
        uploads: limits of the data that waits for its upload.
        stored: whether the job is stored; else that happens while the first steps are computed, before any is stored.
        committed: the number of committed steps, if it is known; else they are listed.

    Raises:
        CommitConflictError: another worker began or committed this run differently.
        CorruptRecordError: the journal has commits that do not match the job.
        StorageError: the store stayed unavailable or refused.
    """
    steps = plan(job.recipe)
    commits = _committed(job, steps, journal, claim, committed)
    reporter.begin(job, steps, len(commits))
    for commit in commits:
        reporter.committed(commit)  # the worker that committed it may have died before reporting it
    page = _begun_page(job, claim)
    done = _restored(steps, tuple(commits), journal, claim, page)
    with _uploading(job, journal, [] if stored else puts_of(job, journal), reporter, claim, uploads) as uploader:
        for event in run_sequence(job.recipe, model, inputs=job.inputs, done=done, heartbeat=claim.checkpoint):
            claim.checkpoint(event)
            reporter.event(event)
            page.add(event)
            if isinstance(event, StepEnded):
                uploader.submit(pending_step(job, event))
        commits += uploader.wait_for_objects()
        for _ in claim.map(partial(page.read, journal=journal), page.missing(commits)):
            pass
        manifest = manifest_of(job.run_id, job.recipe, job.recipe_sha256, commits, model_sha256=job.model_sha256)
        if job.recipe.output.page:  # written while the last steps are committed
            claim.retry(partial(_write_page, manifest, journal, page))
    claim.conclude(partial(journal.write_manifest, manifest))
    return manifest


def _committed(
    job: Job, steps: Sequence[Step], journal: Journal, claim: Checkpoints, known: int | None
) -> list[Commit]:
    """The checked records of the committed steps, of which the number may be known."""
    number = claim.retry(journal.count_commits) if known is None else known
    commits = list(claim.map(journal.read_own_commit, range(1, number + 1)))
    check_committed(job, steps, commits, journal)
    return commits


def _begun_page(job: Job, claim: Checkpoints) -> PageBuilder:
    """The page with the input images, which takes long for large ones."""
    page = PageBuilder(job)
    for index in range(len(job.inputs)):
        claim.checkpoint()
        page.add_input(index)
    return page


def _restored(
    steps: Sequence[Step], commits: Sequence[Commit], journal: Journal, claim: Checkpoints, page: PageBuilder
) -> Iterator[StepOutput]:
    """The output of each of `commits`. Those that only the page needs are read at the end of the run instead."""

    def read(commit: Commit) -> StepOutput:
        output = restored(commit, journal)
        page.add_restored(commit, output)
        return output

    used = used_after(steps, len(commits))
    outputs = claim.map(read, [commit for commit in commits if commit.step in used])
    for commit in commits:
        yield next(outputs) if commit.step in used else Unused()


@contextmanager
def _uploading(
    job: Job,
    journal: Journal,
    first: Sequence[Callable[[], None]],
    reporter: Reporter,
    claim: Checkpoints,
    limits: UploadLimits,
) -> Iterator[Uploader]:
    """The run's uploader. On leaving, all steps are committed, unless an error ended the work."""
    uploader = Uploader(
        journal,
        recipe_sha256=job.recipe_sha256,
        on_commit=reporter.committed,
        first=first,
        limits=limits,
        on_wait=partial(_log_outage, job.run_id),
        while_waiting=claim.checkpoint,
    )
    try:
        yield uploader
        uploader.close()
    except RunStopped:
        uploader.close(min(limits.last_uploads_s, claim.time_to_stop_s))  # the completed steps are kept
        raise
    except BaseException:
        uploader.abort()
        raise


def _log_outage(run_id: str, error: StoreUnavailableError, pause_s: float) -> None:
    log.warning("run %s: uploads are waiting; next attempt in %.1f s: %s", run_id, pause_s, error)


def _write_page(manifest: Manifest, journal: Journal, page: PageBuilder) -> None:
    """Safe to repeat: the page is the same each time."""
    journal.put(keys.PAGE, page.render(manifest), content_type=CONTENT_TYPE)
