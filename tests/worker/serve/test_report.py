"""What a watcher is told: texts in parts, previews now and then, artifacts once they are stored."""

import base64
import io
from typing import TypeVar

import pytest
from PIL import Image
from redis import ConnectionError as RedisConnectionError
from redis import Redis

from core.events import Denoised, StepStarted, TextDelta, TextReady
from core.plan import Draw, Evict, Step, Write, plan
from core.scripted import SPEC
from storage import events, keys
from storage.events import RunEvent, Succeeded
from storage.journal import Artifact, Commit, Journal
from storage.objects.memory import MemoryStore
from storage.redis.follow import follow
from storage.redis.progress import Progress
from tests.worker.serving import DEADLINE_S, PREFIX, request
from worker.jobs.inputs import Sources
from worker.jobs.job import Job, resolve
from worker.serve.report import CeleryReporter, Reporters
from worker.serve.run_reporter import Rate, RunReporter
from worker.settings import PROJECT

Kind = TypeVar("Kind", bound=RunEvent)
NEVER_S, ALWAYS_S = 3600.0, 0.0


class Watched:
    """A reporter on a real Redis, and what it has told so far."""

    def __init__(self, redis: Redis, run_id: str, *, preview_interval_s: float = NEVER_S) -> None:
        self.redis, self.run_id = redis, run_id
        self.celery: list[tuple[int, int]] = []
        self.journal = Journal(MemoryStore(), PREFIX, run_id)
        self.progress = Progress(redis, run_id, owner="worker")
        self.run_reporter = RunReporter(self.progress, self.journal, preview_interval_s=preview_interval_s)
        celery = CeleryReporter(run_id, lambda step, steps: self.celery.append((step, steps)))
        self.reporter = Reporters([self.run_reporter, celery])
        self.job: Job = resolve(request(run_id), SPEC, recipes=PROJECT / "recipes", sources=Sources())
        self.steps = plan(self.job.recipe)

    def begin(self, committed: int = 0) -> None:
        self.reporter.begin(self.job, self.steps, committed)

    def told(self) -> list[RunEvent]:
        """Everything, up to an end that is made here."""
        self.reporter.ended(Succeeded())
        return list(follow(self.redis, self.run_id))[:-1]

    def forget(self) -> None:
        """Lose the run, as a Redis does that is emptied."""
        self.redis.delete(keys.run_state(self.run_id), keys.run_events(self.run_id))

    def first(self, kind: type[Kind]) -> Kind:
        """The first event of a type, while the run goes on."""
        return next(event for event in follow(self.redis, self.run_id, timeout_s=DEADLINE_S) if isinstance(event, kind))

    def told_of(self, kind: type[Kind]) -> list[Kind]:
        return [event for event in self.told() if isinstance(event, kind)]


@pytest.fixture
def watched(redis_client: Redis, run_id: str) -> Watched:
    return Watched(redis_client, run_id)


def image() -> Image.Image:
    return Image.new("RGB", (64, 64), "red")


def test_a_start_says_what_runs_and_how_far_it_is(watched: Watched) -> None:
    watched.begin(committed=2)
    (told,) = watched.told_of(events.Started)
    assert (told.name, told.model, told.steps, told.done) == ("test", "scripted", 6, 2)


def test_each_step_says_what_it_is_and_celery_is_told_too(watched: Watched) -> None:
    watched.begin()
    for step in watched.steps:
        watched.reporter.event(StepStarted(step=step))
    told = watched.told_of(events.StepStarted)
    assert [(event.step, event.kind, event.role) for event in told] == [
        (1, "read", "initial"),
        (2, "write", "thinking"),
        (3, "draw", "image"),
        (4, "write", "refinement"),
        (5, "write", "thinking"),
        (6, "draw", "image"),
    ]
    assert [event.index for event in told if event.kind == "draw"] == [0, 1]
    assert watched.celery == [(step, 6) for step in range(1, 7)]


def test_a_step_that_forgets_has_no_role(watched: Watched) -> None:
    watched.begin()
    watched.reporter.event(StepStarted(step=Evict(number=3, dropped=(1,))))
    (told,) = watched.told_of(events.StepStarted)
    assert told.kind == "forget"
    assert told.role is None
    assert "role" not in told.to_document()


def text_commit(watched: Watched, step: int) -> Commit:
    """A step that left a text."""
    text = Artifact(kind="text", role="thinking", step=step, key=f"steps/{step:03d}.txt", content_type="text/plain")
    return Commit(run_id=watched.run_id, step=step, kind="write", artifacts=(text,), recipe_sha256="cd" * 32)


def write(watched: Watched) -> Step:
    return next(step for step in watched.steps if isinstance(step, Write))


def draw(watched: Watched) -> Step:
    return next(step for step in watched.steps if isinstance(step, Draw))


def test_the_parts_of_a_text_are_put_together_and_none_is_lost(watched: Watched) -> None:
    watched.begin()
    step, words = write(watched), [f"word{number} " for number in range(200)]
    for word in words:
        watched.reporter.event(TextDelta(step=step, text=word))
    watched.reporter.event(TextReady(step=step, role="thinking", text="".join(words), given=False))
    told = watched.told_of(events.TextDelta)
    assert "".join(event.delta for event in told) == "".join(words)
    assert len(told) < len(words) / 2, "people read no faster"


def test_an_image_tells_its_last_step_whatever_came_before(watched: Watched) -> None:
    watched.begin()
    for done in range(1, 101):
        watched.reporter.event(Denoised(step=draw(watched), done=done, total=100, preview=image))
    told = watched.told_of(events.Denoised)
    assert (told[-1].done, told[-1].total) == (100, 100)
    assert len(told) < 50
    assert not any(event.preview for event in told)


def test_a_preview_is_a_small_picture(redis_client: Redis, run_id: str) -> None:
    watched = Watched(redis_client, run_id, preview_interval_s=ALWAYS_S)
    watched.begin()
    watched.reporter.event(Denoised(step=draw(watched), done=1, total=2, preview=image))
    told = watched.first(events.Denoised)
    kind, _, data = str(told.preview).partition(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as preview:
        assert preview.size == (64, 64)


def test_what_is_stored_is_told_with_where_it_is(watched: Watched) -> None:
    made = Artifact(
        kind="text",
        role="thinking",
        step=2,
        key="steps/002-thinking.txt",
        content_type="text/plain",
        size=3,
        sha256="ab" * 32,
    )
    watched.begin()
    watched.reporter.committed(
        Commit(run_id=watched.run_id, step=2, kind="write", artifacts=(made,), recipe_sha256="cd" * 32)
    )
    (told,) = watched.told_of(events.ArtifactStored)
    assert told.key == f"{PREFIX}/{watched.run_id}/steps/002-thinking.txt"
    assert told.url == watched.journal.url(made.key)
    assert (told.step, told.role, told.size, told.sha256) == (2, "thinking", 3, "ab" * 32)


def test_an_image_is_told_with_its_place_and_its_score(watched: Watched) -> None:
    made = Artifact(
        kind="image",
        role="image",
        step=3,
        key="steps/003-image.v1.png",
        content_type="image/png",
        index=0,
        variation=1,
        score=0.5,
        selected=False,
    )
    watched.begin()
    watched.reporter.committed(
        Commit(run_id=watched.run_id, step=3, kind="draw", artifacts=(made,), recipe_sha256="cd" * 32)
    )
    (told,) = watched.told_of(events.ArtifactStored)
    assert (told.index, told.path, told.variation, told.attempt) == (0, "", 1, 0)
    assert (told.score, told.selected) == (0.5, False)


def test_a_step_has_the_time_left_as_soon_as_it_is_known(watched: Watched) -> None:
    watched.begin()
    for step in watched.steps:
        watched.reporter.event(StepStarted(step=step))
    first, *others = watched.told_of(events.StepStarted)
    assert first.eta_s is None
    assert all(event.eta_s is not None for event in others)


def test_a_celery_that_redis_refuses_does_not_stop_the_run(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(step: int, steps: int) -> None:
        raise RedisConnectionError(f"no answer for {step} of {steps}")

    watched.reporter = Reporters([CeleryReporter(watched.run_id, refuse), watched.run_reporter])
    watched.begin()
    watched.reporter.event(StepStarted(step=watched.steps[0]))
    assert "no answer for 1 of 6" in caplog.text
    assert [event.step for event in watched.told_of(events.StepStarted)] == [1]


def test_a_run_that_redis_forgot_is_started_again_and_one_that_has_not_begun_is_not(watched: Watched) -> None:
    watched.run_reporter.begin_again()
    watched.begin(committed=2)
    watched.reporter.committed(Commit(run_id=watched.run_id, step=3, kind="draw", recipe_sha256="cd" * 32))
    watched.run_reporter.begin_again()
    watched.forget()
    watched.run_reporter.begin_again()
    watched.run_reporter.begin_again()
    assert [event.done for event in watched.told_of(events.Started)] == [3]


def test_what_redis_lost_is_told_again_in_order_before_what_happens_next(watched: Watched) -> None:
    """Also when it is lost again meanwhile; nothing is told twice."""
    watched.begin()
    for step in (2, 3, 4):
        watched.reporter.event(StepStarted(step=watched.steps[step - 1]))
        watched.reporter.event(TextDelta(step=watched.steps[step - 1], text=f"text {step}"))
        watched.reporter.event(TextReady(step=watched.steps[step - 1], role="thinking", text="", given=False))
        watched.reporter.committed(text_commit(watched, step))
    watched.forget()
    watched.reporter.committed(text_commit(watched, 5))
    watched.run_reporter.begin_again()
    told = watched.told()
    assert [event.n for event in told] == list(range(1, len(told) + 1))
    assert [(event.type, getattr(event, "step", None)) for event in told] == [
        ("started", None),
        *(("artifact", step) for step in (2, 3, 4, 5)),
        ("step", 4),
        ("text", 4),
    ]


def test_a_resumed_run_tells_only_the_artifacts_that_were_not_told(watched: Watched) -> None:
    watched.begin()
    for step in (2, 3):
        watched.reporter.committed(text_commit(watched, step))
    resumed = Watched(watched.redis, watched.run_id)
    resumed.begin(committed=4)
    for step in (2, 3, 4):
        resumed.reporter.committed(text_commit(resumed, step))
    seen = follow(watched.redis, watched.run_id)
    told = [next(seen) for _ in range(5)]
    assert [getattr(event, "step", event.type) for event in told] == ["started", 2, 3, "started", 4]
    resumed.forget()
    assert [event.step for event in resumed.told_of(events.ArtifactStored)] == [2, 3, 4]


def test_loading_tells_its_end_and_not_every_byte(watched: Watched) -> None:
    for done in range(1, 1001):
        watched.reporter.loading(done, 1000)
    told = watched.told_of(events.Loading)
    assert (told[-1].done, told[-1].total) == (1000, 1000)
    assert len(told) < 100


def test_the_fraction_of_a_resumed_run_begins_where_the_other_ended(watched: Watched) -> None:
    watched.begin()
    watched.reporter.event(StepStarted(step=watched.steps[4]))
    watched.begin(committed=3)
    watched.reporter.event(StepStarted(step=watched.steps[3]))
    fractions = [event.fraction for event in watched.told()]
    assert fractions == sorted(fractions)
    assert fractions[1] == fractions[-1] > 0.5


def test_a_rate_lets_one_thing_happen_in_its_interval() -> None:
    now = 100.0
    rate = Rate(2.0, clock=lambda: now)
    due = []
    for now in (100.5, 102.0, 103.0, 104.0, 104.1):  # noqa: B007 (the clock reads it)
        due.append(rate.is_due())  # noqa: PERF401 (as above)
    assert due == [False, True, False, True, False]
