"""A recipe with all defaults filled in, as YAML that loads again, with the source of each value as a comment."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recipes.canonical import to_document
from recipes.defaults import default_source
from recipes.faults import FieldPath
from recipes.load import Given
from recipes.model_spec import ModelSpec
from recipes.recipe import Recipe
from recipes.variables import escaped
from recipes.yaml_text import STEP, comment, scalar_lines


def render_yaml(given: Given, spec: ModelSpec | None) -> str:
    """The recipe in `given` as YAML, for the model of `spec`.

    A value from the recipe's own file has no comment; the comment of the others names a default, a parent, --set or
    --var.

    Raises RecipeError.
    """
    recipe = given.resolve(spec)
    sources = _Sources(given, recipe, spec)
    return "\n".join(_mapping(escaped(to_document(recipe)), (), 0, sources)) + "\n"


def _mapping(mapping: Mapping[str, Any], path: FieldPath, indent: int, sources: "_Sources") -> Iterator[str]:
    for key, value in mapping.items():
        yield from _entry(f"{' ' * indent}{key}:", value, (*path, key), indent, sources)


def _entry(start: str, value: Any, path: FieldPath, indent: int, sources: "_Sources") -> Iterator[str]:  # noqa: ANN401 - any part of a recipe
    """The lines of a value; `start` is its key, or the dash of its list item."""
    if isinstance(value, dict):
        yield start
        yield from _mapping(value, path, indent + STEP, sources)
    elif isinstance(value, list) and any(not isinstance(item, int | float) for item in value):
        yield start
        for index, item in enumerate(value):
            yield from _item(item, (*path, index), indent + STEP, sources)
    else:
        first, *others = scalar_lines(value, indent)
        source = sources.of(path)
        yield f"{start} {first}  {comment(source)}" if source else f"{start} {first}"
        yield from others


def _item(item: Any, path: FieldPath, indent: int, sources: "_Sources") -> Iterator[str]:  # noqa: ANN401 - see _entry
    """The lines of a list item; a mapping starts on the line of its dash."""
    dash = f"{' ' * indent}-"
    if not isinstance(item, dict):
        yield from _entry(dash, item, path, indent, sources)
        return
    first, *others = _mapping(item, path, indent + STEP, sources)
    yield f"{dash} {first.lstrip(' ')}"
    yield from others


class _Sources:
    """The sources of a recipe's values."""

    def __init__(self, given: Given, recipe: Recipe, spec: ModelSpec | None) -> None:
        self._given = given
        self._recipe = recipe
        self._spec = spec

    def of(self, path: FieldPath) -> str:
        """The source of the value at `path`; empty if it is the recipe's own file."""
        if not self._is_given(path):
            return default_source(path, self._spec, self._recipe.mode)
        if self._given.overridden.replaced(path):
            return "--set"
        return ", ".join(filter(None, (self._parent(path), "--var" if self._has_variable(path) else "")))

    def _is_given(self, path: FieldPath) -> bool:
        if path == ("image", "cfg_img_scale") and self._recipe.mode == "generation":
            return False  # image guidance is always off in generation, whatever is given
        place: Any = self._given.data
        for part in path:
            if isinstance(place, dict) and part not in place:
                return False
            place = place[part]
        return True

    def _parent(self, path: FieldPath) -> str:
        """The file of the parent recipe that gives the value; empty if none does."""
        document = self._given.document
        position = document.positions.get(path)
        if position is None or not position.source:
            return ""
        file = Path(position.source)
        beside = document.folder is not None and file.is_relative_to(document.folder)
        return f"from {file.relative_to(document.folder or '') if beside else file.name}"

    def _has_variable(self, path: FieldPath) -> bool:
        """Whether the value contains a variable that was passed with the recipe."""
        expanded = self._given.expanded
        return any(
            used[: len(path)] == path and not expanded.given.isdisjoint(names) for used, names in expanded.uses.items()
        )
