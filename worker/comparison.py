"""What people are shown of the difference between two runs: a table of words, and a sheet of pictures."""

import json
import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Any

from PIL import Image
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from storage.pair_sheet import SIDE_PX, Half, Row, pair_sheet
from worker.console import clean
from worker.difference import Change, Difference, Pair, load_picture
from worker.history import is_on
from worker.story import Moment, Story

SHOWN_CHARS = 300
MAX_ROWS = 60
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")
_TAGS = re.compile(r"</?think>")


def comparison(found: Difference) -> RenderableType:
    """The difference of two runs in words, text against text."""
    parts: list[RenderableType] = [Text(_headline(found)), ""]
    if found.changes:
        parts += [_change_table(found), ""]
    if found.parting:
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
    shown = pairs[max(first - 1, 0) :]
    rows = [_row(found, pair) for pair in shown[:MAX_ROWS]]
    notes = [f"{change.field}: {_value(change.one)} -> {_value(change.other)}" for change in found.changes]
    notes += [f"{len(shown) - MAX_ROWS} further places are not shown"] if len(shown) > MAX_ROWS else []
    note = "; ".join(notes)
    return pair_sheet((_heading(found.one), _heading(found.other)), rows, note=note)


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


def _headline(found: Difference) -> str:
    names = f"{found.one.run_id} and {found.other.run_id}"
    if found.same:
        return f"{names} are the same, byte for byte" + _unfinished(found)
    if found.parting is None:
        return f"{names} made the same, byte for byte, from different recipes" + _unfinished(found)
    steps = [
        f"step {moment.step} of {moment.run_id}"
        for moment in (found.parting.one, found.parting.other)
        if moment is not None
    ]
    return f"{names} part at {found.parting.place} ({' and '.join(dict.fromkeys(steps))})" + _unfinished(found)


def _unfinished(found: Difference) -> str:
    waiting = [story.run_id for story in (found.one, found.other) if not story.is_done]
    return f"; {' and '.join(waiting)} is not complete" if waiting else ""


def _change_table(found: Difference) -> Table:
    table = _table("recipe", found.one.run_id, found.other.run_id)
    for change in found.changes:
        table.add_row(Text(change.field, style="cyan"), *_values(change))
    return table


def _values(change: Change) -> Iterator[Text]:
    if isinstance(change.one, str) and isinstance(change.other, str):
        yield from (Text(_cut(clean(value))) for value in (change.one, change.other))
    else:
        yield from (Text(_cut(_value(value))) for value in (change.one, change.other))


def _value(value: Any) -> str:  # noqa: ANN401 - any part of a recipe
    return clean(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else f"{text[: SHOWN_CHARS - 1]}…"


def _pair_table(found: Difference) -> Table:
    table = _table("place", found.one.run_id, found.other.run_id, "difference")
    for pair in found.pairs:
        steps = [_step(moment, story) for moment, story in ((pair.one, found.one), (pair.other, found.other))]
        table.add_row(Text(str(pair.place), style="cyan"), *steps, _outcome(pair, found))
    return table


def _step(moment: Moment | None, story: Story) -> Text:
    if moment is None:
        return Text("none" if story.is_done else "not yet", style="dim")
    return Text(f"step {moment.step}" if moment.run_id == story.run_id else f"{moment.run_id}@{moment.step}")


def _outcome(pair: Pair, found: Difference) -> Text:
    if pair.same:
        return Text("the same", style="dim")
    one, other = pair.one, pair.other
    if one is None or other is None:
        only = one or other
        words = Text(f"only in {_owner(pair, found)}", style="yellow")
        return words.append(f": {clean(only.text)}", style="default") if only and only.text is not None else words
    if one.text is not None and other.text is not None:
        return word_difference(clean(one.text), clean(other.text))
    if pair.is_image and one.text is None and other.text is None:
        return Text(_remark(pair, found), style="yellow")
    return Text("a text against an image", style="yellow")


def _remark(pair: Pair, found: Difference) -> str:
    """How far two pictures are apart, in words."""
    if pair.one is None or pair.other is None:
        return f"only in {_owner(pair, found)}"
    if pair.same:
        return "the same"
    if pair.distance is None:
        return "of different sizes"
    if pair.distance == 0:
        return "the same picture, from which one run alone goes on"
    return f"mean absolute difference {pair.distance:.1f} of 255"


def _owner(pair: Pair, found: Difference) -> str:
    """The run that alone has something at a place."""
    return found.other.run_id if pair.one is None else found.one.run_id


def _heading(story: Story) -> str:
    parent = story.history.recipe.parent
    return f"{story.run_id}, branched off {parent}" if parent else story.run_id


def _row(found: Difference, pair: Pair) -> Row:
    title = str(pair.place)
    return Row(
        title=title[:1].upper() + title[1:],
        remark=_remark(pair, found),
        same=pair.same,
        halves=(_half(found.one, pair.one), _half(found.other, pair.other)),
    )


def _half(story: Story, moment: Moment | None) -> Half | None:
    if moment is None or moment.text is not None:
        return None
    where = f"step {moment.step}" if moment.run_id == story.run_id else f"{moment.run_id}, step {moment.step}"
    dropped = "" if moment.goes_on else ", dropped"
    words = " · ".join(_words_before(story, moment))
    picture = load_picture(moment)
    picture.thumbnail((2 * SIDE_PX, 2 * SIDE_PX))  # rows are many
    return Half(picture=picture, caption=f"{where}{dropped}: {words}" if words else f"{where}{dropped}")


def _words_before(story: Story, picture: Moment) -> Iterator[str]:
    """The words that led to a picture: what was last asked for, and the plan for it."""
    asked, plan = "", ""
    for moment in story.moments[: story.moments.index(picture)]:
        if not is_on(moment.place.path, picture.place.path):
            continue
        if moment.place.role == "thinking":
            plan = moment.text or ""
        elif moment.text is not None:
            asked = moment.text
        elif moment.place.images < picture.place.images:
            plan = ""
    yield from (words for text in (asked, plan) if (words := _TAGS.sub("", text).strip()))


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
