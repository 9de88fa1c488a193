"""Where a valid recipe exceeds what its model was trained on, so that the results are likely to be poor."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from recipes.faults import FieldPath, path_text
from recipes.model_spec import ModelSpec
from recipes.recipe import Recipe, TextItem


@dataclass(frozen=True, kw_only=True)
class RecipeWarning:
    """One value of a recipe that the model is likely to handle poorly."""

    path: FieldPath
    message: str

    def __str__(self) -> str:
        return f"{path_text(self.path)}: {self.message}"

    def to_data(self) -> dict[str, Any]:
        """JSON data of the warning."""
        return {"field": path_text(self.path), "message": self.message}


def warnings(recipe: Recipe, spec: ModelSpec) -> tuple[RecipeWarning, ...]:
    """The warnings for a recipe with its defaults filled in; empty if the limits of the model are unknown."""
    return (*_sides(recipe, spec), *_prompts(recipe, spec))


def _sides(recipe: Recipe, spec: ModelSpec) -> Iterator[RecipeWarning]:
    shortest, longest = spec.limits.min_side_px or 0, spec.limits.max_side_px or spec.max_side_px
    for name, side in (("width", recipe.image.width), ("height", recipe.image.height)):
        if side is None or shortest <= side <= longest:
            continue
        sides = f"of {longest} px" if shortest == longest else f"from {shortest} to {longest} px"
        message = f"{side} px; {spec.name} was trained on images with sides {sides}, so the result may be poor"
        yield RecipeWarning(path=("image", name), message=message)


def _prompts(recipe: Recipe, spec: ModelSpec) -> Iterator[RecipeWarning]:
    longest = spec.limits.max_prompt_chars
    if longest is None:
        return
    texts: list[tuple[FieldPath, str | None]] = [
        *(
            (("context", index, "text"), item.text if isinstance(item, TextItem) else None)
            for index, item in enumerate(recipe.context)
        ),
        *((("refinement_prompts", index), prompt) for index, prompt in enumerate(recipe.refinement_prompts)),
        (("refine_instruction",), recipe.refine_instruction),
    ]
    for path, text in texts:
        if text is not None and len(text) > longest:
            trained = f"{spec.name} was trained on prompts of up to {longest:,} characters"
            message = f"{len(text):,} characters; {trained}, so the result may be poor"
            yield RecipeWarning(path=path, message=message)
