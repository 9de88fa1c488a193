"""The names, types and bounds that a recipe allows at each path, as text for error messages."""

import types
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, MaxLen, MinLen

from recipes.faults import FieldPath
from recipes.recipe import ImageSettings, JudgeSettings, OutputSettings, Recipe, TextSettings

# The groups of settings; an override may name their fields without the group.
SETTINGS: dict[str, type[TextSettings | ImageSettings | JudgeSettings | OutputSettings]] = {
    "text": TextSettings,
    "image": ImageSettings,
    "judge": JudgeSettings,
    "output": OutputSettings,
}

KEYS = ("extends", "vars")
"""The keys of a recipe file that are not recipe fields; a resolved recipe has none of them."""

_COMPARED_CHARS = 80
"""Longer names are compared by their beginning, since a comparison is slow."""

_Alternative: TypeAlias = tuple[Any, dict[type, Any]]
"""One type allowed at a path, and its bounds by kind."""


def names(kind: Any) -> tuple[str, ...]:  # noqa: ANN401 - any type
    """The field names of a dataclass; empty for other types."""
    return tuple(field.name for field in fields(kind)) if is_dataclass(kind) else ()


def field_names(path: FieldPath) -> tuple[str, ...]:
    """The fields allowed in the mapping at `path`."""
    return tuple(name for kind, _ in _at(path) for name in names(kind))


def known(value: Any, path: FieldPath = ()) -> Any:  # noqa: ANN401 - any part of a recipe, right or wrong
    """`value`, found at `path`, without the fields that this release does not know."""
    if isinstance(value, dict):
        allowed = field_names(path)
        return {name: known(inner, (*path, name)) for name, inner in value.items() if name in allowed}
    if isinstance(value, list):
        return [known(item, (*path, index)) for index, item in enumerate(value)]
    return value


def suggestion(name: str, known: Sequence[str]) -> str:
    """The question whether another name was meant; empty if no known name is similar."""
    close = get_close_matches(name[:_COMPARED_CHARS], known, n=1)
    return f"did you mean '{close[0]}'?" if close else ""


def unknown(name: str, allowed: Sequence[str]) -> str:
    """The error message for an unknown field."""
    remedy = suggestion(name, allowed) or f"allowed: {', '.join(allowed)}"
    return f"unknown field '{name}'; {remedy}"


def allowed(path: FieldPath) -> str:
    """The values allowed at `path`: "whole numbers from 1 to 64, or null"."""
    return ", or ".join(_describe(kind, bounds) for kind, bounds in _at(path))


def _describe(kind: Any, bounds: dict[type, Any]) -> str:  # noqa: ANN401 - any type
    if get_origin(kind) is Literal:
        return ", ".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        return _describe_list(get_args(kind), bounds)
    if is_dataclass(kind):
        return f"a mapping with {', '.join(names(kind))}"
    if kind in (int, float):
        what = "whole numbers" if kind is int else "numbers"
        return f"{what} above {_span(bounds, Gt, Le)}" if Gt in bounds else f"{what} from {_span(bounds, Ge, Le)}"
    text = f"a text of {_span(bounds, MinLen, MaxLen)} characters" if MaxLen in bounds else "a text"
    return {str: text, bool: "true or false", type(None): "null"}[kind]


def _describe_list(elements: Sequence[Any], bounds: dict[type, Any]) -> str:
    item = ", or ".join(_describe(*one) for one in _alternatives(elements[0]))
    if elements[-1] is not Ellipsis:
        return f"a list of {len(elements)}: {item}"
    return f"a list of {_span({MinLen: 0, **bounds}, MinLen, MaxLen)} of these: {item}"


def _span(bounds: dict[type, Any], lower: type, upper: type) -> str:
    joint = " and up to " if lower is Gt else " to "
    return f"{_number(bounds[lower])}{joint}{_number(bounds[upper])}"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _at(path: FieldPath) -> list[_Alternative]:
    """The types allowed at `path`; empty if there is no such path."""
    found: list[_Alternative] = [(Recipe, {})]
    for part in path:
        found = [inner for kind, _ in found for inner in _inside(kind, part)]
    return found


def _inside(kind: Any, part: str | int) -> Iterator[_Alternative]:  # noqa: ANN401 - any type
    if isinstance(part, str) and part in names(kind):
        yield from _alternatives(_hints(kind)[part])
    elif isinstance(part, int) and get_origin(kind) is tuple:
        yield from _alternatives(get_args(kind)[0])  # all elements of a tuple have one type here


def _alternatives(hint: Any) -> list[_Alternative]:  # noqa: ANN401 - any annotation
    if get_origin(hint) in (Union, types.UnionType):
        return [one for option in get_args(hint) for one in _alternatives(option)]
    if get_origin(hint) is Annotated:
        kind, *metadata = get_args(hint)
        own = {type(bound): _limit(bound) for bound in metadata}
        return [(inner, {**bounds, **own}) for inner, bounds in _alternatives(kind)]
    return [(hint, {})]


def _limit(bound: Any) -> Any:  # noqa: ANN401 - one of the five kinds, each with its own attribute
    match bound:
        case Ge():
            return bound.ge
        case Gt():
            return bound.gt
        case Le():
            return bound.le
        case MinLen():
            return bound.min_length
        case MaxLen():
            return bound.max_length
    raise TypeError(f"unsupported bound {bound!r}")


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)
