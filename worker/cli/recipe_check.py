"""`autoseq validate`: what is wrong with a recipe and its images, without any service."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.faults import RecipeError
from recipes.load import load
from recipes.model_spec import ModelSpec
from recipes.recipe import ImageItem
from worker.cli.arguments import recipe_file
from worker.jobs.inputs import InputError, Sources
from worker.serve.engine import Engine
from worker.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was found in one recipe."""

    recipe: str
    ok: bool
    faults: tuple[str, ...] = ()
    """Each with its place, what is wrong, and what is allowed."""


def verdict_on(
    text: str,
    spec: ModelSpec | None,
    variables: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Verdict:
    """Check a recipe, named as on the command line: its fields and images, its sizes when a spec is given.

    Images in S3 are left to the worker.
    """
    try:
        file = recipe_file(text)
        recipe = load(file, overrides=overrides, variables=variables, spec=spec)
        if not any(isinstance(item, ImageItem) and item.image.startswith("s3:") for item in recipe.context):
            Sources(folder=file.parent).fetch(recipe)
    except RecipeError as error:
        return Verdict(recipe=text, ok=False, faults=tuple(map(str, error.faults)))
    except InputError as error:
        return Verdict(recipe=text, ok=False, faults=(f"{text}: {error}",))
    return Verdict(recipe=text, ok=True)


def known_spec(config: Settings, *, required: bool) -> ModelSpec | None:
    """The spec of the model of `config`; None when its folder is not here and it is not `required`.

    Raises ModelFolderError.
    """
    if required or config.model == "scripted" or Path(config.model).is_dir():
        return Engine(config).spec()
    return None
