"""A sweep: one recipe run with every combination of the values given for some of its fields."""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

from recipes.faults import Fault, RecipeError
from recipes.overrides import override, parse_override

MAX_RUNS = 256
SOURCE = "sweep"

Values: TypeAlias = dict[str, Any]
"""The values of one run of a sweep, by field."""

_NUMBER = r"-?(?:\d{1,18}(?:\.\d{1,9})?|\.\d{1,9})"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})(?:\.\.({_NUMBER}))?")


def parse_sweep(text: str) -> tuple[str, list[Any]]:
    """Parse a `field=values` argument: `seed=1..4`, `cfg_text_scale=2,4,6`, `cfg_img_scale=1..2..0.25`.

    Values are separated by commas, each as in an override; quote a text with a comma. A range `first..last..step`
    includes `last` if a step ends there; the default step is 1.

    Raises RecipeError.
    """
    field, equals, values = text.partition("=")
    if not equals or not field.strip() or not values.strip():
        raise _wrong(f"{text!r} is not a sweep; expected field=value,value,... or field=first..last..step")
    key, items = parse_override(f"{field}=[{values}]")
    return key, [value for item in items for value in _values(item)]


def combinations(sweeps: Mapping[str, Sequence[Any]]) -> tuple[Values, ...]:
    """Every combination of the values; the last field changes fastest.

    Raises RecipeError if there are no values, duplicates or too many combinations.
    """
    faults = []
    if not sweeps:
        faults.append("no field is given")
    fields = {field: override({}, {field: 0}).paths or (field,) for field in sweeps}
    for one, other in itertools.combinations(sweeps, 2):
        if fields[one] == fields[other]:
            faults.append(f"{one} and {other} are the same field")
    runs = 1
    for field, values in sweeps.items():
        runs *= len(values)
        if not values:
            faults.append(f"{field} has no values")
        texts = [json.dumps(value) for value in values]
        twice = sorted({text for text in texts if texts.count(text) > 1}) if len(texts) <= MAX_RUNS else []
        if twice:
            faults.append(f"{field} has {', '.join(twice)} more than once")
    if runs > MAX_RUNS:
        faults.append(f"{runs:,} runs are too many; allowed: at most {MAX_RUNS}")
    if faults:
        raise RecipeError([Fault(path=(), message=message, source=SOURCE) for message in faults])
    return tuple(dict(zip(sweeps, values, strict=True)) for values in itertools.product(*sweeps.values()))


def values_text(values: Mapping[str, Any]) -> str:
    """The values of a run as text: seed=1, cfg_text_scale=4."""
    return ", ".join(f"{field}={value_text(value)}" for field, value in values.items())


def value_text(value: object) -> str:
    """A value as on a command line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _values(item: object) -> Iterator[Any]:
    """The values of a range, or the value itself."""
    found = _RANGE.fullmatch(item) if isinstance(item, str) else None
    if found is None:
        yield item
        return
    first, last, step = (Decimal(part) if part else Decimal(1) for part in found.groups())
    if step <= 0 or last < first:
        raise _wrong(f"the range {found[0]} must increase, with a step above 0")
    if (last - first) / step >= MAX_RUNS:
        raise _wrong(f"the range {found[0]} has more than {MAX_RUNS} values")
    number = float if "." in found[0].replace("..", " ") else int
    for count in range(int((last - first) / step) + 1):
        yield number(first + count * step)


def _wrong(message: str) -> RecipeError:
    return RecipeError([Fault(path=(), message=message, source=SOURCE)])
