"""A run is a function of its recipe and id: cut short anywhere, or with its store away, it ends in the same bytes."""

import threading
from collections.abc import Iterator, Sequence

import pytest

from core.events import Event, ImageReady, StepStarted
from core.protocol import Context, Denoising, Drawn
from core.scripted import ScriptedModel
from recipes.recipe import ImageSettings
from storage.errors import CommitConflictError, StoreRefusedError, StoreUnavailableError
from storage.journal import Journal, Manifest
from storage.objects.memory import MemoryStore
from storage.uploader import UploadLimits
from tests.worker.serving import (
    PREFIX,
    UPLOADS,
    Silent,
    make_run,
    objects_of,
    recipe,
    request,
    spec_of,
    undisturbed,
)
from worker.errors import RunCancelled
from worker.jobs.inputs import Sources
from worker.jobs.job import resolve
from worker.serve.claim import Unclaimed
from worker.serve.run import run
from worker.settings import PROJECT

RUN = "run-1"


class DiedError(RuntimeError):
    """The process died here, as far as a test can have it."""


class FrailStore(MemoryStore):
    """Fails `failures` puts with `error`, from the first whose key holds `place`."""

    def __init__(self, error: Exception, *, place: str = "", failures: int = 1) -> None:
        super().__init__()
        self.error = error
        self.place = place
        self.failures = failures

    def put(self, key: str, data: bytes, *, content_type: str, only_if_absent: bool = False) -> None:
        if self.failures and self.place in key:
            self.failures -= 1
            raise self.error
        super().put(key, data, content_type=content_type, only_if_absent=only_if_absent)


class LostAnswerStore(MemoryStore):
    """Stores each object, then says once that it could not."""

    def __init__(self) -> None:
        super().__init__()
        self.told: set[str] = set()

    def put(self, key: str, data: bytes, *, content_type: str, only_if_absent: bool = False) -> None:
        super().put(key, data, content_type=content_type, only_if_absent=only_if_absent)
        if f"/{RUN}/" in key and key not in self.told and not key.endswith(("recipe.json", "model.json")):
            self.told.add(key)
            raise StoreUnavailableError("the answer was lost")


def commits_in(objects: MemoryStore) -> int:
    return len(list(objects.list(f"{PREFIX}/{RUN}/commits/")))


def keep(objects: MemoryStore, steps: int) -> MemoryStore:
    """What the first `steps` steps of a run left, and the objects of the step that was under way."""
    kept = MemoryStore(objects.bucket)
    for key in objects.list(""):
        name = key.rpartition("/")[2]
        if name in {"recipe.json"} or (name[:3].isdigit() and int(name[:3]) <= steps + ("/steps/" in key)):
            kept.put(key, objects.get(key), content_type="")
    return kept


@pytest.mark.parametrize("steps", range(7))
def test_a_run_resumed_after_any_step_ends_in_the_same_bytes(steps: int) -> None:
    whole = MemoryStore()
    make_run(request(RUN), whole)
    rest, reporter = keep(whole, steps), Silent()
    make_run(request(RUN), rest, reporter=reporter)
    assert reporter.began_after == steps
    assert [commit.step for commit in reporter.commits] == list(range(1, 7))  # their first teller may have died
    assert objects_of(rest, RUN) == undisturbed(request(RUN))


@pytest.mark.parametrize(
    "fields",
    [
        {"max_context_items": 3},
        {"refinement_prompts": ["Make it red", None]},
        {"variations_per_image": 3, "select": "judge"},
        {"retry": {"below": 0.7, "times": 3}},
        {"variations_per_image": 2, "select": "judge", "retry": {"below": 0.8, "times": 2}},
        {"variations_per_image": 2, "select": "tree", "num_images": 2},
        {"variations_per_image": 2, "select": "tree", "num_images": 2, "retry": {"below": 0.6, "times": 2}},
    ],
    ids="-".join,
)
def test_a_resumed_run_goes_on_as_it_would_have(fields: dict[str, object]) -> None:
    asked = request(RUN, recipe(**{"num_images": 3, **fields}))
    whole = MemoryStore()
    steps = make_run(asked, whole).steps
    for done in range(steps + 1):
        rest = keep(whole, done)
        make_run(asked, rest)
        assert objects_of(rest, RUN) == undisturbed(asked)


def test_a_complete_run_made_again_leaves_the_same() -> None:
    objects = MemoryStore()
    first = make_run(request(RUN), objects)
    assert make_run(request(RUN), objects) == first
    assert objects_of(objects, RUN) == undisturbed(request(RUN))


def make_new_run(objects: MemoryStore, reporter: Silent | None = None) -> Manifest:
    """A run whose job is not stored yet."""
    model = ScriptedModel()
    job = resolve(request(RUN), spec_of(model), recipes=PROJECT / "recipes", sources=Sources())
    return run(
        job,
        model=model,
        journal=Journal(objects, PREFIX, RUN),
        reporter=reporter or Silent(),
        claim=Unclaimed(),
        uploads=UPLOADS,
        stored=False,
    )


class Ordered(MemoryStore):
    """Remembers the names in the order in which they were put."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[str] = []

    def put(self, key: str, data: bytes, *, content_type: str, only_if_absent: bool = False) -> None:
        super().put(key, data, content_type=content_type, only_if_absent=only_if_absent)
        self.order.append(key.removeprefix(f"{PREFIX}/{RUN}/"))


def test_the_job_is_written_first_and_the_manifest_last() -> None:
    objects = Ordered()
    make_new_run(objects)
    order = objects.order
    assert order[:2] == ["model.json", "recipe.json"]
    assert order[-1] == "manifest.json"
    made = [name for name in order if name.startswith("steps/")]
    assert order.index(made[-1]) < order.index("index.html")
    assert [name for name in order if name.startswith("commits/")] == [
        f"commits/{step:03d}.json" for step in range(1, 7)
    ]
    assert made == sorted(made)
    for name in made:
        assert order.index(name) < order.index(f"commits/{name[6:9]}.json")


def test_all_steps_are_made_while_the_first_put_is_under_way() -> None:
    drawn = threading.Event()

    class Waiting(Ordered):
        """Stores nothing before the last image is drawn."""

        def put(self, key: str, data: bytes, *, content_type: str, only_if_absent: bool = False) -> None:
            assert drawn.wait(60)
            super().put(key, data, content_type=content_type, only_if_absent=only_if_absent)

    class Telling(Silent):
        def event(self, event: Event) -> None:
            if isinstance(event, ImageReady) and event.index == 1:
                assert not objects.order
                drawn.set()

    objects = Waiting()
    make_new_run(objects, Telling())
    assert objects_of(objects, RUN) == undisturbed(request(RUN))


def test_a_job_that_another_worker_stored_differently_ends_the_run_before_anything_is_stored() -> None:
    objects = MemoryStore()
    Journal(objects, PREFIX, RUN).put_once("recipe.json", b"theirs", content_type="application/json")
    with pytest.raises(CommitConflictError, match=r"recipe\.json"):
        make_new_run(objects)
    assert set(objects_of(objects, RUN)) == {"recipe.json", "model.json"}


@pytest.mark.parametrize("place", ["model.json", "recipe.json"])
def test_nothing_of_a_step_is_stored_before_its_job_is_and_the_run_can_be_taken_up_again(place: str) -> None:
    objects = FrailStore(StoreRefusedError("no"), place=place)
    with pytest.raises(StoreRefusedError, match="no"):
        make_new_run(objects)
    assert set(objects_of(objects, RUN)) <= {"model.json"}
    make_new_run(objects)
    assert objects_of(objects, RUN) == undisturbed(request(RUN))


def test_the_page_is_written_while_the_last_step_is_committed() -> None:
    written = threading.Event()

    class Waiting(Ordered):
        """Stores the last commit only once the page is there."""

        def put(self, key: str, data: bytes, *, content_type: str, only_if_absent: bool = False) -> None:
            if key.endswith("commits/006.json"):
                assert written.wait(60)
            super().put(key, data, content_type=content_type, only_if_absent=only_if_absent)
            if key.endswith("index.html"):
                written.set()

    objects = Waiting()
    make_run(request(RUN), objects)
    assert objects.order[-3:] == ["index.html", "commits/006.json", "manifest.json"]
    assert objects_of(objects, RUN) == undisturbed(request(RUN))


@pytest.mark.parametrize("place", ["commits/001", "steps/002", "commits/003", "index.html", "manifest.json"])
def test_a_store_that_is_away_for_a_while_is_waited_for(place: str) -> None:
    objects = FrailStore(StoreUnavailableError("away"), place=place, failures=3)
    make_run(request(RUN), objects)
    assert objects.failures == 0
    assert objects_of(objects, RUN) == undisturbed(request(RUN))


def test_a_put_whose_answer_was_lost_counts_once() -> None:
    objects = LostAnswerStore()
    make_run(request(RUN), objects)
    assert objects_of(objects, RUN) == undisturbed(request(RUN))


def test_a_store_that_stays_away_ends_the_run_and_it_can_be_taken_up_again() -> None:
    objects = FrailStore(StoreUnavailableError("away"), place="commits/004", failures=10**9)
    with pytest.raises(StoreUnavailableError):
        make_run(request(RUN), objects, uploads=UploadLimits(pending_bytes=2**20, outage_timeout_s=0.01))
    assert commits_in(objects) == 3
    objects.failures = 0
    make_run(request(RUN), objects)
    assert objects_of(objects, RUN) == undisturbed(request(RUN))


def test_a_store_that_refuses_ends_the_run_at_once() -> None:
    objects = FrailStore(StoreRefusedError("no"), place="steps/003")
    with pytest.raises(StoreRefusedError, match="no"):
        make_run(request(RUN), objects)
    assert commits_in(objects) == 2


def test_what_was_made_before_a_cancel_is_kept() -> None:
    objects, reporter = MemoryStore(), Silent()
    begun: list[int] = []

    def checkpoint(event: Event | None = None) -> None:
        if isinstance(event, StepStarted):
            begun.append(event.step.number)
        if begun and begun[-1] == 4:
            raise RunCancelled("enough")

    with pytest.raises(RunCancelled):
        make_run(request(RUN), objects, reporter=reporter, checkpoint=checkpoint)
    assert [commit.step for commit in reporter.commits] == [1, 2, 3]
    assert "manifest.json" not in objects_of(objects, RUN)


def test_an_error_drops_what_waits_and_commits_nothing_after_it() -> None:
    held = threading.Event()

    class Slow(MemoryStore):
        def put(self, key: str, data: bytes, *, content_type: str, only_if_absent: bool = False) -> None:
            if "steps/002" in key:
                held.wait(60)
            super().put(key, data, content_type=content_type, only_if_absent=only_if_absent)

    class Dying(ScriptedModel):
        """Dies at the first image, while the text before it is being stored."""

        def draw(
            self, context: Context, settings: ImageSettings, *, seeds: Sequence[int]
        ) -> Iterator[Denoising | Drawn]:
            threading.Timer(0.05, held.set).start()
            raise DiedError
            yield from super().draw(context, settings, seeds=seeds)

    objects = Slow()
    with pytest.raises(DiedError):
        make_run(request(RUN), objects, model=Dying())
    assert commits_in(objects) <= 2
    make_run(request(RUN), objects)
    assert objects_of(objects, RUN) == undisturbed(request(RUN))


def test_another_worker_that_committed_otherwise_ends_the_run() -> None:
    objects = MemoryStore()
    theirs = Journal(objects, PREFIX, RUN)

    def checkpoint(event: Event | None = None) -> None:
        if event is not None and event.step.number == 3:
            theirs.put("commits/003.json", b"theirs", content_type="application/json")

    with pytest.raises(CommitConflictError):
        make_run(request(RUN), objects, checkpoint=checkpoint)
    assert commits_in(objects) == 3
    assert "manifest.json" not in objects_of(objects, RUN)


def test_the_next_step_is_made_while_the_last_is_stored() -> None:
    drawn = threading.Event()

    class Waiting(MemoryStore):
        """Stores the first image only once the second is drawn."""

        def put(self, key: str, data: bytes, *, content_type: str, only_if_absent: bool = False) -> None:
            if "steps/003" in key:
                assert drawn.wait(60)
            super().put(key, data, content_type=content_type, only_if_absent=only_if_absent)

    class Telling(Silent):
        def event(self, event: Event) -> None:
            if isinstance(event, ImageReady) and event.index == 1:
                drawn.set()

    objects = Waiting()
    make_run(request(RUN), objects, reporter=Telling())
    assert objects_of(objects, RUN) == undisturbed(request(RUN))
