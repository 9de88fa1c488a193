"""One run, from a resolved recipe to its manifest: `run` is the whole story, the rest is named by it."""

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
"""How many committed outputs of a resumed run are read at once, and how many are held before they are needed."""


def run(
    job: Job,
    *,
    model: UnifiedModel,
    journal: Journal,
    reporter: Reporter,
    claim: Checkpoints,
    uploads: UploadLimits,
) -> Manifest:
    """Run `job` from where its journal stands, and return its manifest.

    Args:
        job: the resolved run, stored.
        model: what computes.
        journal: the run's folder: what was committed before is kept, what is missing is made.
        reporter: learns how the run goes.
        claim: asked at each event, and while the run waits for the store, whether the run is to go on here.
        uploads: how far the uploads may lag behind.

    Raises:
        CommitConflictError: another worker committed this run differently.
        CorruptRecordError: what the journal holds is not what this job leaves there.
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
    return claim.retry(partial(complete, job, journal, commits, page))


def _restored(
    commits: Sequence[Commit], journal: Journal, claim: Checkpoints, page: PageBuilder
) -> Iterator[StepOutput]:
    """What each of `commits` made, read a few ahead in parallel; the page gets it, too."""
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
    """What `read` found; read again when the store was unavailable then."""
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
        while_waiting=claim.checkpoint,
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


def complete(job: Job, journal: Journal, commits: Sequence[Commit], page: PageBuilder) -> Manifest:
    """Write the run's page, and last of all its manifest; the same again leaves the same."""
    manifest = manifest_of(job.run_id, job.recipe, job.recipe_sha256, commits, model_sha256=job.model_sha256)
    if job.recipe.output.page:
        journal.put(keys.PAGE, page.render(manifest, journal), content_type=CONTENT_TYPE)
    journal.write_manifest(manifest)
    return manifest
