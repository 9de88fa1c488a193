"""The images of two runs side by side: a row for each place of the sequence, a column for each run."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from storage.sheet import INK, MARGIN_PX, PAPER, fitted
from storage.text_layout import LINE_PX, text_layout

HEADING_PX, TITLE_PX, CAPTION_PX = 15, 15, 14
GAP_PX = 8
SIDE_PX = 320
SOFT, LINE, EMPTY = (120, 114, 104), (222, 218, 208), (240, 238, 232)
ALIKE, APART = (70, 122, 82), (176, 68, 42)


@dataclass(frozen=True, kw_only=True)
class Half:
    """The image of one run at a place."""

    picture: Image.Image
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A place of the sequence in both runs."""

    title: str
    note: str
    """How much the images differ."""
    same: bool
    halves: tuple[Half | None, Half | None]
    """None where a run has no image."""


def pair_sheet(
    headings: tuple[str, str], rows: Sequence[Row], *, note: str = "", side_px: int = SIDE_PX
) -> Image.Image:
    """The `rows` below each other in one RGB image.

    Args:
        headings: texts above the columns, such as the runs' ids.
        rows: at least one, each with an image.
        note: text at the top, such as how the recipes differ; wrapped, and truncated after a few lines.
        side_px: the longer side of an image; small images are enlarged by a whole factor.
    """
    drawn = [_Drawn(row, side_px) for row in rows]
    width_px = max([side_px, *(row.width_px for row in drawn)])
    return _Page(width_px).draw(headings, drawn, note)


class _Drawn:
    """A row with its images in the size in which they are drawn."""

    def __init__(self, row: Row, side_px: int) -> None:
        self.row = row
        self.pictures = [fitted(half.picture.convert("RGB"), side_px) if half else None for half in row.halves]
        shown = [picture for picture in self.pictures if picture]
        self.width_px = max(picture.width for picture in shown)
        self.height_px = max(picture.height for picture in shown)


class _Page:
    """Draws the sheet from the top down."""

    def __init__(self, width_px: int) -> None:
        self.width_px = width_px
        self.heading, self.title, self.caption = (text_layout(size) for size in (HEADING_PX, TITLE_PX, CAPTION_PX))

    def draw(self, headings: tuple[str, str], rows: Sequence[_Drawn], note: str) -> Image.Image:
        whole_px = 2 * self.width_px + MARGIN_PX
        notes = self.caption.wrap(note, whole_px)
        heads = [self.heading.wrap(text, self.width_px) for text in headings]
        captions = [self._captions(drawn.row) for drawn in rows]
        top = MARGIN_PX + LINE_PX * len(notes) + GAP_PX * bool(notes)
        heads_px = LINE_PX * max(map(len, heads)) + GAP_PX
        heights = [self._height_px(drawn, lines) for drawn, lines in zip(rows, captions, strict=True)]
        sheet = Image.new("RGB", (whole_px + 2 * MARGIN_PX, top + heads_px + sum(heights) + MARGIN_PX), PAPER)
        self.caption.draw_lines(sheet, (MARGIN_PX, MARGIN_PX), notes, SOFT)
        for column, lines in enumerate(heads):
            self.heading.draw_lines(sheet, (self._left(column), top), lines, INK)
        top += heads_px
        for drawn, caption, height in zip(rows, captions, heights, strict=True):
            self._row(sheet, top, drawn, caption)
            top += height
        return sheet

    def _left(self, column: int) -> int:
        return MARGIN_PX + column * (self.width_px + MARGIN_PX)

    def _captions(self, row: Row) -> list[tuple[str, ...]]:
        return [self.caption.wrap(half.caption, self.width_px) if half else () for half in row.halves]

    def _height_px(self, drawn: _Drawn, captions: Sequence[Sequence[str]]) -> int:
        lines_px = LINE_PX * max(map(len, captions))
        return GAP_PX + LINE_PX + GAP_PX + drawn.height_px + GAP_PX + lines_px + MARGIN_PX

    def _row(self, sheet: Image.Image, top: int, drawn: _Drawn, captions: Sequence[Sequence[str]]) -> None:
        pen = ImageDraw.Draw(sheet)
        right = self._left(1) + self.width_px
        pen.line((MARGIN_PX, top, right, top), fill=LINE)
        top += GAP_PX
        self.title.draw(sheet, (MARGIN_PX, top), drawn.row.title, INK)
        note, ink = drawn.row.note, ALIKE if drawn.row.same else APART
        self.title.draw(sheet, (right - self.title.width_px(note), top), note, ink)
        top += LINE_PX + GAP_PX
        for column, (picture, lines) in enumerate(zip(drawn.pictures, captions, strict=True)):
            corner = (self._left(column), top)
            if picture is None:
                pen.rectangle((*corner, corner[0] + drawn.width_px, top + drawn.height_px), fill=EMPTY, outline=LINE)
                left = corner[0] + (drawn.width_px - self.caption.width_px("none")) / 2
                self.caption.draw(sheet, (left, top + (drawn.height_px - LINE_PX) // 2), "none", SOFT)
            else:
                sheet.paste(picture, corner)
            self.caption.draw_lines(sheet, (corner[0], top + drawn.height_px + GAP_PX), lines, SOFT)
