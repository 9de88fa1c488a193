"""A job: a request resolved to a recipe and its input images, which are stored with the run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from core.plan import Draw, plan
from recipes.canonical import canonical_json, recipe_sha256, to_document
from recipes.faults import Fault, RecipeError
from recipes.load import Given, find, read
from recipes.model_spec import ModelSpec
from recipes.recipe import Recipe
from storage import keys
from storage.errors import ObjectNotFoundError
from storage.journal import JSON, Journal, in_parallel
from worker.jobs.inputs import InputImage, Sources, checked, with_references
from worker.jobs.request import RunRequest
from worker.jobs.stored_recipe import StoredRecipe, read_stored_recipe


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that determines the output of a run."""

    run_id: str
    recipe: Recipe
    """Resolved: every default filled in, images referred to as the run's own inputs and pinned to their hashes."""
    document: Mapping[str, Any]
    """The recipe as stored. It may have fields of another release, which started the run."""
    inputs: tuple[InputImage, ...]
    model_sha256: str | None = None
    """The fingerprint of the model that the run was started with; None if it is not recorded."""

    @cached_property
    def recipe_sha256(self) -> str:
        """The hash that identifies the run by everything that determines its outcome."""
        return recipe_sha256(self.document, [image.sha256 for image in self.inputs])

    def images_at(self, number: int) -> int:
        """How many images step `number` draws at most; 1 for a step of another kind."""
        step = plan(self.recipe)[max(number, 1) - 1]
        return step.variations if isinstance(step, Draw) else 1

    def sizes_at(self, number: int) -> str:
        """The sizes that determine the memory use of step `number`, for an error message."""
        step = plan(self.recipe)[max(number, 1) - 1]
        image = self.recipe.image
        size = f"{image.width} x {image.height} pixels" if image.width else "images of the size of the last"
        together = f", {step.variations} at once" if isinstance(step, Draw) and step.variations > 1 else ""
        return f"at step {number} with {len(step.context)} context items and {size}{together}"


def resolve(request: RunRequest, spec: ModelSpec, *, recipes: Path, sources: Sources) -> Job:
    """The job of `request` on the model of `spec`. Raises RecipeError or InputError."""
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
    recipe = with_references(recipe, images, references)
    document = to_document(recipe)
    return Job(run_id=run_id, recipe=recipe, document=document, inputs=images, model_sha256=spec.sha256)


def store(job: Job, journal: Journal) -> None:
    """Store the job. Raises CommitConflictError if another one is stored."""
    for put in puts_of(job, journal):
        put()


def puts_of(job: Job, journal: Journal) -> list[Callable[[], None]]:
    """The calls that store the job's inputs and its model, then its recipe; idempotent, to be made in order.

    The run has begun once its recipe is stored, so that no run begins without a record of its model. Each call raises
    CommitConflictError if something else is stored.
    """
    puts: list[Callable[[], None]] = [
        partial(journal.put_once, keys.input_image(index, image.extension), image.data, content_type=image.content_type)
        for index, image in enumerate(job.inputs)
    ]
    if job.model_sha256 is not None:
        puts.append(partial(journal.write_model, job.recipe.model or "", job.model_sha256))
    return [*puts, partial(journal.put_once, keys.RECIPE, canonical_json(job.document), content_type=JSON)]


def restore(run_id: str, journal: Journal) -> Job | None:
    """The job that is stored in the run's folder, if any. Raises CorruptRecordError, NewerRecordError."""
    try:
        stored = read_stored_recipe(journal)
    except ObjectNotFoundError:
        return None
    model = journal.model()
    return Job(
        run_id=run_id,
        recipe=stored.recipe,
        document=stored.document,
        inputs=_stored_inputs(stored, journal),
        model_sha256=model.sha256 if model else None,
    )


def _stored_inputs(stored: StoredRecipe, journal: Journal) -> tuple[InputImage, ...]:
    """The images of a stored recipe, each content read once and one object."""
    names = {item.sha256 or item.image: item.image for item in reversed(stored.images)}
    data = in_parallel(journal.get, names.values())
    # Checked one after the other, since each is decoded for it.
    images = {content: checked(name, one) for (content, name), one in zip(names.items(), data, strict=True)}
    return tuple(images[item.sha256 or item.image] for item in stored.images)
