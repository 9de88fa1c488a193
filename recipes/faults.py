"""What is wrong with a recipe: every fault with its place, what is wrong and what is allowed."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

FieldPath: TypeAlias = tuple[str | int, ...]
"""Where a value stands in a recipe: ("context", 0, "text")."""

MAX_LINES = 100

# A fault is one line, whatever names the user gave.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True)
class SourcePosition:
    """A place in a text; both count from 1."""

    line: int
    column: int
    source: str = ""
    """The file, where it is another one than the recipe's own."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong."""

    path: FieldPath
    message: str
    source: str = ""
    """A file, "<recipe>" for YAML text, "override", a model's defaults, or nothing for a recipe given as data."""
    mark: SourcePosition | None = None

    def __str__(self) -> str:
        place = f"{self.source}:{self.mark.line}:{self.mark.column}" if self.mark else self.source
        field = path_text(self.path)
        if place == "override" and field:  # as one phrase
            place, field = f"override {field}", ""
        line = ": ".join(part for part in (place, field, self.message) if part)
        return _UNPRINTABLE.sub(lambda found: ascii(found.group())[1:-1], line)

    def to_data(self) -> dict[str, Any]:
        """As JSON data; None for what is not known."""
        message, _, allowed = self.message.partition("; allowed: ")
        return {
            "file": self.source or None,
            "line": self.mark.line if self.mark else None,
            "column": self.mark.column if self.mark else None,
            "field": path_text(self.path) or None,
            "message": message,
            "allowed": allowed or None,
        }


class RecipeError(ValueError):
    """A recipe can't be used. `str()` has one line for each fault, in file order, up to MAX_LINES of them."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        lines = [str(fault) for fault in self.faults[:MAX_LINES]]
        if more := len(self.faults) - len(lines):
            lines.append(f"... and {more:,} more")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[type["RecipeError"], tuple[tuple[Fault, ...]]]:
        return RecipeError, (self.faults,)


@dataclass(frozen=True, kw_only=True)
class RecipeIssue:
    """A fault before it is known where its field was given."""

    path: FieldPath
    message: str
    about_key: bool = False
    """The last part of the path should not be there, or not a second time: the place is that of the key."""
    mark: SourcePosition | None = None
    """The place, when it is known already."""


def path_text(path: FieldPath) -> str:
    """("context", 0, "text") -> "context[0].text"."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
