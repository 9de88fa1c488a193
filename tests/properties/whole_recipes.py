"""Recipes built from the types of the language, right by their bounds, for the loader to read back as themselves."""

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from annotated_types import Ge, Gt, Le, MaxLen, MinLen
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from recipes.recipe import ImageItem, Recipe
from recipes.rules import MODEL, NAME, SHA256
from tests.properties.broken_recipes import TINY, loads
from tests.properties.damage import damaged_data

MOST_ITEMS: Final = 4
TEXTS: Final = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
OWN: Final[Mapping[tuple[type, str], st.SearchStrategy[Any]]] = {
    (Recipe, "name"): st.from_regex(NAME, fullmatch=True),
    (Recipe, "model"): st.none() | st.just(TINY.name) | st.from_regex(MODEL, fullmatch=True),
    (ImageItem, "image"): st.sampled_from(["a b/c.png", "s3://bucket/a.png", "data:image/png;base64,AAAA"]) | TEXTS,
    (ImageItem, "sha256"): st.none() | st.from_regex(SHA256, fullmatch=True),
}
"""What a field's type does not say."""


def document(kind: Any) -> st.SearchStrategy[dict[str, Any]]:
    """JSON-like data of a dataclass of the language: every needed field, and any of the others."""
    hints = get_type_hints(kind, include_extras=True)
    needed: dict[str, st.SearchStrategy[Any]] = {}
    free: dict[str, st.SearchStrategy[Any]] = {}
    for field in fields(kind):
        own = (kind, field.name)
        of_field = OWN[own] if own in OWN else _values(hints[field.name], {})
        (needed if field.default is MISSING else free)[field.name] = of_field
    return st.fixed_dictionaries(needed, optional=free)


def _values(hint: Any, bounds: Mapping[type, Any]) -> st.SearchStrategy[Any]:
    """What a type and its bounds allow."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _values(inner[0], {**bounds, **{type(bound): bound for bound in inner[1:]}})
    if origin in (Union, types.UnionType):
        return st.one_of(*(_values(one, bounds) for one in inner))
    if origin is Literal:
        return st.sampled_from(inner)
    if origin is tuple:
        return _lists(inner, bounds[MinLen].min_length if MinLen in bounds else 0)
    if is_dataclass(hint):
        return document(hint)
    return _plain(hint, bounds)


def _lists(elements: tuple[Any, ...], least: int) -> st.SearchStrategy[list[Any]]:
    if elements[-1] is Ellipsis:
        return st.lists(_values(elements[0], {}), min_size=least, max_size=MOST_ITEMS)
    return st.tuples(*(_values(one, {}) for one in elements)).map(list)


def _plain(kind: Any, bounds: Mapping[type, Any]) -> st.SearchStrategy[Any]:
    low = bounds[Ge].ge if Ge in bounds else bounds[Gt].gt if Gt in bounds else None
    high = bounds[Le].le if Le in bounds else None
    if kind is int:
        return st.integers(low, high) | st.integers(1, 4).filter(lambda value: value >= (low or 0))
    if kind is float:
        return st.floats(low, high, exclude_min=Gt in bounds) | st.integers(1, 1)
    if kind is str:
        least, most = (bounds[MinLen].min_length if MinLen in bounds else 0), bounds.get(MaxLen)
        return TEXTS.filter(lambda text: least <= len(text) <= (most.max_length if most else len(text)))
    return {bool: st.booleans(), type(None): st.none()}[kind]


def load_whole_recipes(*, examples: int, number: int) -> tuple[int, int]:
    """How many recipes were made, and how many of them loaded. Raises what the loader should not."""
    made = accepted = 0

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(document(Recipe), st.randoms(use_true_random=False), st.sampled_from(["data", "text", "damaged"]))
    def come_back(data: dict[str, Any], rng: Any, form: str) -> None:
        nonlocal made, accepted
        made += 1
        if form == "damaged":
            accepted += loads(damaged_data(data, rng), spec=TINY)
        elif form == "text":
            accepted += loads(yaml.safe_dump(data, allow_unicode=True), naming="<recipe>:")
        else:
            accepted += loads(data)

    come_back()
    return made, accepted
