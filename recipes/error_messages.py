"""Error messages for wrong types and bounds: pydantic's errors -> what the value is and what is allowed."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from recipes.document import kind_of
from recipes.faults import FieldPath, RecipeIssue
from recipes.fields import KEYS, allowed, field_names, names, unknown
from recipes.recipe import ImageItem, TextItem

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_SHOWN_CHARS = 40
_LIMIT_WORDS = {"greater": "is too small", "less": "is too large"}  # greater_than_equal and so on
_LENGTH_ERRORS = ("string_too_short", "string_too_long", "too_short", "too_long", "missing")


def type_issues(errors: "Iterable[ErrorDetails]", filled: Mapping[str, Any]) -> Iterator[RecipeIssue]:
    """The issues for pydantic's errors in `filled`.

    Context items have two types; of pydantic's errors, only those of the type that the item resembles are kept.
    """
    context = filled.get("context")
    untyped = dict(_untyped_items(context)) if isinstance(context, list) else {}
    for index, message in untyped.items():
        yield RecipeIssue(path=("context", index), message=message)
    for error in errors:
        path: FieldPath = error["loc"]
        if path[:1] == ("context",) and len(path) > 1:
            position, kind = path[1:3]
            if position in untyped or kind != _kind_of_item(filled["context"][position]):
                continue
            path = ("context", position, *path[3:])
        if path[:1] == ("pin",):  # a text or a number: pydantic reports an error for each type
            if ("int" in str(path[1]).split("-")) != (type(filled["pin"]) is int):
                continue
            path = ("pin",)
        if error["type"] == "too_short" and _value_at(filled, path):
            continue  # pydantic counts only the valid items; no list here needs more than one
        yield _type_issue(error["type"], path, filled)


def _untyped_items(context: list[Any]) -> Iterator[tuple[int, str]]:
    """The index and the error message of each item that is neither a text nor an image."""
    forms = "allowed: `text: ...` or `image: ...`"
    for index, item in enumerate(context):
        if not isinstance(item, dict):
            yield index, f"{_shown(item)}; {forms}"
        elif "text" in item and "image" in item:
            yield index, f"is both a text and an image; {forms}, or two items"
        elif "text" not in item and "image" not in item:
            strange = [name for name in item if name != "sha256"]
            yield index, unknown(strange[0], ("text", "image")) if strange else f"is neither text nor image; {forms}"


def _kind_of_item(item: Mapping[str, Any]) -> str:
    return (TextItem if "text" in item else ImageItem).__name__


def _type_issue(kind: str, path: FieldPath, filled: Mapping[str, Any]) -> RecipeIssue:
    """The issue for one of pydantic's errors, by its type."""
    if kind == "unexpected_keyword_argument":
        return RecipeIssue(path=path, message=unknown(str(path[-1]), _siblings(path, filled)), about_key=True)
    if kind == "missing" and isinstance(path[-1], str):
        return RecipeIssue(path=path, message=f"is missing; allowed: {allowed(path)}")
    if kind == "missing":  # an element of a fixed-length list
        path = path[:-1]
    value = _value_at(filled, path)
    return RecipeIssue(path=path, message=f"{_wrong(kind, value)}; allowed: {allowed(path)}")


def _value_at(filled: Mapping[str, Any], path: FieldPath) -> Any:  # noqa: ANN401 - any part of a recipe
    value: Any = filled
    for part in path:
        value = value[part]
    return value


def _siblings(path: FieldPath, filled: Mapping[str, Any]) -> tuple[str, ...]:
    """The fields allowed in the mapping of `path`."""
    if path[0] == "context":
        return names(TextItem if "text" in filled["context"][path[1]] else ImageItem)
    return field_names(path[:-1]) if len(path) > 1 else (*field_names(()), *KEYS)


def _wrong(kind: str, value: object) -> str:
    limit = _LIMIT_WORDS.get(kind.partition("_")[0])
    if limit:
        return f"{value} {limit}"
    if kind == "literal_error" and isinstance(value, str):
        return f"{_quoted(value)} is not an option"
    if kind in _LENGTH_ERRORS and isinstance(value, str):
        return f"has {len(value):,} characters" if value else "is empty"
    if kind in _LENGTH_ERRORS and isinstance(value, list):
        return f"is a list of {len(value)}"
    return _shown(value)


def _shown(value: object) -> str:
    """A value of the wrong type with its type."""
    what = kind_of(value)
    return f"{_quoted(value)} is {what}" if isinstance(value, str | int | float) else f"is {what}"


def _quoted(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."
