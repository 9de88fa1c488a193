"""The arguments that several commands share: how they are written, and what they mean."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from recipes.load import Given
    from worker.settings import Settings

RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or a shipped recipe's name.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change a field; repeatable: num_images=5.")
]
Variables = Annotated[
    list[str] | None,
    typer.Option("--var", metavar="NAME=VALUE", help="The value of ${NAME} in the recipe; repeatable: animal=fox."),
]
Swept = Annotated[
    list[str] | None,
    typer.Option("--sweep", metavar="FIELD=VALUES", help="A run for each value; repeatable: seed=1..4, top_k=0,20."),
]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, for scripts.")]
Model = Annotated[Path | None, typer.Option("--model", help="The model's folder, instead of AUTOSEQ_MODEL.")]
Gpus = Annotated[str, typer.Option("--gpus", metavar="0,1", help="One worker for each of these GPUs.")]
Out = Annotated[Path, typer.Option("--out", help="Where the run's folder is made.")]


def settings_for(model: Path | None = None) -> "Settings":
    """The settings, with another model when one is given."""
    from worker.settings import Settings, settings  # noqa: PLC0415 - here as in main.py: only what a command needs

    return settings() if model is None else Settings(model=str(model))


def recipe_file(text: str) -> Path:
    """The file of a recipe: what looks like a path is one, anything else is a shipped recipe's name.

    Raises RecipeError that lists the names.
    """
    from recipes.load import find  # noqa: PLC0415

    path = Path(text)
    if "/" in text or path.suffix in {".yaml", ".yml"} or path.is_file():
        return path
    return find(text, settings_for().recipes)


def parsed(overrides: list[str] | None) -> dict[str, Any]:
    """The fields that --set changes, the last of each. Raises RecipeError."""
    from recipes.overrides import parse_override  # noqa: PLC0415

    return dict(parse_override(text) for text in overrides or ())


def values_of(variables: list[str] | None) -> dict[str, Any]:
    """The variables that --var gives, the last of each. Raises RecipeError."""
    from recipes.variables import parse_variable  # noqa: PLC0415

    return dict(parse_variable(text) for text in variables or ())


def given_recipe(text: str, overrides: list[str] | None, variables: list[str] | None) -> "Given":
    """A recipe as it was asked for on the command line. Raises RecipeError."""
    from recipes.load import read  # noqa: PLC0415

    return read(recipe_file(text), overrides=parsed(overrides), variables=values_of(variables))


def gpu_numbers(text: str) -> list[int]:
    """The numbers in "0,1". Raises typer's own error."""
    numbers = [part.strip() for part in text.split(",")] if text else []
    if not all(part.isascii() and part.isdecimal() for part in numbers) or len(set(numbers)) < len(numbers):
        raise typer.BadParameter(f"{text!r} is not a list of different GPU numbers such as 0,1", param_hint="--gpus")
    return [int(part) for part in numbers]
