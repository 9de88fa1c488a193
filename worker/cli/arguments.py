"""The arguments that several commands share, and the functions that parse them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.completion import recipes, run_ids
from worker.jobs.request import Priority

# ruff: noqa: PLC0415 - imported when a command needs it, so that --help and completion are quick

if TYPE_CHECKING:
    from recipes.load import Given
    from worker.settings import Settings

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="Recipe file, or name of a shipped recipe.", autocompletion=recipes)
]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="Run id, or a unique prefix of it.", autocompletion=run_ids)
]
RunOrLast = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN", help="Run id, or a unique prefix of it. Default: the last run.", autocompletion=run_ids
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Override a recipe field, as in num_images=5. Repeatable."),
]
Variables = Annotated[
    list[str] | None,
    typer.Option("--var", metavar="NAME=VALUE", help="Set ${NAME} in the recipe, as in animal=fox. Repeatable."),
]
Swept = Annotated[
    list[str] | None,
    typer.Option(
        "--sweep",
        metavar="FIELD=VALUES",
        help="Submit one run per value, as in seed=1..4 or top_k=0,20. Repeat for all combinations.",
    ),
]
PriorityOption = Annotated[Priority, typer.Option("--priority", help="Queue priority; higher starts first.")]
IdempotencyKey = Annotated[str | None, typer.Option("--idempotency-key", help="Return the existing run for this key.")]
Dedupe = Annotated[
    bool, typer.Option("--dedupe", help="Return the existing run with the same recipe, images and model.")
]
Watch = Annotated[bool, typer.Option("--watch", help="Follow the run until it ends.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]
Model = Annotated[
    str | None, typer.Option("--model", help="Model folder, or name of a model beside AUTOSEQ_MODEL or in ./models.")
]
Gpus = Annotated[str, typer.Option("--gpus", metavar="0,1", help="Start one worker on each of these GPUs.")]
Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder in which the run's folder is created.")]


def settings_for(model: str | None = None) -> "Settings":
    """The settings, with another model when one is given."""
    from worker.settings import Settings, settings

    return settings() if model is None else Settings(model=model_folder(model))


def model_folder(text: str) -> str:
    """The value of AUTOSEQ_MODEL for a model given by its folder or its name; `text` itself when no name matches.

    A name is looked up among the configured model's siblings, in ./models and in the project's models.
    """
    from worker.settings import PROJECT, settings

    if "/" in text or Path(text).is_dir():
        return text
    config = settings()
    if text == config.served_model:
        return config.model
    for parent in (Path(config.model).parent, Path("models"), PROJECT / "models"):
        if parent.is_dir():
            for folder in sorted(parent.iterdir()):
                if folder.name.lower() == text.lower() and folder.is_dir():
                    return str(folder)
    return text


def recipe_file(text: str) -> Path:
    """The file of a recipe, given by its path or as the name of a shipped recipe.

    Raises RecipeError, which lists the names.
    """
    from recipes.load import find

    path = Path(text)
    if "/" in text or path.suffix in {".yaml", ".yml"} or path.is_file():
        return path
    return find(text, settings_for().recipes)


def parsed_overrides(overrides: list[str] | None) -> dict[str, Any]:
    """The fields that --set overrides; the last value of a field wins. Raises RecipeError."""
    from recipes.overrides import parse_override

    return dict(parse_override(text) for text in overrides or ())


def parsed_variables(variables: list[str] | None) -> dict[str, Any]:
    """The variables that --var sets; the last value of a variable wins. Raises RecipeError."""
    from recipes.variables import parse_variable

    return dict(parse_variable(text) for text in variables or ())


def given_recipe(text: str, overrides: list[str] | None, variables: list[str] | None) -> "Given":
    """A recipe with the command line's overrides and variables. Raises RecipeError."""
    from recipes.load import read

    return read(recipe_file(text), overrides=parsed_overrides(overrides), variables=parsed_variables(variables))


def check_one_key(*, dedupe: bool, idempotency_key: str | None) -> None:
    """Raises typer's own error when both ways to find an existing run are asked for."""
    if dedupe and idempotency_key:
        raise typer.BadParameter("--dedupe and --idempotency-key can't be used together")


def gpu_numbers(text: str) -> list[int]:
    """The numbers in "0,1". Raises typer's own error."""
    numbers = [part.strip() for part in text.split(",")] if text else []
    if not all(part.isascii() and part.isdecimal() for part in numbers) or len(set(numbers)) < len(numbers):
        raise typer.BadParameter(f"{text!r} is not a list of different GPU numbers such as 0,1", param_hint="--gpus")
    return [int(part) for part in numbers]
