"""What is wrong with a recipe: each fault with its position, its field, the problem and the allowed values."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

FieldPath: TypeAlias = tuple[str | int, ...]
"""The path of a value in a recipe: ("context", 0, "text")."""

MAX_LINES = 100

_ALLOWED = "; allowed: "

# A fault is one line, whatever characters the user's names contain.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True)
class SourcePosition:
    """A position in a text; line and column start at 1."""

    line: int
    column: int
    source: str = ""
    """The file, if it is not the recipe's own file."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One error in a recipe."""

    path: FieldPath
    message: str
    """What is wrong; "; allowed: " separates it from the allowed values."""
    source: str = ""
    """A file, "<recipe>" for YAML text, "override", a model's defaults; empty for a recipe given as data."""
    position: SourcePosition | None = None

    def __str__(self) -> str:
        place = f"{self.source}:{self.position.line}:{self.position.column}" if self.position else self.source
        field = path_text(self.path)
        if place == "override" and field:  # as one phrase
            place, field = f"override {field}", ""
        line = ": ".join(part for part in (place, field, self.message) if part)
        return _UNPRINTABLE.sub(lambda found: ascii(found.group())[1:-1], line)

    def to_data(self) -> dict[str, Any]:
        """JSON data of the fault; None for unknown parts."""
        message, _, allowed = self.message.partition(_ALLOWED)
        return {
            "file": self.source or None,
            "line": self.position.line if self.position else None,
            "column": self.position.column if self.position else None,
            "field": path_text(self.path) or None,
            "message": message,
            "allowed": allowed or None,
        }

    def with_note(self, note: str) -> "Fault":
        """This fault with `note` in parentheses after the problem, before the allowed values."""
        message, separator, allowed = self.message.partition(_ALLOWED)
        return replace(self, message=f"{message} ({note}){separator}{allowed}")


class RecipeError(ValueError):
    """A recipe is invalid. `str()` has one line per fault, in file order, at most MAX_LINES of them."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        lines = [str(fault) for fault in self.faults[:MAX_LINES]]
        if more := len(self.faults) - len(lines):
            lines.append(f"... and {more:,} more")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[type["RecipeError"], tuple[tuple[Fault, ...]]]:
        return RecipeError, (self.faults,)

    def to_data(self) -> list[dict[str, Any]]:
        """JSON data of all faults."""
        return [fault.to_data() for fault in self.faults]


@dataclass(frozen=True, kw_only=True)
class RecipeIssue:
    """A fault whose source is not resolved yet."""

    path: FieldPath
    message: str
    about_key: bool = False
    """The last key of the path is unknown or duplicated: the fault's position is that of the key."""
    position: SourcePosition | None = None
    """The position, if already known."""


def path_text(path: FieldPath) -> str:
    """("context", 0, "text") -> "context[0].text"."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
