"""Tells Redis, or a screen, and Celery's own state how a run goes."""

import base64
import io
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from PIL.Image import Image

from core.events import Denoised, Event, Judged, StepStarted, TextDelta, TextReady
from core.plan import Draw, Read, Step, Write
from recipes.recipe import Recipe, TextItem
from storage.journal import Commit, Journal
from worker.jobs.artifacts import dotted
from worker.jobs.job import Job
from worker.serve.pace import Pace

DELTA_INTERVAL_S = 0.2
"""The least time between two events of one text or one image: people read no faster."""
PREVIEW_QUALITY = 70
TOLD_OF_IMAGES = ("index", "path", "variation", "attempt", "score", "chosen")


class Rate:
    """Lets something happen at most once in `interval_s`."""

    def __init__(self, interval_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._last = clock()

    def restart(self) -> None:
        """Let the interval begin now."""
        self._last = self._clock()

    def is_due(self) -> bool:
        """Whether it may happen now; then it counts as having happened."""
        now = self._clock()
        if now - self._last < self._interval_s:
            return False
        self._last = now
        return True


class ProgressWriter(Protocol):
    """Where progress goes: storage's Progress, or a screen. Whether it was taken is nothing to its teller."""

    def started(self, *, name: str, model: str, steps: int, done: int = 0) -> object: ...

    def event(
        self,
        type: str,  # noqa: A002 - the field's name
        *,
        step: int | None = None,
        fraction: float | None = None,
        eta_s: float | None = None,
        **fields: Any,
    ) -> object: ...

    def artifact(
        self, *, step: int, role: str, key: str, url: str, size: int, sha256: str, **fields: Any
    ) -> object: ...


class ProgressReporter:
    """Implements Reporter for one run.

    Args:
        progress: where it goes.
        journal: whose objects the events point to.
        celery_state: told (step, steps) as Celery's own progress.
        preview_interval_s: the least time between two previews of an image under way.
    """

    def __init__(
        self,
        progress: ProgressWriter,
        journal: Journal,
        *,
        celery_state: Callable[[int, int], None],
        preview_interval_s: float,
    ) -> None:
        self.step = 0
        """The step that was begun last."""
        self._progress = progress
        self._journal = journal
        self._celery_state = celery_state
        self._deltas = Rate(DELTA_INTERVAL_S)
        self._previews = Rate(preview_interval_s)
        self._unsent = ""
        self._pace: Pace | None = None
        self._begun: Recipe | None = None
        self._steps = self._committed = 0

    def loading(self, done_bytes: int, total_bytes: int) -> None:
        """The model's weights are being read."""
        if self._deltas.is_due() or done_bytes == total_bytes:
            self._progress.event("loading", done=done_bytes, total=total_bytes)

    def begin(self, job: Job, steps: Sequence[Step], committed: int) -> None:
        self._pace = Pace(steps, job.recipe, done=committed)
        self._begun = job.recipe
        self._steps, self._committed = len(steps), committed
        self.begin_again()

    def begin_again(self) -> None:
        """Say that the run has started, to a Redis that does not know it any more; nothing before it has."""
        if self._begun is None:
            return
        name, model = self._begun.name, self._begun.model or ""
        self._progress.started(name=name, model=model, steps=self._steps, done=self._committed)

    def event(self, event: Event) -> None:
        match event:
            case StepStarted(step=step):
                self.step = step.number
                self._previews.restart()
                self._tell(step, "step", kind=step.kind, **_about(step))
                self._celery_state(step.number, self._steps)
            case TextDelta(step=step, text=text):
                self._unsent += text
                if self._deltas.is_due():
                    self._send_text(step)
            case TextReady(step=step):
                self._send_text(step)
            case Judged(step=step, question=question, answer=answer, scores=scores):
                self._tell(step, "judged", 1.0, question=question, answer=answer, scores=list(scores))
            case Denoised(step=step, done=done, total=total):
                if self._previews.is_due():
                    self._tell(
                        step, "denoised", done / total, done=done, total=total, preview=_data_uri(event.preview())
                    )
                elif done == total or self._deltas.is_due():
                    self._tell(step, "denoised", done / total, done=done, total=total)
            case _:
                pass  # what a step made is told once it is stored, by `committed`

    def committed(self, commit: Commit) -> None:
        self._committed = commit.step
        for made in commit.artifacts:
            data = made.to_data()
            self._progress.artifact(
                step=made.step,
                role=made.role,
                key=self._journal.folder + made.key,
                url=self._journal.url(made.key),
                size=made.size,
                sha256=made.sha256,
                **{name: data[name] for name in TOLD_OF_IMAGES if made.kind == "image"},
            )

    def _send_text(self, step: Step) -> None:
        if self._unsent:
            self._tell(step, "text", delta=self._unsent)
            self._unsent = ""

    def _tell(self, step: Step, event_type: str, part: float = 0.0, **fields: Any) -> None:
        fraction = self._pace.fraction(step.number, part) if self._pace else None
        eta_s = self._pace.eta_s(fraction) if self._pace and fraction is not None else None
        self._progress.event(event_type, step=step.number, fraction=fraction, eta_s=eta_s, **fields)


def _about(step: Step) -> dict[str, Any]:
    """What is told of a step when it begins."""
    return {**_role(step), **({"path": dotted(step.path)} if step.path else {})}


def _role(step: Step) -> dict[str, Any]:
    match step:
        case Read(role=role, item=TextItem(text=text)):
            return {"role": role, "text": text}
        case Read(role=role) | Write(role=role):
            return {"role": role}
        case Draw(index=index, variations=variations, attempt=attempt):
            return {"role": "image", "index": index, "variations": variations, "attempt": attempt}
        case _:
            return {}


def _data_uri(preview: Image) -> str:
    """A JPEG of a few kB, as a web page takes it."""
    data = io.BytesIO()
    preview.save(data, "JPEG", quality=PREVIEW_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
