"""The difference between two runs as text: changed recipe fields, and the items that each run generated."""

import json
import re
from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from worker.cli.views.console import clean, cut, one_line, table
from worker.history.diff import Difference, Pair
from worker.history.lineage import Lineage, LineageItem

SHOWN_CHARS = 300
NAMES = ("A", "B")
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")


def difference_view(found: Difference) -> list[RenderableType]:
    """The parts of the view, from top to bottom."""
    parts: list[RenderableType] = [_legend(found), Text(_headline(found), style="bold"), ""]
    if found.changes:
        parts += [_change_table(found), ""]
    if found.first_divergence:
        parts.append(_pair_table(found))
    return parts


def word_difference(one: str, other: str) -> Text:
    """A word diff of two texts: words only in the first as [-words-], only in the second as {+words+}."""
    ours, theirs = _WORDS.findall(one), _WORDS.findall(other)
    shown = Text()
    for what, i, j, k, m in SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes():
        if what == "equal":
            shown.append("".join(ours[i:j]))
            continue
        if i < j:
            shown.append(f"[-{''.join(ours[i:j])}-]", style="red")
        if k < m:
            shown.append(f"{{+{''.join(theirs[k:m])}+}}", style="green")
    return shown


def _legend(found: Difference) -> Text:
    """The ids of runs A and B; everything below uses the short names."""
    lines = []
    for heading, lineage in zip(headings(found), (found.one, found.other), strict=True):
        done, steps = len(lineage.history.commits), len(lineage.history.steps)
        lines.append(Text(heading if lineage.is_done else f"{heading}, not complete: {done} of {steps} steps"))
    return Text("\n").join(lines)


def _headline(found: Difference) -> str:
    if found.same:
        return "A and B are the same, byte for byte."
    if found.first_divergence is None:
        return "A and B generated the same, byte for byte, from different recipes."
    steps = [
        f"step {entry.step} of {_whose(entry, lineage, name)}"
        for name, entry, lineage in _sides(found.first_divergence, found)
        if entry is not None
    ]
    return f"First difference: {found.first_divergence.place} ({', '.join(steps)})."


def _sides(pair: Pair, found: Difference) -> Iterator[tuple[str, LineageItem | None, Lineage]]:
    yield from zip(NAMES, (pair.one, pair.other), (found.one, found.other), strict=True)


def _whose(entry: LineageItem, lineage: Lineage, name: str) -> str:
    """The name of the run whose step generated an item: the run itself or an ancestor."""
    if entry.run_id == lineage.run_id:
        return name
    is_parents = lineage.fork_point is not None and lineage.fork_point.history.run_id == entry.run_id
    return f"{name}'s parent" if is_parents else entry.run_id


def _change_table(found: Difference) -> Table:
    changes = table("recipe", *NAMES)
    for change in found.changes:
        values = [Text(cut(value_text(value), SHOWN_CHARS)) for value in (change.one, change.other)]
        changes.add_row(Text(change.field, style="cyan"), *values)
    return changes


def value_text(value: Any) -> str:  # noqa: ANN401 - any part of a recipe
    """A value of a recipe, on one line."""
    return one_line(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _pair_table(found: Difference) -> Table:
    pairs = table("place", *NAMES, "difference")
    for pair in found.pairs:
        steps = [step_text(*side) for side in _sides(pair, found)]
        pairs.add_row(Text(str(pair.place), style="cyan"), *steps, _outcome(pair))
    return pairs


def step_text(name: str, entry: LineageItem | None, lineage: Lineage) -> Text:
    """The step that generated an item, or why it is missing."""
    if entry is None:
        return Text("none" if lineage.is_done else "not yet", style="dim")
    if entry.run_id == lineage.run_id:
        return Text(f"step {entry.step}")
    return Text(f"step {entry.step} of {_whose(entry, lineage, name)}", style="dim")


def _outcome(pair: Pair) -> Text:
    if pair.same:
        return Text("the same", style="dim")
    one, other = pair.one, pair.other
    if one is None or other is None:
        only = one or other
        words = Text(f"only in {_owner(pair)}", style="yellow")
        return words.append(f": {clean(only.text)}", style="default") if only and only.text is not None else words
    if one.text is not None and other.text is not None:
        return word_difference(clean(one.text), clean(other.text))
    if pair.is_image and one.text is None and other.text is None:
        return Text(image_note(pair), style="yellow")
    return Text("a text and an image", style="yellow")


def image_note(pair: Pair) -> str:
    """A description of how much two images differ."""
    if pair.one is None or pair.other is None:
        return f"only in {_owner(pair)}"
    if pair.same:
        return "the same"
    if pair.distance is None:
        return "of different sizes"
    if pair.distance == 0:
        return "the same image, selected in one run only"
    return f"mean absolute difference {pair.distance:.1f} of 255"


def _owner(pair: Pair) -> str:
    """The only run that has an item at a place."""
    return NAMES[pair.one is None]


def headings(found: Difference) -> tuple[str, str]:
    """The two runs' names and ids, with their fork points."""
    names = {found.one.run_id: "A", found.other.run_id: "B"}
    one, other = (_heading(name, lineage, names) for name, lineage in zip(NAMES, (found.one, found.other), strict=True))
    return one, other


def _heading(name: str, lineage: Lineage, names: Mapping[str, str]) -> str:
    heading = f"{name}  {lineage.run_id}"
    if lineage.history.recipe.parent is None:
        return heading
    parent, _, step = lineage.history.recipe.parent.rpartition("@")
    return f"{heading}, branched off {names.get(parent, parent)} at step {step}"
