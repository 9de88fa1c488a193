"""What a step made is stored and comes back as what the sequence goes on from."""

import pytest
from PIL import Image

from core.events import Event, ImageReady, TextReady
from core.protocol import Picture, Text
from core.scripted import CARD
from recipes.faults import RecipeError
from storage.errors import RunTaken
from storage.journal import Journal
from storage.objects import MemoryStore
from tests.worker.serving import PREFIX, Silent, make_run, recipe, request
from worker.inputs import Sources
from worker.job import resolve, restore, store
from worker.products import restored_item
from worker.settings import PROJECT

RUN = "run-1"


def content(item: object) -> object:
    return item.image.tobytes() if isinstance(item, Picture) else item


def made(event: Event) -> object:
    match event:
        case TextReady(text=text, role=role):
            return Text(text, thought=role == "thinking")
        case ImageReady(image=image):
            return image.tobytes()
        case _:
            return None


def test_every_step_comes_back_as_it_was_made() -> None:
    objects, reporter = MemoryStore(), Silent()
    asked = request(RUN, recipe(num_images=3, refinement_prompts=["Make it red"], max_context_items=4))
    make_run(asked, objects, reporter=reporter)
    journal = Journal(objects, PREFIX, RUN)
    ended = {event.step.number: made(event) for event in reporter.events}
    commits = journal.commits()
    assert {commit.kind for commit in commits} == {"read", "write", "draw", "forget"}
    for commit in commits:
        item = restored_item(commit, journal)
        assert content(item) == ended[commit.step]
        if isinstance(item, Text):
            assert item.thought == (commit.artifacts[0].role == "thinking")


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
    job = resolve(request(RUN, "edit-photo"), CARD, recipes=PROJECT / "recipes", sources=sources)
    store(job, journal)
    again = restore(RUN, journal)
    assert again == job
    assert again.recipe_sha256 == job.recipe_sha256
    assert isinstance(job.inputs[0].decode(), Image.Image)


def test_a_run_id_that_holds_another_recipe_is_taken() -> None:
    journal = Journal(MemoryStore(), PREFIX, RUN)
    for seed in (1, 1, 2):
        job = resolve(request(RUN, recipe(seed=seed)), CARD, recipes=PROJECT / "recipes", sources=Sources())
        if seed == 2:
            with pytest.raises(RunTaken):
                store(job, journal)
        else:
            store(job, journal)


def test_a_recipe_for_another_model_is_refused() -> None:
    with pytest.raises(RecipeError, match="'other' is not served by this worker; allowed: 'scripted'"):
        resolve(request(RUN, recipe(model="other")), CARD, recipes=PROJECT / "recipes", sources=Sources())
