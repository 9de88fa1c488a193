"""One run, from a resolved recipe to its manifest: `run` has all steps in order."""

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from core.events import StepEnded
from core.plan import plan
from core.protocol import UnifiedModel
from core.sequence import StepOutput, run_sequence
from storage import keys
from storage.errors import StoreUnavailableError
from storage.journal import Commit, Journal, Manifest
from storage.page import CONTENT_TYPE
from storage.uploader import Uploader, UploadLimits
from worker.errors import RunStopped
from worker.jobs.artifacts import check_committed, pending_step, restored
from worker.jobs.job import Job
from worker.jobs.result import manifest_of
from worker.serve.claim import Checkpoints
from worker.serve.page_builder import PageBuilder
from worker.serve.report import Reporter

log = logging.getLogger(__name__)

READERS, READ_AHEAD = 8, 16
"""How many committed outputs of a resumed run are read in parallel, and how many are held in advance."""


def run(
    job: Job,
    *,
    model: UnifiedModel,
    journal: Journal,
    reporter: Reporter,
    claim: Checkpoints,
    uploads: UploadLimits,
) -> Manifest:
    """Run the steps of `job` that are not committed yet, and return its manifest.

    Args:
        job: the resolved run, stored.
        model: the model to run it on.
        journal: the run's folder; its committed steps are kept.
        reporter: receives the progress.
        claim: checked at each event and while the run waits for the store; raises to end the work.
        uploads: limits of the data that waits for its upload.

    Raises:
        CommitConflictError: another worker committed this run differently.
        CorruptRecordError: the journal has commits that do not match the job.
        StorageError: the store stayed unavailable or refused.
    """
    steps = plan(job.recipe)
    commits = list(claim.retry(journal.commits))
    check_committed(job, steps, commits, journal)
    reporter.begin(job, steps, len(commits))
    for commit in commits:
        reporter.committed(commit)  # the worker that committed it may have died before reporting it
    inputs = [image.decode() for image in job.inputs]
    page = PageBuilder(job, inputs)
    done = _restored(tuple(commits), journal, claim, page)
    with _uploading(job, journal, commits, reporter, claim, uploads) as uploader:
        for event in run_sequence(job.recipe, model, inputs=inputs, done=done):
            claim.checkpoint(event)
            reporter.event(event)
            page.add(event)
            if isinstance(event, StepEnded):
                uploader.submit(pending_step(job, event))
    manifest = manifest_of(job.run_id, job.recipe, job.recipe_sha256, commits, model_sha256=job.model_sha256)
    if job.recipe.output.page:
        claim.retry(partial(_write_page, manifest, journal, page))
    claim.conclude(partial(journal.write_manifest, manifest))
    return manifest


def _restored(
    commits: Sequence[Commit], journal: Journal, claim: Checkpoints, page: PageBuilder
) -> Iterator[StepOutput]:
    """The output of each of `commits`, read a few ahead in parallel, and added to the page."""
    readers = ThreadPoolExecutor(READERS, thread_name_prefix="reader")
    ahead: deque[Future[StepOutput]] = deque()
    try:
        for number, commit in enumerate(commits):
            while len(ahead) < READ_AHEAD and number + len(ahead) < len(commits):
                ahead.append(readers.submit(restored, commits[number + len(ahead)], journal))
            output = claim.retry(partial(_output, ahead.popleft(), commit, journal))
            page.add_restored(commit, output)
            yield output
    finally:
        readers.shutdown(wait=False, cancel_futures=True)  # a run that ends here does not wait for a store that hangs


def _output(read: "Future[StepOutput]", commit: Commit, journal: Journal) -> StepOutput:
    """The result of `read`; reads again if the store was unavailable."""
    error = read.exception()
    return restored(commit, journal) if isinstance(error, StoreUnavailableError) else read.result()


@contextmanager
def _uploading(
    job: Job,
    journal: Journal,
    commits: list[Commit],
    reporter: Reporter,
    claim: Checkpoints,
    limits: UploadLimits,
) -> Iterator[Uploader]:
    """The run's uploader. On leaving, all steps are in `commits`, unless an error ended the work."""

    def committed(commit: Commit) -> None:
        commits.append(commit)
        reporter.committed(commit)

    uploader = Uploader(
        journal,
        recipe_sha256=job.recipe_sha256,
        on_commit=committed,
        limits=limits,
        on_wait=partial(_log_outage, job.run_id),
        while_waiting=claim.checkpoint,
    )
    try:
        yield uploader
        uploader.close()
    except RunStopped:
        uploader.close(limits.last_uploads_s)  # the completed steps are kept
        raise
    except BaseException:
        uploader.abort()
        raise


def _log_outage(run_id: str, error: StoreUnavailableError, pause_s: float) -> None:
    log.warning("run %s: uploads are waiting; next attempt in %.1f s: %s", run_id, pause_s, error)


def _write_page(manifest: Manifest, journal: Journal, page: PageBuilder) -> None:
    """Safe to repeat: the page is the same each time."""
    journal.put(keys.PAGE, page.render(manifest, journal), content_type=CONTENT_TYPE)
