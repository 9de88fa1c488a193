"""What a step made is stored and comes back as what the sequence goes on from."""

import json

import pytest
from PIL import Image

from core.events import Event, ImageReady, TextReady
from core.scripted import SPEC
from core.sequence import StepOutput
from recipes.faults import RecipeError
from storage.errors import CommitConflictError, CorruptRecordError
from storage.journal import Journal
from storage.objects.memory import MemoryStore
from tests.worker.serving import PREFIX, Silent, make_run, recipe, request
from worker.jobs.artifacts import restored
from worker.jobs.inputs import Sources
from worker.jobs.job import resolve, restore, store
from worker.settings import PROJECT

RUN = "run-1"


def content(made: StepOutput) -> object:
    """What a step made, to compare."""
    if isinstance(made, tuple):
        return [(one.number, one.image.tobytes(), one.seed, one.score) for one in made if one.selected]
    return made


def made(event: Event) -> StepOutput:
    match event:
        case TextReady(text=text):
            return text
        case ImageReady(variations=variations):
            return tuple(one for one in variations if one.selected)
        case _:
            return None


@pytest.mark.parametrize(
    "fields",
    [
        {"refinement_prompts": ["Make it red"], "max_context_items": 4},
        {"variations_per_image": 3, "select": "judge", "retry": {"below": 0.8, "times": 2}},
        {"variations_per_image": 2, "select": "tree", "retry": {"below": 0.5, "times": 1}},
    ],
    ids=str,
)
def test_every_step_comes_back_as_it_was_made(fields: dict[str, object]) -> None:
    objects, reporter = MemoryStore(), Silent()
    make_run(request(RUN, recipe(num_images=3, **fields)), objects, reporter=reporter)
    journal = Journal(objects, PREFIX, RUN)
    ended = {event.step.number: made(event) for event in reporter.events}
    for commit in journal.commits():
        assert content(restored(commit, journal)) == content(ended[commit.step])


def test_a_commit_says_what_its_step_did() -> None:
    objects = MemoryStore()
    retry = {"below": 0.5, "times": 2}
    make_run(request(RUN, recipe(num_images=4, think=True, retry=retry, max_context_items=5)), objects)
    kinds = {commit.kind for commit in Journal(objects, PREFIX, RUN).commits()}
    assert kinds == {"read", "write", "draw", "skip", "forget"}


def test_the_manifest_tells_which_images_went_on() -> None:
    objects = MemoryStore()
    fields = {"num_images": 3, "variations_per_image": 2, "select": "judge", "retry": {"below": 0.9, "times": 2}}
    manifest = make_run(request(RUN, recipe(**fields)), objects)
    drawn = [made for made in manifest.artifacts if made.kind == "image"]
    assert len(manifest.images) == 3 < len(drawn)
    for index, key in enumerate(manifest.images):
        tries = [made for made in drawn if made.index == index]
        assert next(made.score for made in tries if made.key == key) == max(made.score or 0 for made in tries)


def test_every_image_of_a_tree_is_named_by_its_branch_and_goes_on() -> None:
    objects = MemoryStore()
    manifest = make_run(request(RUN, recipe(num_images=2, variations_per_image=2, select="tree")), objects)
    images = {made.path: made.key for made in manifest.artifacts if made.kind == "image"}
    assert list(images) == ["0", "1", "0.0", "0.1", "1.0", "1.1"]
    assert images["1.0"].endswith("-image.v1.v0.png")
    assert manifest.images == tuple(images.values())
    assert {made.path for made in manifest.artifacts if made.role == "refinement"} == {"0", "1"}


def test_a_given_refinement_is_an_artifact_too() -> None:
    objects = MemoryStore()
    manifest = make_run(request(RUN, recipe(refinement_prompts=["Make it red"])), objects)
    (given,) = (artifact for artifact in manifest.artifacts if artifact.given)
    assert objects.get(f"{PREFIX}/{RUN}/{given.key}") == b"Make it red"


def test_a_job_comes_back_with_its_recipe_and_its_images() -> None:
    objects = MemoryStore()
    journal = Journal(objects, PREFIX, RUN)
    assert restore(RUN, journal) is None
    sources = Sources(folder=PROJECT / "recipes")
    job = resolve(request(RUN, "edit-photo"), SPEC, recipes=PROJECT / "recipes", sources=sources)
    store(job, journal)
    again = restore(RUN, journal)
    assert again == job
    assert again.recipe_sha256 == job.recipe_sha256
    assert isinstance(job.inputs[0].decode(), Image.Image)


def test_a_run_id_that_holds_another_recipe_is_taken() -> None:
    journal = Journal(MemoryStore(), PREFIX, RUN)
    for seed in (1, 1, 2):
        job = resolve(request(RUN, recipe(seed=seed)), SPEC, recipes=PROJECT / "recipes", sources=Sources())
        if seed == 2:
            with pytest.raises(CommitConflictError):
                store(job, journal)
        else:
            store(job, journal)


def test_a_recipe_for_another_model_is_refused() -> None:
    with pytest.raises(RecipeError, match="'other' is not served by this worker; allowed: 'scripted'"):
        resolve(request(RUN, recipe(model="other")), SPEC, recipes=PROJECT / "recipes", sources=Sources())


@pytest.mark.parametrize(
    ("step", "changed", "words"),
    [
        (2, {"kind": "draw"}, "is of a draw step, and the plan's step is write"),
        (3, {"recipe_sha256": "cafe"}, "is of another recipe, cafe"),
        (3, {"artifacts": []}, "names 0 objects, which are not those of its draw step"),
    ],
)
def test_records_that_are_not_of_this_plan_are_told(step: int, changed: dict[str, object], words: str) -> None:
    objects = MemoryStore()
    make_run(request(RUN), objects)
    name = f"{PREFIX}/{RUN}/commits/{step:03d}.json"
    objects.put(name, json.dumps({**json.loads(objects.get(name)), **changed}).encode(), content_type="")
    with pytest.raises(CorruptRecordError, match=rf"commits/00{step}\.json: {words}"):
        make_run(request(RUN), objects)


def test_more_records_than_the_plan_has_steps_are_told() -> None:
    objects = MemoryStore()
    make_run(request(RUN), objects)
    last = json.loads(objects.get(f"{PREFIX}/{RUN}/commits/006.json"))
    objects.put(f"{PREFIX}/{RUN}/commits/007.json", json.dumps({**last, "step": 7}).encode(), content_type="")
    with pytest.raises(CorruptRecordError, match="the plan's step is none"):
        make_run(request(RUN), objects)


@pytest.mark.parametrize("stored", [b"{", b"[" * 5000, b'{"name": 5}'])
def test_a_stored_recipe_that_is_none_is_told(stored: bytes) -> None:
    journal = Journal(MemoryStore(), PREFIX, RUN)
    journal.put("recipe.json", stored, content_type="application/json")
    with pytest.raises(CorruptRecordError, match=r"recipe\.json: is not a readable recipe"):
        restore(RUN, journal)


def test_a_commit_whose_objects_are_not_those_of_its_step_is_broken() -> None:
    objects = MemoryStore()
    make_run(request(RUN), objects)
    journal = Journal(objects, PREFIX, RUN)
    objects.delete(f"{journal.folder}manifest.json")
    record = json.loads(journal.get("commits/003.json"))
    record["artifacts"][0]["path"] = "1"
    journal.put("commits/003.json", json.dumps(record).encode(), content_type="application/json")
    with pytest.raises(
        CorruptRecordError, match=r"commits/003.json: names 1 objects, which are not those of its draw step"
    ):
        make_run(request(RUN), objects)
