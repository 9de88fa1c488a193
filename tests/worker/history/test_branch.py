"""A branch goes on exactly where another run was: the same items before the model, and the same thing next."""

import contextlib
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from PIL import Image

from core.plan import Draw, Step, Write, plan
from core.protocol import Context, Denoising, Drawn, Text
from core.scripted import SPEC, ScriptedModel
from core.sequence import PLANNING_PROMPT
from recipes.faults import RecipeError
from recipes.load import load
from recipes.recipe import ImageSettings, TextItem, TextSettings
from storage.errors import CorruptRecordError, RunNotFoundError
from storage.journal import Journal
from storage.objects.memory import MemoryStore
from tests.worker.serving import PREFIX, UPLOADS, Silent, Watched, picture_uri, recipe, request
from worker.errors import RunCancelled
from worker.history.branch import branched, fork_at
from worker.history.history import PlaceError, is_on, read_history
from worker.jobs.input_rule import InputRule
from worker.jobs.inputs import InputError, Sources
from worker.jobs.job import resolve, store
from worker.serve.run import run
from worker.settings import PROJECT

PARENT, BRANCH = "run-1", "run-2"


def seen(context: Context) -> tuple[object, ...]:
    """A context by its content."""
    items = [(one.text, one.thought) if isinstance(one, Text) else one.image.tobytes() for one in context.items]
    return (context.system_prompt, *items)


class Recording(ScriptedModel):
    """Remembers what was before it each time it wrote or drew."""

    def __init__(self) -> None:
        super().__init__()
        self.contexts: list[tuple[str, tuple[object, ...]]] = []

    def write(self, context: Context, settings: TextSettings, *, seed: int) -> Iterator[str]:
        self.contexts.append(("write", seen(context)))
        return super().write(context, settings, seed=seed)

    def draw(self, context: Context, settings: ImageSettings, *, seeds: Sequence[int]) -> Iterator[Denoising | Drawn]:
        self.contexts.append(("draw", seen(context)))
        return super().draw(context, settings, seeds=seeds)


class Saying(Recording):
    """Writes the same each time."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.words = words

    def write(self, context: Context, settings: TextSettings, *, seed: int) -> Iterator[str]:
        del context, settings, seed
        yield self.words


class Bucket:
    """Runs in memory, on a model that remembers."""

    def __init__(self) -> None:
        self.objects = MemoryStore("runs")

    def journal(self, run_id: str) -> Journal:
        return Journal(self.objects, PREFIX, run_id)

    def run(
        self, run_id: str, document: dict[str, Any], *, stop_after: int | None = None, model: Recording | None = None
    ) -> Recording:
        """Make a run, or its first steps."""
        model = model or Recording()

        def checkpoint(event: Any = None) -> None:
            if event is not None and stop_after is not None and event.step.number > stop_after:
                raise RunCancelled

        sources = Sources(store=self.objects, rule=InputRule(bucket="runs", prefix=PREFIX))
        job = resolve(request(run_id, document), SPEC, recipes=PROJECT / "recipes", sources=sources)
        store(job, self.journal(run_id))
        with contextlib.suppress(RunCancelled):
            run(
                job,
                model=model,
                journal=self.journal(run_id),
                reporter=Silent(),
                claim=Watched(checkpoint),
                uploads=UPLOADS,
            )
        return model

    def branched(self, at: int, **options: Any) -> dict[str, Any]:
        return branched(self.journal(PARENT), at=at, **options)

    def image(self, run_id: str, key: str) -> bytes:
        with Image.open(io.BytesIO(self.journal(run_id).get(key))) as image:
            return image.convert("RGB").tobytes()


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


LANGUAGE: dict[str, dict[str, Any]] = {
    "plain": recipe(num_images=3),
    "without thinking": recipe(num_images=3, think=False),
    "edit": recipe(context=[{"image": picture_uri()}, {"text": "In winter"}], num_images=3, think=False),
    "edit that ends with an image": recipe(context=[{"text": "Look"}, {"image": picture_uri()}], num_images=2),
    "given refinements": recipe(num_images=4, refinement_prompts=["Make it red", None, "Add a ring"], think=False),
    "only given refinements": recipe(num_images=3, refinement_prompts=["One", "Two"], auto_refine=False),
    "forgetful": recipe(num_images=6, max_context_items=5),
    "forgetful, nothing pinned": recipe(num_images=6, max_context_items=5, pin="none"),
    "forgetful, some pinned": recipe(
        context=[{"text": "A cat"}, {"text": "and"}, {"text": "a dog"}], num_images=5, max_context_items=6, pin=1
    ),
    "variations": recipe(num_images=3, variations_per_image=3),
    "judged": recipe(num_images=3, variations_per_image=3, select="judge", retry={"below": 0.8, "times": 2}),
    "retried": recipe(num_images=3, retry={"below": 0.7, "times": 2}),
    "tree": recipe(num_images=3, variations_per_image=2, select="tree"),
    "retried tree": recipe(
        num_images=2, variations_per_image=2, select="tree", retry={"below": 0.6, "times": 1}, max_context_items=4
    ),
    "steered": recipe(num_images=3, refine_instruction="Be bold"),
    "with dollars": recipe(context=[{"text": "It costs $${money}"}], num_images=2),
}


def generations(steps: Sequence[Step], skipped: set[int]) -> list[Step]:
    """The steps for which the model writes or draws."""
    return [step for step in steps if isinstance(step, Write | Draw) and step.number not in skipped]


@pytest.mark.parametrize("document", LANGUAGE.values(), ids=LANGUAGE)
def test_a_branch_sees_what_the_run_saw_and_does_the_same_next(bucket: Bucket, document: dict[str, Any]) -> None:
    model = bucket.run(PARENT, document)
    history = read_history(bucket.journal(PARENT))
    skipped = {commit.step for commit in history.commits if commit.kind == "skip"}
    before = dict(zip([step.number for step in generations(history.steps, skipped)], model.contexts, strict=True))
    forks = 0
    for step in history.steps[len(history.recipe.context) - 1 :]:
        for variation in _going_on(history, step):
            fork = fork_at(history, step.number, variation)
            later = [
                one
                for one in generations(history.steps[step.number :], skipped)
                if is_on(fork.path, one.path) and not (isinstance(one, Draw) and one.attempt)
            ]
            if not later:
                continue
            forks += 1
            run_id = f"branch-{step.number}-{variation}"
            branch = bucket.run(run_id, bucket.branched(step.number, variation=variation))
            assert branch.contexts[0] == before[later[0].number], (step, variation)
            assert read_history(bucket.journal(run_id)).recipe.parent == f"{PARENT}@{step.number}"
    assert forks > 2


def _going_on(history: Any, step: Step) -> list[int | None]:
    """The variations of `step` that the run itself went on from, once all its tries were made."""
    if not isinstance(step, Draw):
        return [None]
    last = [one for one in history.steps if isinstance(one, Draw) and one.item == step.item][-1]
    final = history.kept(last).items()
    here = history.candidates(step)
    return [number for number, one in final if here.get(number) == one]


@pytest.mark.parametrize("document", [LANGUAGE["plain"], LANGUAGE["edit"], LANGUAGE["given refinements"]])
def test_a_branch_without_changes_makes_the_rest_again(bucket: Bucket, document: dict[str, Any]) -> None:
    bucket.run(PARENT, document)
    begin = len(document["context"])
    whole = [one.sha256 for commit in read_history(bucket.journal(PARENT)).commits for one in commit.artifacts]
    texts = [commit for commit in read_history(bucket.journal(PARENT)).commits if commit.artifacts]
    for at in range(begin, len(plan(read_history(bucket.journal(PARENT)).recipe))):
        run_id = f"branch-{at}"
        bucket.run(run_id, bucket.branched(at))
        made = [commit for commit in read_history(bucket.journal(run_id)).commits if commit.artifacts]
        assert len(made) == len([one for one in texts if one.step > at])
        for mine, theirs in zip(made, texts[-len(made) :], strict=True):
            (one,), (other,) = mine.artifacts, theirs.artifacts
            if one.kind == "text":
                assert one.sha256 == other.sha256
            else:
                assert bucket.image(run_id, one.key) == bucket.image(PARENT, other.key)
    assert len(whole) == len(texts)


def test_what_is_left_of_the_images_and_the_given_texts_is_made(bucket: Bucket) -> None:
    bucket.run(PARENT, recipe(num_images=4, refinement_prompts=["One", "Two", "Three"], think=False))
    after_first_image, after_given_text = bucket.branched(2), bucket.branched(3)
    assert (after_first_image["num_images"], after_first_image["refinement_prompts"]) == (3, ["One", "Two", "Three"])
    assert (after_given_text["num_images"], after_given_text["refinement_prompts"]) == (3, ["Two", "Three"])
    assert after_given_text["context"][-1] == {"text": "One", "thought": False}


def test_settings_are_kept_as_they_were_resolved(bucket: Bucket) -> None:
    bucket.run(PARENT, recipe(image={"cfg_text_scale": 3.0}))
    parent = json.loads(bucket.journal(PARENT).get("recipe.json"))
    branch = load(bucket.branched(3), spec=SPEC)
    assert branch.mode == "editing"
    assert branch.image == load(parent).image
    assert branch.image.cfg_img_scale == 1.0
    assert (branch.seed, branch.model, branch.name) == (5, "scripted", "test")


def test_pictures_are_those_of_the_run_and_pinned(bucket: Bucket) -> None:
    bucket.run(PARENT, LANGUAGE["edit"])
    first, _, drawn = bucket.branched(3)["context"]
    assert first["image"] == f"s3://runs/{PREFIX}/{PARENT}/inputs/000.png"
    assert drawn["image"] == f"s3://runs/{PREFIX}/{PARENT}/steps/003-image.png"
    bucket.journal(PARENT).put("steps/003-image.png", bucket.journal(PARENT).get("inputs/000.png"), content_type="")
    with pytest.raises(InputError, match="its SHA-256 is"):
        bucket.run(BRANCH, bucket.branched(3))


def test_only_what_the_run_pinned_stays_pinned(bucket: Bucket) -> None:
    bucket.run(PARENT, LANGUAGE["forgetful"])
    assert bucket.branched(1)["pin"] == "initial"
    assert bucket.branched(4)["pin"] == 1
    bucket.run(BRANCH, LANGUAGE["forgetful, nothing pinned"])
    assert branched(bucket.journal(BRANCH), at=4)["pin"] == "none"


def test_a_thought_is_kept_and_the_image_drawn_after_it(bucket: Bucket) -> None:
    bucket.run(PARENT, recipe())
    model = bucket.run(BRANCH, bucket.branched(2))
    what, (system_prompt, prompt, thought) = model.contexts[0]
    assert (what, system_prompt, prompt) == ("draw", PLANNING_PROMPT, ("A cat", False))
    assert thought[1] is True  # type: ignore[index]
    assert [what for what, _ in model.contexts] == ["draw", "write", "write", "draw"]


def test_a_dropped_try_can_go_on(bucket: Bucket) -> None:
    bucket.run(PARENT, recipe(think=False, retry={"below": 1.0, "times": 2}))
    history = read_history(bucket.journal(PARENT))
    tries = [commit.artifacts[0] for commit in history.commits[1:4]]
    assert len({one.sha256 for one in tries}) == 3
    for at, drawn in enumerate(tries, 2):
        assert bucket.branched(at)["context"][-1]["sha256"] == drawn.sha256


def test_a_variation_that_was_not_chosen_can_go_on(bucket: Bucket) -> None:
    bucket.run(PARENT, recipe(think=False, variations_per_image=3))
    assert bucket.branched(2)["context"][-1]["image"].endswith("/002-image.png")
    assert bucket.branched(2, variation=2)["context"][-1]["image"].endswith("/002-image.v2.png")


def test_behind_a_skipped_try_is_what_went_on(bucket: Bucket) -> None:
    bucket.run(PARENT, recipe(think=False, retry={"below": 0.0, "times": 1}))
    assert bucket.branched(3)["context"] == bucket.branched(2)["context"]


def test_a_branch_of_a_branch_goes_on_from_there(bucket: Bucket) -> None:
    bucket.run(PARENT, recipe(num_images=4))
    bucket.run(BRANCH, bucket.branched(3))
    again = branched(bucket.journal(BRANCH), at=6)
    assert again["parent"] == f"{BRANCH}@6"
    assert again["num_images"] == 2
    assert [next(iter(item)) for item in again["context"]] == ["text", "text", "image", "text", "text", "image"]
    assert again["context"][2]["image"] == f"s3://runs/{PREFIX}/{BRANCH}/inputs/000.png"


def test_a_run_under_way_can_be_branched_off_as_far_as_it_is(bucket: Bucket) -> None:
    bucket.run(PARENT, recipe(num_images=4), stop_after=3)
    assert bucket.branched(3)["num_images"] == 3
    with pytest.raises(PlaceError, match="run run-1, step 4: is not complete yet; allowed: steps 1 to 3"):
        bucket.branched(4)


def test_texts_with_variables_in_them_stay_as_they_are(bucket: Bucket) -> None:
    bucket.run(PARENT, LANGUAGE["with dollars"])
    document = bucket.branched(3)
    assert load(document).context[0] == TextItem(text="It costs ${money}")


@pytest.mark.parametrize(
    ("at", "options", "message"),
    [
        (0, {}, "step 0: does not exist; allowed: 1 to 7"),
        (8, {}, "step 8: does not exist; allowed: 1 to 7"),
        (1, {}, "step 1: is in the middle of the initial context; allowed: 2 or later"),
        (4, {"variation": 0}, "step 4: draws no image, so no variation can be selected"),
        (3, {"variation": 2}, "step 3: has no variation 2; allowed: 0, 1"),
        (3, {}, "step 3: selected several images; select one by its variation: 0, 1"),
        (5, {"variation": 0}, "step 5: all 2 images are complete; set how many more to draw: num_images=1 or more"),
    ],
)
def test_a_place_that_is_none_is_refused(bucket: Bucket, at: int, options: dict[str, Any], message: str) -> None:
    context = [{"text": "A cat"}, {"text": "on a wall"}]
    document = recipe(context=context, think=False, variations_per_image=2, select="tree", refinement_prompts=["One"])
    bucket.run(PARENT, document)
    with pytest.raises(PlaceError) as error:
        bucket.branched(at, **options)
    assert str(error.value) == f"run {PARENT}, {message}"


def test_more_images_can_be_asked_for_at_the_end(bucket: Bucket) -> None:
    bucket.run(PARENT, recipe(think=False))
    document = bucket.branched(4, overrides={"num_images": 2})
    bucket.run(BRANCH, {**document, "num_images": 2})
    with pytest.raises(RecipeError, match="num_images: 0 is too small"):
        load(document)


def test_a_text_that_is_not_what_was_committed_is_refused(bucket: Bucket) -> None:
    bucket.run(PARENT, recipe(think=False))
    journal = bucket.journal(PARENT)
    history = read_history(journal)
    (text,) = history.commits[2].artifacts
    journal.put(text.key, b"other words", content_type="")
    with pytest.raises(CorruptRecordError, match="is not what step 3 committed"):
        bucket.branched(3)
    journal.store.delete(journal.folder + text.key)
    with pytest.raises(CorruptRecordError, match="is missing, and step 3 is committed"):
        bucket.branched(3)


@pytest.mark.parametrize(("words", "count"), [("", "0"), ("star " * 1639, "8,195")])
def test_a_text_that_no_recipe_may_hold_can_not_be_branched_off_with(bucket: Bucket, words: str, count: str) -> None:
    bucket.run(PARENT, recipe(think=False), model=Saying(words))
    assert bucket.branched(2)["num_images"] == 1
    with pytest.raises(PlaceError) as error:
        bucket.branched(3)
    assert str(error.value) == (
        f"run {PARENT}, step 3: its text has {count} characters, which a context can't hold; allowed: 1 to 8,192"
    )


def test_a_run_that_is_not_there_is_named(bucket: Bucket) -> None:
    with pytest.raises(RunNotFoundError, match=f"run {PARENT}: s3://runs/{PREFIX}/{PARENT}/recipe.json does not exist"):
        bucket.branched(3)
    bucket.journal(PARENT).put("recipe.json", b"{}", content_type="")
    with pytest.raises(CorruptRecordError, match="is not a readable recipe"):
        bucket.branched(3)
