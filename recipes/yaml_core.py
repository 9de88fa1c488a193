"""YAML text -> plain data with positions: YAML 1.2 core scalars; no aliases, tags, merge keys or duplicate keys."""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from recipes.faults import FieldPath, RecipeIssue, SourcePosition

MAX_DEPTH = 20
MAX_NODES = 10_000
MAX_NUMBER_CHARS = 4000  # more digits are a text; Python reads at most 4,300

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml where PyYAML was built with it
_CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((f"{sign}{word}" for sign in ("", "+") for word in (".inf", ".Inf", ".INF")), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_INTEGERS = ((re.compile(r"[-+]?[0-9]+"), 10), (re.compile(r"0o[0-7]+"), 8), (re.compile(r"0x[0-9a-fA-F]+"), 16))
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class UnreadableError(ValueError):
    """The text can't be read any further."""

    def __init__(self, issue: RecipeIssue) -> None:
        super().__init__(issue.message)
        self.issue = issue


def scalar(text: str) -> Any:  # noqa: ANN401 - whatever the text stands for
    """The value of a plain scalar in the core schema of YAML 1.2 (section 10.3.2): `no` is a text, 0123 is 123."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if len(text) <= MAX_NUMBER_CHARS:
        for pattern, radix in _INTEGERS:
            if pattern.fullmatch(text):
                return int(text if radix == 10 else text[2:], radix)  # noqa: PLR2004 - ten needs no name
        if _FLOAT.fullmatch(text):
            return float(text)
    return text


class YamlReader:
    """Reads one document event by event, so that depth and size are checked before memory is allocated for them.

    `positions` and `key_positions` hold the position of each value and of its key; `issues` holds the errors after
    which reading could continue.
    """

    def __init__(self, text: str) -> None:
        self.positions: dict[FieldPath, SourcePosition] = {}
        self.key_positions: dict[FieldPath, SourcePosition] = {}
        self.issues: list[RecipeIssue] = []
        self._text = text
        self._nodes = 0

    def read(self) -> Any:  # noqa: ANN401 - whatever the text holds
        """The value of the document.

        Raises UnreadableError.
        """
        if found := _UNPRINTABLE.search(self._text):
            message = f"the character {found.group()!a} is not allowed; write it as an escape in double quotes"
            raise UnreadableError(
                RecipeIssue(path=(), message=message, position=position_of(self._text, found.start()))
            )
        try:
            return self._document(yaml.parse(self._text, Loader=_LOADER))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            message = f"not valid YAML: {self._problem(error, mark)}"
            raise UnreadableError(RecipeIssue(path=(), message=message, position=_position(mark))) from None
        except yaml.YAMLError as error:
            raise UnreadableError(RecipeIssue(path=(), message=f"not valid YAML: {error}")) from None

    def _problem(self, error: yaml.MarkedYAMLError, mark: Any) -> str:  # noqa: ANN401 - see _position
        """What to report of a syntax error at `mark`."""
        if self._text[mark.index : mark.index + 1] == "\t":
            return "tab character in the indentation; allowed: spaces only"
        lines = self._text.split("\n")
        near = lines[mark.line] if mark.line < len(lines) else ""
        hint = 'between [ ] or { } write "${name}" in quotes' if "${" in near else ""  # {seed: ${seed}}
        return "; ".join(part for part in (error.problem, error.context, hint) if part)

    def _document(self, events: Iterator[yaml.Event]) -> Any:  # noqa: ANN401 - see read
        next(events)  # the stream begins
        if isinstance(next(events), yaml.StreamEndEvent):
            return None
        value = self._value(next(events), events, ())
        next(events)  # the document ends
        after = next(events)
        if not isinstance(after, yaml.StreamEndEvent):
            message = "a second document starts here; allowed: one document"
            self.issues.append(RecipeIssue(path=(), message=message, position=_position(after.start_mark)))
        return value

    def _value(self, event: yaml.Event, events: Iterator[yaml.Event], path: FieldPath) -> Any:  # noqa: ANN401 - see read
        position = self.positions[path] = _position(event.start_mark)
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise UnreadableError(RecipeIssue(path=path, message=f"more than {MAX_NODES:,} values", position=position))
        if len(path) > MAX_DEPTH:
            raise UnreadableError(
                RecipeIssue(path=(), message=f"nested deeper than {MAX_DEPTH} levels", position=position)
            )
        if isinstance(event, yaml.AliasEvent):
            self._refuse(path, f"the alias *{event.anchor} is not allowed; write the value itself", position)
            return None
        assert isinstance(event, yaml.NodeEvent)  # noqa: S101 - for the type checker: the parser yields nothing else here
        if event.anchor:
            self._refuse(path, f"the anchor &{event.anchor} is not allowed; write the value where it is used", position)
        if event.tag is not None:  # type: ignore[attr-defined]  # every event with a value has one; the stubs lack it
            self._refuse(path, "tags (!...) are not allowed; write the plain value", position)
        if isinstance(event, yaml.ScalarEvent):
            return scalar(event.value) if event.implicit[0] else event.value
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(events, path)
        return self._mapping(events, path)

    def _sequence(self, events: Iterator[yaml.Event], path: FieldPath) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(self._value(event, events, (*path, len(items))))
        return items

    def _mapping(self, events: Iterator[yaml.Event], path: FieldPath) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            position = _position(event.start_mark)
            key = self._value(event, events, (*path, "<key>"))
            if why := _bad_key(key, mapping):
                self._refuse((*path, key if isinstance(key, str) else "<key>"), why, position, about_key=True)
                self._value(next(events), events, (*path, "<refused>"))
                continue
            self.key_positions[*path, key] = position
            mapping[key] = self._value(next(events), events, (*path, key))
        return mapping

    def _refuse(self, path: FieldPath, message: str, position: SourcePosition, *, about_key: bool = False) -> None:
        self.issues.append(RecipeIssue(path=path, message=message, position=position, about_key=about_key))


def position_of(text: str, index: int) -> SourcePosition:
    """Line and column of the character at `index`."""
    before = text[:index]
    return SourcePosition(line=before.count("\n") + 1, column=index - (before.rfind("\n") + 1) + 1)


def _bad_key(key: object, mapping: dict[str, Any]) -> str | None:
    if not isinstance(key, str):
        return "keys must be field names, which are texts"
    if key == "<<":
        return "merge keys (<<) are not allowed; write the fields themselves"
    return f"the field '{key}' is given twice" if key in mapping else None


def _position(mark: Any) -> SourcePosition:  # noqa: ANN401 - yaml.Mark or its equivalent in C, which has no stub
    return SourcePosition(line=mark.line + 1, column=mark.column + 1)
