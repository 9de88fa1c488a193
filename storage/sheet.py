"""Many images in one: in a grid, in labelled rows and columns, or as a tree, with captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from PIL import Image, ImageDraw

from storage.text_layout import LINE_PX, text_layout

MARGIN_PX = 20
CAPTION_GAP_PX = 10
LABEL_PX = 150
"""The width of a row's label."""
SMALLEST_PX = 192
PIXEL_ART_PX = 128
"""Images up to this size are enlarged by a whole factor, to keep their pixels sharp."""
FRAME_PX = 4
PAPER, INK, SOFT, LINE, MARK = (250, 249, 246), (40, 38, 34), (120, 115, 106), (200, 196, 187), (180, 84, 10)


@dataclass(frozen=True, kw_only=True)
class Tile:
    """An image on a sheet, or an empty place."""

    image: Image.Image | None
    caption: str = ""
    """Text below the image, or inside an empty place; wrapped, and truncated after a few lines."""
    row: int
    column: int
    rows: int = 1
    """The number of rows that it spans; it is centred in them."""
    framed: bool = False
    parent: int | None = None
    """The index of the tile from which a line leads to this one."""


def contact_sheet(
    images: Sequence[Image.Image], captions: Sequence[str] = (), *, columns: int | None = None, side_px: int = 256
) -> Image.Image:
    """All `images`, in order, in one RGB image, each above its caption.

    Args:
        images: at least one.
        captions: texts below the images, one for each or none at all; wrapped, and truncated after a few lines.
        columns: images in a row; up to four by default.
        side_px: the longer side of an image, at least SMALLEST_PX; small images are enlarged by a whole factor.
    """
    if not images or len(captions) not in (0, len(images)):
        raise ValueError(f"{len(images)} images and {len(captions)} captions: a caption for each image, or none")
    across = min(columns or 4, len(images))
    tiles = [
        Tile(image=image, caption=caption, row=number // across, column=number % across)
        for number, (image, caption) in enumerate(zip(images, captions or [""] * len(images), strict=True))
    ]
    return tiled_sheet(tiles, side_px=max(side_px, SMALLEST_PX))


def tiled_sheet(
    tiles: Sequence[Tile],
    *,
    side_px: int,
    title: str = "",
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
) -> Image.Image:
    """`tiles` in their rows and columns in one RGB image.

    Args:
        tiles: at least one; those with a parent are to the right of it.
        side_px: the longer side of an image; small images are enlarged by a whole factor.
        title: text at the top.
        row_labels: texts to the left of the rows, from the first on.
        column_labels: texts above the columns, from the first on.
    """
    return _Sheet(tiles, side_px, title, row_labels, column_labels).paint()


class _Sheet:
    """The layout of a sheet, in pixels."""

    def __init__(
        self, tiles: Sequence[Tile], side_px: int, title: str, row_labels: Sequence[str], column_labels: Sequence[str]
    ) -> None:
        self.tiles = tiles
        self.text = text_layout()
        self.pictures = [fitted(tile.image.convert("RGB"), side_px) if tile.image else None for tile in tiles]
        shown = [picture.size for picture in self.pictures if picture] or [(side_px, side_px)]
        self.empty = max(width for width, _ in shown), max(height for _, height in shown)
        self.width_px = self.empty[0]
        self.captions = [
            self.text.wrap(tile.caption, self.width_px if tile.image else self.width_px - 2 * CAPTION_GAP_PX)
            for tile in tiles
        ]
        self.row_labels = [self.text.wrap(label, LABEL_PX) for label in row_labels]
        self.column_labels = [self.text.wrap(label, self.width_px) for label in column_labels]
        columns = 1 + max(tile.column for tile in tiles)
        self.left_px = MARGIN_PX + (LABEL_PX + MARGIN_PX if any(self.row_labels) else 0)
        self.total_width_px = self.left_px + columns * (self.width_px + MARGIN_PX)
        self.title = self.text.wrap(title, self.total_width_px - 2 * MARGIN_PX)

    @cached_property
    def head_px(self) -> int:
        """The height above the first row."""
        blocks = [len(self.title), max(map(len, self.column_labels), default=0)]
        return MARGIN_PX + sum(lines * LINE_PX + CAPTION_GAP_PX for lines in blocks if lines)

    @cached_property
    def tops(self) -> list[int]:
        """The top of each row, and the bottom of the last."""
        heights = [0] * max(tile.row + tile.rows for tile in self.tiles)
        for row, label in enumerate(self.row_labels[: len(heights)]):
            heights[row] = len(label) * LINE_PX
        for number, tile in sorted(enumerate(self.tiles), key=lambda one: one[1].rows):
            last = tile.row + tile.rows - 1
            above = sum(heights[tile.row : last]) + MARGIN_PX * (tile.rows - 1)
            heights[last] = max(heights[last], self.height_px(number) - above)
        tops = [self.head_px]
        for height in heights:
            tops.append(tops[-1] + height + MARGIN_PX)
        return tops

    def height_px(self, number: int) -> int:
        """The height of a tile with its caption."""
        picture, lines = self.pictures[number], len(self.captions[number])
        if picture is None:
            return max(self.empty[1], LINE_PX * lines + 2 * CAPTION_GAP_PX)
        return picture.height + (CAPTION_GAP_PX + LINE_PX * lines if lines else 0)

    def corner(self, number: int) -> tuple[int, int]:
        """The top left corner of a tile."""
        tile = self.tiles[number]
        top, bottom = self.tops[tile.row], self.tops[tile.row + tile.rows] - MARGIN_PX
        slack = (bottom - top - self.height_px(number)) // 2 if tile.rows > 1 else 0
        return self.left_px + tile.column * (self.width_px + MARGIN_PX), top + slack

    def size(self, number: int) -> tuple[int, int]:
        """The size of a tile's image."""
        picture = self.pictures[number]
        return picture.size if picture else (self.empty[0], self.height_px(number))

    def paint(self) -> Image.Image:
        sheet = Image.new("RGB", (self.total_width_px, self.tops[-1]), PAPER)
        draw = ImageDraw.Draw(sheet)
        self.text.draw_lines(sheet, (MARGIN_PX, MARGIN_PX), self.title, INK)
        labels_px = max(map(len, self.column_labels), default=0) * LINE_PX
        for column, label in enumerate(self.column_labels):
            left = self.left_px + column * (self.width_px + MARGIN_PX)
            self.text.draw_lines(sheet, (left, self.head_px - CAPTION_GAP_PX - labels_px), label, SOFT)
        for top, label in zip(self.tops, self.row_labels, strict=False):
            self.text.draw_lines(sheet, (MARGIN_PX, top), label, SOFT)
        for number, tile in enumerate(self.tiles):
            if tile.parent is not None:
                self._join(draw, tile.parent, number)
        for number in range(len(self.tiles)):
            self._place(sheet, draw, number)
        return sheet

    def _place(self, sheet: Image.Image, draw: ImageDraw.ImageDraw, number: int) -> None:
        left, top = self.corner(number)
        picture, (width, height) = self.pictures[number], self.size(number)
        if picture is None:
            draw.rectangle((left, top, left + width - 1, top + height - 1), outline=LINE, width=2)
            corner = (left + CAPTION_GAP_PX, top + CAPTION_GAP_PX)
            self.text.draw_lines(sheet, corner, self.captions[number], SOFT)
            return
        if self.tiles[number].framed:
            around = (left - FRAME_PX, top - FRAME_PX, left + width + FRAME_PX - 1, top + height + FRAME_PX - 1)
            draw.rectangle(around, outline=MARK, width=FRAME_PX)
        sheet.paste(picture, (left, top))
        self.text.draw_lines(sheet, (left, top + height + CAPTION_GAP_PX), self.captions[number], INK)

    def _join(self, draw: ImageDraw.ImageDraw, parent: int, child: int) -> None:
        """Draw a line from the middle of the parent's right side to the middle of the child's left side."""
        (from_left, from_top), (to_left, to_top) = self.corner(parent), self.corner(child)
        width, height = self.size(parent)
        start = (from_left + width, from_top + height // 2)
        end = (to_left, to_top + self.size(child)[1] // 2)
        turn = to_left - MARGIN_PX // 2
        draw.line((start, (turn, start[1]), (turn, end[1]), end), fill=LINE, width=2)


def stacked(sheets: Sequence[Image.Image]) -> Image.Image:
    """Sheets below each other in one image."""
    shared_px = MARGIN_PX * (len(sheets) - 1)
    size = max(one.width for one in sheets), sum(one.height for one in sheets) - shared_px
    whole, top = Image.new("RGB", size, PAPER), 0
    for sheet in sheets:
        whole.paste(sheet, (0, top))
        top += sheet.height - MARGIN_PX
    return whole


def fitted(image: Image.Image, side_px: int) -> Image.Image:
    """`image` in the size in which it is drawn."""
    longest = max(image.size)
    if longest <= PIXEL_ART_PX:
        factor = max(side_px // longest, -(-min(SMALLEST_PX, side_px) // longest))
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    scale = side_px / longest
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)
