"""Overrides of recipe fields from a command line or a call: typed values by dotted path or bare name."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from recipes.document import DataCopier, kind_of, plain, read_text
from recipes.faults import Fault, FieldPath, RecipeError, RecipeIssue
from recipes.fields import KEYS, SETTINGS, field_names, names, unknown
from recipes.yaml_core import MAX_DEPTH, scalar

SOURCE = "override"
MAX_INDEX_DIGITS = 9

_FIELDS = (*field_names(()), *(name for kind in SETTINGS.values() for name in names(kind)))


@dataclass(frozen=True, kw_only=True)
class Overridden:
    """A recipe's data with the overrides applied."""

    data: dict[str, Any]
    paths: tuple[FieldPath, ...]
    """The overridden fields, in the order given."""
    issues: tuple[RecipeIssue, ...]
    added: frozenset[FieldPath]
    """The mappings that the overrides added."""

    def gave(self, path: FieldPath) -> bool:
        """Whether the overrides caused the value at `path`, or its absence."""
        return not self.added.isdisjoint((path, path[:-1])) or self.replaced(path)

    def replaced(self, path: FieldPath) -> bool:
        """Whether the value at `path` comes from an override."""
        return any(path[: len(own)] == own for own in self.paths)


def parse_override(text: str) -> tuple[str, Any]:
    """Parse a `field=value` argument; the value is a YAML 1.2 scalar, a quoted text, a [list] or a {mapping}.

    Raises RecipeError if there is no `=` or the value can't be read.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise RecipeError([Fault(path=(), message=f"{text!r} is not an override; expected field=value", source=SOURCE)])
    return key, typed(value, source=f"{SOURCE} {key}", yaml=("[", "{", '"', "'"))


def typed(text: str, *, source: str, yaml: tuple[str, ...]) -> Any:  # noqa: ANN401 - whatever the text stands for
    """The value of a command line argument: YAML if it starts with one of `yaml`, else a plain YAML 1.2 scalar.

    Raises RecipeError, which names the `source`.
    """
    if not text.lstrip().startswith(yaml):
        return scalar(text.strip())
    document = read_text(f"value: {text}", source=source)
    if document.issues or document.data.keys() != {"value"}:
        faults = [document.fault(issue) for issue in document.issues]
        raise RecipeError(faults or [Fault(path=(), message="is more than one value", source=source)])
    return document.data["value"]


def override(data: Mapping[str, Any], overrides: Mapping[str, Any] | None) -> Overridden:
    """A copy of `data` with `overrides` applied: mappings are merged, other values replaced."""
    if not isinstance(overrides, Mapping | None):
        message = f"the overrides are {kind_of(overrides)}; expected a mapping of fields"
        raise RecipeError([Fault(path=(), message=message, source=SOURCE)])
    merged = copy.deepcopy(dict(data))
    paths: list[FieldPath] = []
    issues: list[RecipeIssue] = []
    added: set[FieldPath] = set()
    copier = DataCopier()
    for key, value in (overrides or {}).items():
        if not isinstance(key, str) or plain(key)[1] or key.count(".") >= MAX_DEPTH:
            issues.append(
                RecipeIssue(path=(), message=f"the key {key!a:.80} is not a field; allowed: names and dotted paths")
            )
            continue
        root = _path(key)
        given = copier.copy(value, root)
        if root[0] in KEYS:
            message = "can't be overridden; to set a variable, use --var name=value"
            issues.append(RecipeIssue(path=root[:1], message=message))
            continue
        if root[0] not in field_names(()):
            issues.append(RecipeIssue(path=root[:1], message=unknown(str(root[0]), _FIELDS), about_key=True))
            continue
        for path, leaf in _leaves(root, given):
            paths.append(path)
            if why := _assign(merged, path, leaf, added):
                issues.append(RecipeIssue(path=path, message=why))
    return Overridden(data=merged, paths=tuple(paths), issues=(*copier.issues, *issues), added=frozenset(added))


def _path(key: str) -> FieldPath:
    """The path for a key: a dotted path from the top, or the bare name of a setting."""
    first, *rest = key.split(".")
    path: FieldPath = (first, *(int(part) if _is_index(part) else part for part in rest))
    group = next((group for group, kind in SETTINGS.items() if first in names(kind)), None)
    return (group, *path) if group and first not in field_names(()) else path


def _is_index(part: str) -> bool:
    """Whether a part of a dotted path is a list index; a longer number than any index is treated as a name."""
    return part.isascii() and part.isdecimal() and len(part) <= MAX_INDEX_DIGITS


def _leaves(path: FieldPath, value: Any) -> Iterator[tuple[FieldPath, Any]]:  # noqa: ANN401 - an override's value
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves((*path, key), item)
    else:
        yield path, value


def _assign(
    data: dict[str, Any],
    path: FieldPath,
    value: Any,  # noqa: ANN401 - an override's value
    added: set[FieldPath],
) -> str | None:
    """Set `value` at `path`, creating mappings as needed and adding them to `added`; returns why that is impossible."""
    place: Any = data
    for depth, part in enumerate(path, 1):
        if isinstance(place, list) and not (isinstance(part, int) and part < len(place)):
            return f"there is no item {part}; the list has {len(place)} items, numbered from 0"
        if isinstance(place, dict) and isinstance(part, int):
            return f"{part} is not a field of a mapping"
        if depth == len(path):
            place[part] = value
            break
        inner = place.get(part) if isinstance(place, dict) else place[part]
        if not isinstance(inner, dict | list):
            inner = place[part] = {}
            added.add(path[:depth])
        place = inner
    return None
