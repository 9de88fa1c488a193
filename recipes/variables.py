"""`${name}` in a recipe's texts: variables are replaced once, before validation."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from recipes.document import MAX_DATA_CHARS, Document, kind_of, plain
from recipes.faults import MAX_LINES, Fault, FieldPath, RecipeError, RecipeIssue
from recipes.fields import KEYS, suggestion
from recipes.overrides import typed

NAME = r"^[a-z][a-z0-9_]{0,31}$"
MAX_VARIABLES = 256
SOURCE = "variable"

Value: TypeAlias = str | int | float | bool | None

_VARS = "vars"
_NAMES = "a lower-case letter, then lower-case letters, digits and underscores, at most 32 in all"
_VALUES = "a text, a number, true, false or null"
_ESCAPED = "write $${ for a literal ${"
_SHOWN_CHARS = 40
_SHOWN_NAMES = 20
_TOKEN = re.compile(r"(?P<escape>\$\$\{)|\$\{(?P<name>[^{}\n]*)(?P<end>\}?)")


@dataclass(frozen=True, kw_only=True)
class Expanded:
    """A recipe's data with its variables replaced, and without `vars` and `extends`."""

    data: dict[str, Any]
    issues: tuple[RecipeIssue, ...] = ()
    faults: tuple[Fault, ...] = ()
    """The faults of the variables that were passed with the recipe."""
    uses: Mapping[FieldPath, tuple[str, ...]]
    """The variables of each text that contains any."""
    unresolved: tuple[FieldPath, ...] = ()
    """The texts without a value, because of a fault that is reported elsewhere."""
    given: frozenset[str] = frozenset()
    """The variables that were passed with the recipe."""


def parse_variable(text: str) -> tuple[str, Value]:
    """Parse a `name=value` argument; the value is a YAML 1.2 scalar or a quoted text.

    Raises RecipeError if there is no `=` or the value can't be read.
    """
    name, equals, value = text.partition("=")
    name, value = name.strip(), value.strip()
    if not equals or not name:
        raise RecipeError([Fault(path=(), message=f"{text!r} is not a variable; expected name=value", source=SOURCE)])
    read: Value = typed(value, source=f"{SOURCE} {name}", yaml=('"', "'"))
    return name, read


def escaped(data: Any) -> Any:  # noqa: ANN401 - any part of a recipe
    """`data` with `${` in its texts escaped, so that a recipe can contain them."""
    match data:
        case str():
            return data.replace("${", "$${")
        case dict():
            return {key: escaped(value) for key, value in data.items()}
        case list():
            return [escaped(value) for value in data]
        case _:
            return data


def expand(document: Document, variables: Mapping[str, Any] | None) -> Expanded:
    """The data of `document` with its variables replaced; `variables` take precedence over its `vars`.

    Raises RecipeError if `variables` is not a mapping or the resulting texts are too long.
    """
    if not isinstance(variables, Mapping | None):
        message = f"the variables are {kind_of(variables)}; expected a mapping of names to values"
        raise RecipeError([Fault(path=(), message=message, source=SOURCE)])
    declared, issues = _declared(document)
    given, faults = _given(variables or {})
    expander = _Expander(document, {**declared, **given})
    data = {name: expander.expand(value, (name,)) for name, value in document.data.items() if name not in KEYS}
    used = sorted({name for names in expander.uses.values() for name in names})
    faults += [_unused(name, used[:MAX_VARIABLES]) for name in given if name not in used]
    return Expanded(
        data=data,
        issues=(*issues, *expander.issues),
        faults=tuple(faults),
        uses=expander.uses,
        unresolved=tuple(expander.unresolved),
        given=frozenset(given),
    )


_FAULTY: Any = object()
"""Stands for the value of a variable with a fault."""


def _declared(document: Document) -> tuple[dict[str, Any], list[RecipeIssue]]:
    """The variables under `vars`, and their issues."""
    refused = {issue.path for issue in document.issues}
    if _VARS not in document.data or (_VARS,) in refused:
        return {}, []
    declared = document.data[_VARS]
    if not isinstance(declared, dict) or len(declared) > MAX_VARIABLES:
        what = f"has {len(declared):,} names" if isinstance(declared, dict) else f"is {kind_of(declared)}"
        message = f"{what}; allowed: a mapping of up to {MAX_VARIABLES} names to values, each {_VALUES}"
        return {}, [RecipeIssue(path=(_VARS,), message=message)]
    values: dict[str, Any] = {}
    issues: list[RecipeIssue] = []
    for name, value in declared.items():
        path = (_VARS, name)
        why = _wrong(name, value) or _nested(value)
        values[name] = _FAULTY if why or path in refused else _unescaped(value)
        if why and path not in refused:
            issues.append(RecipeIssue(path=path, message=why, about_key=not re.fullmatch(NAME, name)))
    return values, issues


def _nested(value: object) -> str:
    """The error message for a value under `vars` that contains a variable itself; empty if it does not."""
    if not isinstance(value, str) or all(token["escape"] for token in _TOKEN.finditer(value)):
        return ""
    return f"{_quoted(value)} contains a variable; variables can't be nested; {_ESCAPED}"


def _unescaped(value: Value) -> Value:
    return value.replace("$${", "${") if isinstance(value, str) else value


def _given(variables: Mapping[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    """The variables that were passed with the recipe, and their faults. `${` in their texts is not a variable.

    Raises RecipeError if there are too many.
    """
    if len(variables) > MAX_VARIABLES:
        message = f"there are {len(variables):,} variables; allowed: at most {MAX_VARIABLES}"
        raise RecipeError([Fault(path=(), message=message, source=SOURCE)])
    values: dict[str, Any] = {}
    faults = []
    for name, value in variables.items():
        copied, wrong = plain(value)
        why = wrong[0].message if wrong else _wrong(name, copied)
        if why:
            faults.append(Fault(path=(), message=why, source=f"{SOURCE} {str(name)[:80]}"))
        if isinstance(name, str):
            values[name] = _FAULTY if why else copied
    return values, faults


def _wrong(name: object, value: object) -> str:
    """The error message for an invalid variable; empty if it is valid."""
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        return f"{name!a:.80} is not a variable name; allowed: {_NAMES}"
    return f"is {kind_of(value)}; allowed: {_VALUES}" if isinstance(value, dict | list) else ""


def _unused(name: str, used: Sequence[str]) -> Fault:
    """The fault of a variable that was passed but is in no text."""
    known = f"it uses {_listed(used)}" if used else "it uses no variables"
    message = f"the recipe does not use it; {suggestion(name, used) or known}"
    return Fault(path=(), message=message, source=f"{SOURCE} {name[:80]}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name[:80] for name in names[:_SHOWN_NAMES]) + (", ..." if len(names) > _SHOWN_NAMES else "")


def _quoted(text: str) -> str:
    return repr(text) if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]!r}..."


class _Expander:
    """Replaces variables in texts, and enforces the limit on their total length."""

    def __init__(self, document: Document, values: Mapping[str, Any]) -> None:
        self.issues: list[RecipeIssue] = []
        self.uses: dict[FieldPath, tuple[str, ...]] = {}
        self.unresolved: list[FieldPath] = []
        self._document = document
        self._values = values
        self._chars = 0

    def expand(self, value: Any, path: FieldPath) -> Any:  # noqa: ANN401 - any part of a recipe
        match value:
            case str():
                return self._text(value, path)
            case dict():
                return {key: self.expand(inner, (*path, key)) for key, inner in value.items()}
            case list():
                return [self.expand(inner, (*path, index)) for index, inner in enumerate(value)]
            case _:
                return value

    def _text(self, text: str, path: FieldPath) -> Any:  # noqa: ANN401 - a variable may have any scalar value
        if "${" not in text:
            return self._counted(text, path)
        whole = _TOKEN.fullmatch(text)
        alone = whole is not None and not whole["escape"]
        names: dict[str, None] = {}  # a set in order
        values: list[Any] = []
        end = 0
        for token in _TOKEN.finditer(text):
            values.append(self._counted(text[end : token.start()], path))
            value = "${" if token["escape"] else self._value(token, path, names)
            if value is None and not alone:
                value = self._refuse(path, f"'{token['name']}' is null, which can't be part of a longer text")
            values.append(value if alone or value is _FAULTY else self._counted(_as_text(value), path))
            end = token.end()
        if names:
            self.uses[path] = tuple(names)
        if _FAULTY in values:
            self.unresolved.append(path)
            return None
        if alone:
            return self._counted(values[-1], path)
        return "".join([*values, self._counted(text[end:], path)])

    def _value(self, token: re.Match[str], path: FieldPath, names: dict[str, None]) -> Any:  # noqa: ANN401 - see _text
        """The value of a variable; adds its name to the `names` of its text."""
        name = token["name"]
        if not token["end"] or not re.fullmatch(NAME, name):
            what = _quoted(token.group())
            return self._refuse(path, f"{what} is not a variable; allowed: ${{name}}, the name {_NAMES}; {_ESCAPED}")
        reported = name in names or len(self.issues) >= MAX_LINES  # finding a suggestion takes time
        names[name] = None
        if reported or name in self._values:
            return self._values.get(name, _FAULTY)
        known = sorted(self._values)
        remedy = suggestion(name, known) or (f"known: {_listed(known)}" if known else f"this recipe has no {_VARS}")
        return self._refuse(path, f"unknown variable '{name}'; {remedy}; {_ESCAPED}")

    def _refuse(self, path: FieldPath, message: str) -> Any:  # noqa: ANN401 - see _FAULTY
        issue = RecipeIssue(path=path, message=message)
        if len(self.issues) < MAX_LINES and issue not in self.issues:  # more would not be shown
            self.issues.append(issue)
        return _FAULTY

    def _counted(self, value: Any, path: FieldPath) -> Any:  # noqa: ANN401 - see _text
        """`value`, after adding its length, with `${` escaped as in the recipe that is sent to the workers."""
        self._chars += len(value) + value.count("${") if isinstance(value, str) else 0
        if self._chars > MAX_DATA_CHARS:
            message = f"the recipe's texts are too long; expected at most {MAX_DATA_CHARS:,} characters in all"
            raise RecipeError([self._document.fault(RecipeIssue(path=path, message=message))])
        return value


def _as_text(value: Value) -> str:
    return value if isinstance(value, str) else json.dumps(value)
