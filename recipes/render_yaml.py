"""A recipe with every default filled in, as YAML that loads again, each value told where it comes from."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recipes.canonical import to_document
from recipes.defaults import origin_of
from recipes.faults import FieldPath
from recipes.load import Given
from recipes.model_spec import ModelSpec
from recipes.recipe import Recipe
from recipes.variables import escaped
from recipes.yaml_text import comment, scalar_lines

_STEP = 2


def render_yaml(given: Given, spec: ModelSpec | None) -> str:
    """The recipe that is `given`, for the model of `spec`. Raises RecipeError.

    A value that its own file gives has no note; the others are a default, the model's, the mode's, a parent's, or
    from --set or --var.
    """
    recipe = given.resolve(spec)
    origins = _Origins(given, recipe, spec)
    return "\n".join(_mapping(escaped(to_document(recipe)), (), 0, origins)) + "\n"


def _mapping(mapping: Mapping[str, Any], path: FieldPath, indent: int, origins: "_Origins") -> Iterator[str]:
    for key, value in mapping.items():
        yield from _entry(f"{' ' * indent}{key}:", value, (*path, key), indent, origins)


def _entry(start: str, value: Any, path: FieldPath, indent: int, origins: "_Origins") -> Iterator[str]:  # noqa: ANN401 - any part of a recipe
    """The lines of a value behind its key, or behind the dash of its list."""
    if isinstance(value, dict):
        yield start
        yield from _mapping(value, path, indent + _STEP, origins)
    elif isinstance(value, list) and any(not isinstance(item, int | float) for item in value):
        yield start
        for index, item in enumerate(value):
            yield from _item(item, (*path, index), indent + _STEP, origins)
    else:
        first, *others = scalar_lines(value, indent)
        note = origins.of(path)
        yield f"{start} {first}  {comment(note)}" if note else f"{start} {first}"
        yield from others


def _item(item: Any, path: FieldPath, indent: int, origins: "_Origins") -> Iterator[str]:  # noqa: ANN401 - see _entry
    """An item of a list: a mapping begins on the line of its dash."""
    dash = f"{' ' * indent}-"
    if not isinstance(item, dict):
        yield from _entry(dash, item, path, indent, origins)
        return
    first, *others = _mapping(item, path, indent + _STEP, origins)
    yield f"{dash} {first.lstrip(' ')}"
    yield from others


class _Origins:
    """Where the values of a recipe come from."""

    def __init__(self, given: Given, recipe: Recipe, spec: ModelSpec | None) -> None:
        self._given = given
        self._recipe = recipe
        self._spec = spec

    def of(self, path: FieldPath) -> str:
        """Where the value at `path` comes from, in a few words; nothing when the recipe's own file gives it."""
        if not self._is_given(path):
            return origin_of(path, self._spec, self._recipe.mode)
        if self._given.overridden.replaced(path):
            return "--set"
        return ", ".join(filter(None, (self._parent(path), "--var" if self._varies(path) else "")))

    def _is_given(self, path: FieldPath) -> bool:
        if path == ("image", "cfg_img_scale") and self._recipe.mode == "generation":
            return False  # whatever is given: rule 1 of the plan
        place: Any = self._given.data
        for part in path:
            if isinstance(place, dict) and part not in place:
                return False
            place = place[part]
        return True

    def _parent(self, path: FieldPath) -> str:
        """The file of a parent that gives the value."""
        document = self._given.document
        position = document.positions.get(path)
        if position is None or not position.source:
            return ""
        file = Path(position.source)
        beside = document.folder is not None and file.is_relative_to(document.folder)
        return f"from {file.relative_to(document.folder or '') if beside else file.name}"

    def _varies(self, path: FieldPath) -> bool:
        """Whether a variable given beside the recipe is in the value."""
        expanded = self._given.expanded
        return any(
            used[: len(path)] == path and not expanded.given.isdisjoint(names) for used, names in expanded.uses.items()
        )
