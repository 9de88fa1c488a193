"""Reports the progress of a run as its events: to Redis, or to a screen."""

import base64
import io
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from PIL.Image import Image

from core.events import Denoised, Event, Judged, StepStarted, TextDelta, TextReady
from core.plan import Draw, Read, Step, Write
from recipes.recipe import TextItem
from storage import events
from storage.errors import RunForgottenError
from storage.journal import Artifact, Commit, Journal
from worker.jobs.artifacts import dotted
from worker.jobs.job import Job
from worker.serve.pace import Pace
from worker.serve.report import Ended, Reporter

DELTA_INTERVAL_S = 0.2
"""Minimum time between two events of one text or image: people read no faster."""
PREVIEW_QUALITY = 70


class Rate:
    """Limits something to once per `interval_s`."""

    def __init__(self, interval_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._last = clock()

    def restart(self) -> None:
        """Restart the interval now."""
        self._last = self._clock()

    def is_due(self) -> bool:
        """Whether the interval has passed. If so, restart it."""
        now = self._clock()
        if now - self._last < self._interval_s:
            return False
        self._last = now
        return True


class EventSink(Protocol):
    """Where events are published: Redis (storage's Progress), or a screen."""

    def publish(self, event: events.RunEvent) -> object:
        """Add `id`, `n` and `at` to the event, and store or show it. Reporters ignore the result.

        Raises RunForgottenError if it has lost the run.
        """

    def first_unpublished(self) -> int:
        """The first step of which an artifact may not have been published yet."""
        ...

    def start_over(self) -> bool:
        """Whether it does not have the start of the run. If so, anything may be published next."""
        ...


class RunReporter(Reporter):
    """Publishes the events of one run. Safe to share between threads.

    If the sink loses the run, what it lost is published again: the start, the artifacts in the order of their steps,
    and the step that is under way.

    Args:
        sink: where they are published.
        journal: the run's folder; events link to its objects.
        preview_interval_s: minimum time between two previews of an image.
        on_forgotten: called first when the sink has lost the run.
    """

    def __init__(
        self,
        sink: EventSink,
        journal: Journal,
        *,
        preview_interval_s: float,
        on_forgotten: Callable[[], object] = lambda: None,
    ) -> None:
        self.run_id = journal.run_id
        self.step = 0
        """The step that started last."""
        self._sink = sink
        self._journal = journal
        self._deltas = Rate(DELTA_INTERVAL_S)
        self._previews = Rate(preview_interval_s)
        self._unsent = ""
        self._pace: Pace | None = None
        self._on_forgotten = on_forgotten
        self._lock = threading.RLock()  # the order of the events is that in which the threads publish them
        self._started: events.Started | None = None
        self._first_unpublished = 1
        self._commits: list[Commit] = []
        self._step_begun: events.StepStarted | None = None
        self._text = ""

    def loading(self, done_bytes: int, total_bytes: int) -> None:
        if self._deltas.is_due() or done_bytes == total_bytes:
            self._send(events.Loading(done=done_bytes, total=total_bytes))

    def begin(self, job: Job, steps: Sequence[Step], committed: int) -> None:
        self._pace = Pace(steps, job.recipe, done=committed)
        name, model = job.recipe.name, job.recipe.model or ""
        self._started = events.Started(name=name, model=model, steps=len(steps), done=committed)
        self._commits = []
        try:
            self._sink.publish(self._started)
        except RunForgottenError:
            self._on_forgotten()
            self._sink.start_over()
            self._sink.publish(self._started)
        self._first_unpublished = self._sink.first_unpublished()

    def begin_again(self) -> None:
        """The sink has lost its data: publish what it lost, unless another thread has just done so."""
        with self._lock:
            self._on_forgotten()
            if not self._sink.start_over() or self._started is None:
                return
            self._first_unpublished = 1
            self._sink.publish(self._started)
            for commit in self._commits:
                self._publish_artifacts(commit)
            if self._step_begun:
                self._send(self._step_begun)
                if self._text:
                    self._send(events.TextDelta(step=self._step_begun.step, delta=self._text))

    def event(self, event: Event) -> None:
        number = event.step.number
        match event:
            case StepStarted(step=step):
                self.step = number
                self._previews.restart()
                self._publish(_step_started(step))
            case TextDelta(text=text):
                self._unsent += text
                if self._deltas.is_due():
                    self._publish_text(number)
            case TextReady():
                self._publish_text(number)
            case Judged(question=question, answer=answer, scores=scores):
                self._publish(events.Judged(step=number, question=question, answer=answer, scores=scores), part=1.0)
            case Denoised(done=done, total=total):
                preview = _data_uri(event.preview()) if self._previews.is_due() else None
                if preview or done == total or self._deltas.is_due():
                    denoised = events.Denoised(step=number, done=done, total=total, preview=preview)
                    self._publish(denoised, part=done / total)
            case _:
                pass  # `committed` publishes the artifacts of a step once they are stored

    def committed(self, commit: Commit) -> None:
        with self._lock:
            if self._started:
                self._started = replace(self._started, done=commit.step)
            self._commits.append(commit)
            self._publish_artifacts(commit)

    def _publish_artifacts(self, commit: Commit) -> None:
        if commit.step >= self._first_unpublished:
            for artifact in commit.artifacts:
                self._send(_artifact_stored(artifact, self._journal))

    def ended(self, event: Ended) -> None:
        self._send(event)

    def _publish_text(self, step: int) -> None:
        if self._unsent:
            self._publish(events.TextDelta(step=step, delta=self._unsent))
            self._text += self._unsent
            self._unsent = ""

    def _send(self, event: events.RunEvent) -> None:
        """Publish an event, after what the sink has lost."""
        with self._lock:
            try:
                self._sink.publish(event)
            except RunForgottenError:
                self.begin_again()
                self._send(event)

    def _publish(self, event: events.StepEvent, *, part: float = 0.0) -> None:
        """Publish an event of a step of which `part` (0 to 1) is done."""
        if self._pace:
            fraction = self._pace.fraction(event.step, part)
            eta_s = self._pace.eta_s(fraction)
            event = replace(event, fraction=fraction, eta_s=None if eta_s is None else round(eta_s, 1))
        with self._lock:
            self._send(event)
            if isinstance(event, events.StepStarted):
                self._step_begun, self._text = event, ""


def _step_started(step: Step) -> events.StepStarted:
    started = events.StepStarted(step=step.number, kind=step.kind, path=dotted(step.path) or None)
    match step:
        case Read(role=role, item=TextItem(text=text)):
            return replace(started, role=role, text=text)
        case Read(role=role) | Write(role=role):
            return replace(started, role=role)
        case Draw(index=index, variations=variations, attempt=attempt):
            return replace(started, role="image", index=index, variations=variations, attempt=attempt)
        case _:
            return started


def _artifact_stored(artifact: Artifact, journal: Journal) -> events.ArtifactStored:
    stored = events.ArtifactStored(
        step=artifact.step,
        role=artifact.role,
        key=journal.folder + artifact.key,
        url=journal.url(artifact.key),
        size=artifact.size,
        sha256=artifact.sha256,
    )
    if artifact.kind == "text":
        return stored
    return replace(
        stored,
        index=artifact.index,
        path=artifact.path,
        variation=artifact.variation,
        attempt=artifact.attempt,
        score=artifact.score,
        selected=artifact.selected,
    )


def _data_uri(preview: Image) -> str:
    """A JPEG of a few kB as a data: URI for web pages."""
    data = io.BytesIO()
    preview.save(data, "JPEG", quality=PREVIEW_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
