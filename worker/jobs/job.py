"""A run that is ready: what was asked for, resolved to a recipe and input images that are stored with the run."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from core.plan import plan
from recipes.canonical import fingerprint, to_json
from recipes.faults import Fault, RecipeError
from recipes.load import Given, find, load_resolved, read
from recipes.model_spec import ModelSpec
from recipes.recipe import ImageItem, Recipe
from storage import keys
from storage.errors import CorruptRecordError, ObjectNotFoundError
from storage.journal import Journal
from worker.jobs.inputs import InputImage, Sources, checked, with_references
from worker.jobs.request import RunRequest


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run with everything it is made from."""

    run_id: str
    recipe: Recipe
    """Resolved: every default filled in, images referred to as the run's own inputs and pinned to their hashes."""
    inputs: tuple[InputImage, ...]

    @property
    def recipe_sha256(self) -> str:
        """What the run's outcome is decided by."""
        return fingerprint(self.recipe, [image.sha256 for image in self.inputs])

    def sizes_at(self, number: int) -> str:
        """What decides how much memory the step `number` takes, in words."""
        items = len(plan(self.recipe)[max(number, 1) - 1].context)
        image = self.recipe.image
        size = f"{image.width} x {image.height} pixels" if image.width else "images of the size of the last"
        together = f", {self.recipe.variations_per_image} at once" if self.recipe.variations_per_image > 1 else ""
        return f"at step {number} with {items} context items and {size}{together}"


def resolve(request: RunRequest, spec: ModelSpec, *, recipes: Path, sources: Sources) -> Job:
    """What `request` asks for, on the model of `spec`. Raises RecipeError or InputError."""
    source = find(request.recipe, recipes) if isinstance(request.recipe, str) else request.recipe
    given = read(source, overrides=request.overrides, variables=request.variables)
    return prepare(given, spec=spec, sources=sources, run_id=request.run_id)


def prepare(given: Given, *, spec: ModelSpec, sources: Sources, run_id: str) -> Job:
    """The job of a recipe on the model of `spec`. Raises RecipeError or InputError."""
    recipe = given.resolve(spec)
    if recipe.model not in (None, spec.name):
        message = f"{recipe.model!r} is not served by this worker; allowed: {spec.name!r}"
        raise RecipeError([Fault(path=("model",), message=message)])
    recipe = replace(recipe, model=spec.name)
    images = sources.fetch(recipe)
    references = [keys.input_image(index, image.extension) for index, image in enumerate(images)]
    return Job(run_id=run_id, recipe=with_references(recipe, images, references), inputs=images)


def store(job: Job, journal: Journal) -> None:
    """Store the job's inputs, then its recipe. Raises CommitConflictError when other ones are there."""
    for index, image in enumerate(job.inputs):
        journal.put_once(keys.input_image(index, image.extension), image.data, content_type=image.content_type)
    journal.put_once(keys.RECIPE, to_json(job.recipe), content_type="application/json")


def restore(run_id: str, journal: Journal) -> Job | None:
    """The job that is stored in the run's folder; None when none is, or not wholly. Raises CorruptRecordError."""
    try:
        recipe = load_resolved(json.loads(journal.get(keys.RECIPE)))
    except ObjectNotFoundError:
        return None
    except (ValueError, RecursionError) as error:  # a RecipeError among them
        raise CorruptRecordError(f"{journal.address(keys.RECIPE)}: not a recipe of this program: {error}") from error
    references = [item.image for item in recipe.context if isinstance(item, ImageItem)]
    images = tuple(checked(reference, journal.get(reference)) for reference in references)
    return Job(run_id=run_id, recipe=recipe, inputs=images)
