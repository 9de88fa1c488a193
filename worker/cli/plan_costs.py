"""The cost of each step of a recipe, counted with the model's tokenizer if it is on this machine."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.cost import StepCost, costs
from core.geometry import PUBLISHED_NAME, published_spec
from core.model_folder import ModelFolderError
from core.plan import Draw, Evict, Read, Step, Write, plan
from recipes.load import Given
from recipes.model_spec import ModelSpec
from recipes.recipe import TextItem
from recipes.warnings import RecipeWarning, warnings
from worker.jobs.artifacts import dotted
from worker.jobs.inputs import Sources
from worker.jobs.job import Job, prepare
from worker.serve.engine import Engine
from worker.settings import Settings

CHARS_A_TOKEN = 4
"""Approximate, for English text."""
BYTES_A_VALUE = 2
"""Of the KV cache in bfloat16, as on a GPU."""


@dataclass(frozen=True, kw_only=True)
class PlanCosts:
    """The steps of a recipe and their costs."""

    recipe: str
    model: str
    exact: bool
    """Whether the model's tokenizer counted the given texts. Generated texts count with their limit."""
    costs: tuple[StepCost, ...]
    job: Job
    spec: ModelSpec
    warnings: tuple[RecipeWarning, ...] = ()

    def to_data(self) -> dict[str, Any]:
        """As JSON data."""
        steps = [
            {
                "step": cost.step.number,
                "kind": cost.step.kind,
                "what": described(cost.step),
                "new_tokens": cost.new_tokens,
                "context_tokens": cost.context_tokens,
                "kv_bytes": cost.kv_values * BYTES_A_VALUE,
                "forward_passes": cost.forward_passes,
            }
            for cost in self.costs
        ]
        return {
            "recipe": self.recipe,
            "model": self.model,
            "exact_tokens": self.exact,
            "steps": steps,
            "warnings": [warning.to_data() for warning in self.warnings],
        }


def plan_costs(given: Given, config: Settings) -> PlanCosts:
    """The cost of a recipe on the model of `config`, without loading its weights.

    Raises RecipeError, InputError, ModelFolderError.
    """
    spec = spec_of(config)
    job = prepare(given, spec=spec, sources=Sources(folder=given.document.folder), run_id="")
    count, exact = token_counter(Path(config.model))
    found = costs(
        plan(job.recipe),
        job.recipe,
        spec,
        count_tokens=count,
        input_sizes=[image.size for image in job.inputs],
    )
    return PlanCosts(
        recipe=job.recipe.name,
        model=spec.name,
        exact=exact,
        costs=found,
        job=job,
        spec=spec,
        warnings=warnings(job.recipe, spec),
    )


def spec_of(config: Settings) -> ModelSpec:
    """The spec of the model of `config`; the published model needs no folder. Raises ModelFolderError."""
    return published_spec() if is_published(config) else Engine(config).spec()


def is_published(config: Settings) -> bool:
    """Whether the model is given by the name of the published one, whose folder is not on this machine."""
    return config.model.lower() == PUBLISHED_NAME and not Path(config.model).is_dir()


def token_counter(model: Path) -> tuple[Callable[[str], int], bool]:
    """The function that counts a text's tokens for the model in the folder `model`, and whether it is exact.

    Raises ModelFolderError if the folder's tokenizer can't be read.
    """
    file = model / "tokenizer.json"
    if not file.is_file() or importlib.util.find_spec("tokenizers") is None:
        return _about, False
    from tokenizers import Tokenizer  # noqa: PLC0415 - of the extra `model`, which a web backend lacks

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises a bare Exception for any file that it can't parse
        raise ModelFolderError(f"{file}: not a tokenizer: {error}") from error
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids), True


def _about(text: str) -> int:
    return -(-len(text) // CHARS_A_TOKEN)


def described(step: Step) -> str:
    """A short description of a step, for the plan's table."""
    branch = f"branch {dotted(step.path)}: " if step.path else ""
    match step:
        case Read(role=role, item=TextItem(text=text)):
            return f"{branch}read {role}: {text}"
        case Read(role=role):
            return f"{branch}read {role}: an image"
        case Write(role=role):
            return f"{branch}write {role}"
        case Draw(index=index, variations=variations, attempt=attempt):
            variants = f" in {variations} variations" if variations > 1 else ""
            retry = f", attempt {attempt + 1}, if its score is low" if attempt else ""
            return f"{branch}draw image {index + 1}{variants}{retry}"
        case Evict(dropped=dropped):
            items = "item of step" if len(dropped) == 1 else "items of steps"
            return f"{branch}forget the {items} {', '.join(map(str, dropped))}"
        case _:
            return branch + step.kind
