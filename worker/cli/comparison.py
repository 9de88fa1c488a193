"""What people are shown of the difference between two runs: a table of words, and a sheet of pictures."""

import json
import re
from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from typing import Any

from PIL import Image
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from storage.pair_sheet import SIDE_PX, Half, Row, pair_sheet
from worker.cli.console import clean
from worker.history.diff import Difference, Pair, load_picture
from worker.history.history import is_on
from worker.history.lineage import Lineage, LineageItem

SHOWN_CHARS = 300
MAX_ROWS = 60
NAMES = ("A", "B")
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")
_TAGS = re.compile(r"</?think>")


def comparison(found: Difference) -> RenderableType:
    """The difference of two runs in words, text against text."""
    parts: list[RenderableType] = [_legend(found), Text(_headline(found), style="bold"), ""]
    if found.changes:
        parts += [_change_table(found), ""]
    if found.first_divergence:
        parts.append(_pair_table(found))
    return Group(*parts)


def difference_sheet(found: Difference) -> Image.Image | None:
    """The pictures of two runs side by side, from the last that is common to where the sequence ends.

    None when no picture differs.
    """
    pairs = [pair for pair in found.pairs if pair.is_image]
    first = next((index for index, pair in enumerate(pairs) if not pair.same), None)
    if first is None:
        return None
    common = [index for index, pair in enumerate(pairs[:first]) if pair.one and pair.one.selected]
    shown = [*(pairs[index] for index in common[-1:]), *pairs[first:]]
    rows = [_row(found, pair) for pair in shown[:MAX_ROWS]]
    notes = [f"{change.field}: {_value(change.one)} -> {_value(change.other)}" for change in found.changes]
    notes += [f"{len(shown) - MAX_ROWS} further places are not shown"] if len(shown) > MAX_ROWS else []
    note = "; ".join(notes)
    return pair_sheet(_headings(found), rows, note=note)


def word_difference(one: str, other: str) -> Text:
    """Two texts as one: words of the first alone as [-words-], of the second alone as {+words+}."""
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
    """Which run is called A and which B: ids are long."""
    lines = []
    for heading, lineage in zip(_headings(found), (found.one, found.other), strict=True):
        done, steps = len(lineage.history.commits), len(lineage.history.steps)
        lines.append(Text(heading if lineage.is_done else f"{heading}, not complete: {done} of {steps} steps"))
    return Text("\n").join(lines)


def _headline(found: Difference) -> str:
    if found.same:
        return "A and B are the same, byte for byte."
    if found.first_divergence is None:
        return "A and B made the same, byte for byte, from different recipes."
    steps = [
        f"step {entry.step} of {_whose(entry, lineage, name)}"
        for name, entry, lineage in _sides(found.first_divergence, found)
        if entry is not None
    ]
    return f"They part at {found.first_divergence.place}: {', '.join(steps)}."


def _sides(pair: Pair, found: Difference) -> Iterator[tuple[str, LineageItem | None, Lineage]]:
    yield from zip(NAMES, (pair.one, pair.other), (found.one, found.other), strict=True)


def _whose(entry: LineageItem, lineage: Lineage, name: str) -> str:
    """Whose step made something: that of the run itself, or of one that it branched off."""
    if entry.run_id == lineage.run_id:
        return name
    is_parents = lineage.fork_point is not None and lineage.fork_point.history.run_id == entry.run_id
    return f"{name}'s parent" if is_parents else entry.run_id


def _change_table(found: Difference) -> Table:
    table = _table("recipe", *NAMES)
    for change in found.changes:
        table.add_row(Text(change.field, style="cyan"), _cut(change.one), _cut(change.other))
    return table


def _value(value: Any) -> str:  # noqa: ANN401 - any part of a recipe
    """A value of a recipe, on one line."""
    return " ".join(clean(value).split()) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cut(value: Any) -> Text:  # noqa: ANN401 - any part of a recipe
    text = _value(value)
    return Text(text if len(text) <= SHOWN_CHARS else f"{text[: SHOWN_CHARS - 1]}…")


def _pair_table(found: Difference) -> Table:
    table = _table("place", *NAMES, "difference")
    for pair in found.pairs:
        steps = [_step(*side) for side in _sides(pair, found)]
        table.add_row(Text(str(pair.place), style="cyan"), *steps, _outcome(pair))
    return table


def _step(name: str, entry: LineageItem | None, lineage: Lineage) -> Text:
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
        return Text(_remark(pair), style="yellow")
    return Text("a text against an image", style="yellow")


def _remark(pair: Pair) -> str:
    """How far two pictures are apart, in words."""
    if pair.one is None or pair.other is None:
        return f"only in {_owner(pair)}"
    if pair.same:
        return "the same"
    if pair.distance is None:
        return "of different sizes"
    if pair.distance == 0:
        return "the same picture, from which one run alone goes on"
    return f"mean absolute difference {pair.distance:.1f} of 255"


def _owner(pair: Pair) -> str:
    """The run that alone has something at a place."""
    return NAMES[pair.one is None]


def _headings(found: Difference) -> tuple[str, str]:
    """What the two runs are called, and where they branched off."""
    names = {found.one.run_id: "A", found.other.run_id: "B"}
    one, other = (_heading(name, lineage, names) for name, lineage in zip(NAMES, (found.one, found.other), strict=True))
    return one, other


def _heading(name: str, lineage: Lineage, names: Mapping[str, str]) -> str:
    heading = f"{name}  {lineage.run_id}"
    if lineage.history.recipe.parent is None:
        return heading
    parent, _, step = lineage.history.recipe.parent.rpartition("@")
    return f"{heading}, branched off {names.get(parent, parent)} at step {step}"


def _row(found: Difference, pair: Pair) -> Row:
    title = str(pair.place)
    return Row(
        title=title[:1].upper() + title[1:],
        note=_remark(pair),
        same=pair.same,
        halves=(_half("A", pair.one, found.one), _half("B", pair.other, found.other)),
    )


def _half(name: str, entry: LineageItem | None, lineage: Lineage) -> Half | None:
    if entry is None or entry.text is not None:
        return None
    where = _step(name, entry, lineage).plain
    dropped = "" if entry.selected else ", dropped"
    words = " · ".join(_words_before(lineage, entry))
    picture = load_picture(entry)
    picture.thumbnail((2 * SIDE_PX, 2 * SIDE_PX))  # rows are many
    return Half(picture=picture, caption=f"{where}{dropped}: {words}" if words else f"{where}{dropped}")


def _words_before(lineage: Lineage, picture: LineageItem) -> Iterator[str]:
    """The words that led to a picture: what was last asked for, and the plan for it."""
    asked, plan = "", ""
    for entry in lineage.items[: lineage.items.index(picture)]:
        if not is_on(entry.place.path, picture.place.path):
            continue
        if entry.place.role == "thinking":
            plan = entry.text or ""
        elif entry.text is not None:
            asked = entry.text
        elif entry.place.images < picture.place.images:
            plan = ""
    yield from (words for text in (asked, plan) if (words := _TAGS.sub("", text).strip()))


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
