"""The checks of `autoseq validate` on a recipe and its images, without services."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.faults import Fault, RecipeError
from recipes.load import load
from recipes.model_spec import ModelSpec
from recipes.recipe import ImageItem
from recipes.warnings import RecipeWarning, warnings
from worker.cli.arguments import recipe_file
from worker.jobs.inputs import InputError, Sources
from worker.serve.engine import SCRIPTED, Engine
from worker.settings import Settings


@dataclass(frozen=True, kw_only=True)
class RecipeCheck:
    """The faults and warnings of one recipe."""

    recipe: str
    faults: tuple[Fault, ...] = ()
    warnings: tuple[RecipeWarning, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.faults

    def to_data(self) -> dict[str, Any]:
        """As JSON data."""
        return {
            "recipe": self.recipe,
            "ok": self.ok,
            "faults": [fault.to_data() for fault in self.faults],
            "warnings": [warning.to_data() for warning in self.warnings],
        }


def check_recipe(
    text: str,
    spec: ModelSpec | None,
    *,
    overrides: Mapping[str, Any] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> RecipeCheck:
    """Check a recipe, given as on the command line: its fields and images, and with a spec also its sizes.

    The images of a recipe that refers to S3 are left to the worker.
    """
    try:
        file = recipe_file(text)
        recipe = load(file, overrides=overrides, variables=variables, spec=spec)
        if not any(isinstance(item, ImageItem) and item.image.startswith("s3:") for item in recipe.context):
            Sources(folder=file.parent).fetch(recipe)
    except RecipeError as error:
        return RecipeCheck(recipe=text, faults=error.faults)
    except InputError as error:
        return RecipeCheck(recipe=text, faults=(Fault(path=(), message=str(error), source=text),))
    return RecipeCheck(recipe=text, warnings=warnings(recipe, spec) if spec else ())


def known_spec(config: Settings, *, required: bool) -> ModelSpec | None:
    """The spec of the model of `config`; None when its folder is not on this machine and it is not `required`.

    Raises ModelFolderError.
    """
    if required or config.model == SCRIPTED or Path(config.model).is_dir():
        return Engine(config).spec()
    return None
