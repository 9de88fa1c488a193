"""A recipe as given: plain data, the position of each value, and the issues found while reading."""

import math
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recipes.faults import Fault, FieldPath, RecipeError, RecipeIssue, SourcePosition, path_text
from recipes.yaml_core import MAX_DEPTH, MAX_NODES, UnreadableError, YamlReader, position_of

MAX_FILE_BYTES = 256 * 1024
MAX_DATA_CHARS = 1024 * 1024
"""Maximum number of characters of all texts of a recipe given as data."""

_MAX_INTEGER_BITS = 256
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True)
class Document:
    """The top-level mapping of a recipe."""

    source: str
    data: dict[str, Any]
    issues: tuple[RecipeIssue, ...] = ()
    positions: Mapping[FieldPath, SourcePosition] = field(default_factory=dict)
    key_positions: Mapping[FieldPath, SourcePosition] = field(default_factory=dict)
    folder: Path | None = None
    """The folder that image paths are relative to; None if the recipe did not come from a file."""
    images_from: Path | None = None
    """The folder of the extended recipe that gives the context, if the recipe itself does not."""
    size_bytes: int = 0
    """Size of the text that was read."""

    def fault(self, issue: RecipeIssue) -> Fault:
        """`issue` with its position in this document: that of the value, or of the mapping in which it is missing."""
        path = issue.path
        position = issue.position or (self.key_positions.get(path) if issue.about_key else None)
        while position is None and path:
            position = self.positions.get(path)
            path = path[:-1]
        position = position or self.positions.get(())
        shown = issue.path[:-1] if issue.about_key else issue.path
        source = (position and position.source) or self.source
        return Fault(path=shown, message=issue.message, source=source, position=position)


def read_file(path: Path) -> Document:
    """The document in a file.

    Raises RecipeError, which names the file.
    """
    expected = "a recipe file (YAML)"
    try:
        mode = path.stat().st_mode
        content = _head(path) if stat.S_ISREG(mode) else None
    except FileNotFoundError:
        raise _unusable(str(path), "no such file", expected) from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        why = getattr(error, "strerror", None) or str(error)
        raise _unusable(str(path), f"can't be read: {why}", expected) from None
    if content is None:
        raise _unusable(str(path), "is a folder" if stat.S_ISDIR(mode) else "is not a regular file", expected)
    if len(content) > MAX_FILE_BYTES:
        raise _unusable(str(path), f"is larger than {MAX_FILE_BYTES // 1024} KiB", "a smaller file")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8").removeprefix("\ufeff")
        position = position_of(before, len(before))
        raise RecipeError([Fault(path=(), message="is not UTF-8 text", source=str(path), position=position)]) from None
    return read_text(text, source=str(path), folder=path.parent)


def _head(path: Path) -> bytes:
    """The first bytes of a file, at most one more than a recipe may have."""
    with path.open("rb") as file:
        return file.read(MAX_FILE_BYTES + 1)


def read_text(text: str, *, source: str = "<recipe>", folder: Path | None = None) -> Document:
    """The document in a YAML text.

    Raises RecipeError if it can't be read at all.
    """
    reader = YamlReader(text.removeprefix("\ufeff"))
    try:
        value = _top(text, reader)
    except UnreadableError as error:
        issues = sorted((*reader.issues, error.issue), key=lambda one: _place(one.position))
        empty = Document(source=source, data={}, positions=reader.positions)
        raise RecipeError(empty.fault(issue) for issue in issues) from None
    data, issues = plain(value)
    return Document(
        source=source,
        data=data,
        issues=(*reader.issues, *issues),
        positions=reader.positions,
        key_positions=reader.key_positions,
        folder=folder,
        size_bytes=len(text.encode("utf-8", "replace")),
    )


def _top(text: str, reader: YamlReader) -> dict[str, Any]:
    """The top-level mapping.

    Raises UnreadableError if there is none.
    """
    start = SourcePosition(line=1, column=1)
    if len(text) > MAX_FILE_BYTES:
        raise UnreadableError(
            RecipeIssue(path=(), message=f"is larger than {MAX_FILE_BYTES // 1024} KiB", position=start)
        )
    value = reader.read()
    if isinstance(value, dict):
        return value
    what = "is empty" if value is None else f"is {kind_of(value)}"
    message = f"the recipe {what}; expected a mapping of fields, such as `name: my-recipe`"
    raise UnreadableError(RecipeIssue(path=(), message=message, position=reader.positions.get((), start)))


def read_data(value: object) -> Document:
    """The document in JSON-like data.

    Raises RecipeError if it is not a mapping or too large.
    """
    if not isinstance(value, Mapping):
        raise _unusable("", f"the recipe is {kind_of(value)}", "a mapping of fields")
    data, issues = plain(value)
    return Document(source="", data=data, issues=tuple(issues))


def plain(value: object, path: FieldPath = ()) -> tuple[Any, list[RecipeIssue]]:
    """A copy of JSON-like data, and an issue for each value that JSON can't represent (None in the copy).

    Raises RecipeError if the data is nested too deep or too large.
    """
    copier = DataCopier()
    return copier.copy(value, path), copier.issues


def kind_of(value: object) -> str:
    """The type of a value as error messages name it."""
    kinds: tuple[tuple[Any, str], ...] = (
        (type(None), "null"),
        (bool, "a boolean"),
        (int, "a whole number"),
        (float, "a decimal number"),
        (str, "a text"),
        (Mapping, "a mapping"),
        ((list, tuple), "a list"),
    )
    return next((word for kind, word in kinds if isinstance(value, kind)), f"of type {type(value).__name__}")


class DataCopier:
    """Copies data as `plain` does, and enforces the limits on all that it copies."""

    def __init__(self) -> None:
        self.issues: list[RecipeIssue] = []
        self.values = 0
        self.chars = 0

    def copy(self, value: object, path: FieldPath) -> Any:  # noqa: ANN401 - as JSON-like as what it is given
        self.values += 1
        if len(path) > MAX_DEPTH:
            raise _unusable("", f"{path_text(path[:1])} is nested too deep", f"at most {MAX_DEPTH} levels")
        if self.values > MAX_NODES:
            raise _unusable("", "the recipe has too many values", f"at most {MAX_NODES:,}")
        match value:
            case None | bool():
                return value
            case Mapping():
                return self._mapping(value, path)
            case list() | tuple():
                return [self.copy(item, (*path, index)) for index, item in enumerate(value)]
            case _:
                return self._scalar(value, path)

    def _scalar(self, value: object, path: FieldPath) -> Any:  # noqa: ANN401 - see copy
        match value:
            case str():
                return self._text(value, path)
            case int():
                return self._checked(value, path, bad=value.bit_length() > _MAX_INTEGER_BITS, why="is too large")
            case float():
                return self._checked(value, path, bad=not math.isfinite(value), why=f"{value} is not a finite number")
            case _:
                return self._checked(value, path, bad=True, why=f"is {kind_of(value)}, which recipes do not support")

    def _checked(self, value: object, path: FieldPath, *, bad: bool, why: str) -> Any:  # noqa: ANN401 - see copy
        if not bad:
            return value
        self.issues.append(RecipeIssue(path=path, message=why))
        return None

    def _text(self, value: str, path: FieldPath) -> str | None:
        self.chars += len(value)
        if self.chars > MAX_DATA_CHARS:
            raise _unusable("", "the recipe's texts are too long", f"at most {MAX_DATA_CHARS:,} characters in all")
        found = _UNSTORABLE.search(value)
        why = f"contains the character {found.group()!a}, which is not allowed" if found else ""
        copied: str | None = self._checked(value, path, bad=found is not None, why=why)
        return copied

    def _mapping(self, value: Mapping[Any, Any], path: FieldPath) -> dict[str, Any]:
        copied: dict[str, Any] = {}
        for key, item in value.items():
            if isinstance(key, str) and not _UNSTORABLE.search(key):
                copied[key] = self.copy(item, (*path, key))
            else:
                message = f"the key {key!a} is not a field name; keys must be texts"
                self.issues.append(RecipeIssue(path=(*path, "<key>"), message=message, about_key=True))
        return copied


def in_order(
    issues: Iterable[RecipeIssue], data: Mapping[str, Any], position: Callable[[RecipeIssue], SourcePosition | None]
) -> list[RecipeIssue]:
    """`issues` by their position in the text, or else by the order of their fields in `data`."""
    return sorted(issues, key=lambda issue: (*_place(position(issue)), _position(issue.path, data)))


def _place(position: SourcePosition | None) -> tuple[str, int, int]:
    return (position.source, position.line, position.column) if position else ("", 0, 0)


def _position(path: FieldPath, data: Any) -> tuple[int, ...]:  # noqa: ANN401 - any part of a recipe
    position = []
    for part in path:
        if isinstance(data, dict) and part in data:
            position.append(list(data).index(str(part)))
            data = data[part]
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            position.append(part)
            data = data[part]
        else:
            break
    return tuple(position)


def _unusable(source: str, what: str, allowed: str) -> RecipeError:
    return RecipeError([Fault(path=(), message=f"{what}; expected {allowed}", source=source)])
