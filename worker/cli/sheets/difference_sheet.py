"""The images of two runs side by side, for `autoseq diff --out`."""

from collections.abc import Iterator

from PIL import Image

from storage.pair_sheet import SIDE_PX, Half, Row, pair_sheet
from worker.cli.sheets.run_sheet import THOUGHT_TAGS
from worker.cli.views.difference import headings, image_note, step_text, value_text
from worker.history.diff import Difference, Pair, load_image
from worker.history.history import is_on
from worker.history.lineage import Lineage, LineageItem

MAX_ROWS = 60


def difference_sheet(found: Difference) -> Image.Image | None:
    """The images of two runs side by side, from the last common one to the end of the sequence.

    None when no image differs.
    """
    pairs = [pair for pair in found.pairs if pair.is_image]
    first = next((index for index, pair in enumerate(pairs) if not pair.same), None)
    if first is None:
        return None
    common = [index for index, pair in enumerate(pairs[:first]) if pair.one and pair.one.selected]
    shown = [*(pairs[index] for index in common[-1:]), *pairs[first:]]
    rows = [_row(found, pair) for pair in shown[:MAX_ROWS]]
    notes = [f"{change.field}: {value_text(change.one)} -> {value_text(change.other)}" for change in found.changes]
    notes += [f"{len(shown) - MAX_ROWS} more places not shown"] if len(shown) > MAX_ROWS else []
    note = "; ".join(notes)
    return pair_sheet(headings(found), rows, note=note)


def _row(found: Difference, pair: Pair) -> Row:
    title = str(pair.place)
    return Row(
        title=title[:1].upper() + title[1:],
        note=image_note(pair),
        same=pair.same,
        halves=(_half("A", pair.one, found.one), _half("B", pair.other, found.other)),
    )


def _half(name: str, entry: LineageItem | None, lineage: Lineage) -> Half | None:
    if entry is None or entry.text is not None:
        return None
    where = step_text(name, entry, lineage).plain
    dropped = "" if entry.selected else ", dropped"
    words = " · ".join(_words_before(lineage, entry))
    picture = load_image(entry)
    picture.thumbnail((2 * SIDE_PX, 2 * SIDE_PX))  # a sheet has up to MAX_ROWS rows
    return Half(picture=picture, caption=f"{where}{dropped}: {words}" if words else f"{where}{dropped}")


def _words_before(lineage: Lineage, picture: LineageItem) -> Iterator[str]:
    """The texts that a picture follows: the last instruction, and the thinking after it."""
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
    yield from (words for text in (asked, plan) if (words := THOUGHT_TAGS.sub("", text).strip()))
