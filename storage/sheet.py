"""Many pictures on one: a run's images in a grid, with their texts beneath."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont

MARGIN_PX = 20
LINE_PX = 21
FONT_PX = 15
MAX_LINES = 6
SMALLEST_PX = 192
PIXEL_ART_PX = 128
"""Pictures up to this size are enlarged by whole pixels, others smoothly."""
PAPER, INK = (250, 249, 246), (40, 38, 34)

Font: TypeAlias = ImageFont.ImageFont | ImageFont.FreeTypeFont


@dataclass(frozen=True, kw_only=True)
class _Cell:
    picture: Image.Image
    lines: tuple[str, ...]

    @property
    def height_px(self) -> int:
        return self.picture.height + (10 + LINE_PX * len(self.lines) if self.lines else 0)


def contact_sheet(
    images: Sequence[Image.Image], captions: Sequence[str] = (), *, columns: int | None = None, side_px: int = 256
) -> Image.Image:
    """All `images`, in order, on one RGB picture, each above its caption.

    Args:
        images: at least one.
        captions: what stands beneath each; wrapped, and cut after a few lines. None at all, or one for each image.
        columns: pictures in a row; up to four by default.
        side_px: the longer side of a picture, at least SMALLEST_PX; pixel pictures come as near as whole factors allow.
    """
    if not images or len(captions) not in (0, len(images)):
        raise ValueError(f"{len(images)} images and {len(captions)} captions: a caption for each image, or none")
    font = ImageFont.load_default(size=FONT_PX)
    pictures = [fitted(image.convert("RGB"), side_px) for image in images]
    width_px = max(picture.width for picture in pictures)
    texts = captions or [""] * len(images)
    cells = [
        _Cell(picture=picture, lines=wrapped(text, font, width_px))
        for picture, text in zip(pictures, texts, strict=True)
    ]
    across = min(columns or 4, len(cells))
    rows = [cells[start : start + across] for start in range(0, len(cells), across)]
    heights = [max(cell.height_px for cell in row) for row in rows]
    size = (MARGIN_PX + across * (width_px + MARGIN_PX), MARGIN_PX + sum(height + MARGIN_PX for height in heights))
    sheet = Image.new("RGB", size, PAPER)
    top = MARGIN_PX
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            _place(sheet, cell, (MARGIN_PX + column * (width_px + MARGIN_PX), top), font)
        top += height + MARGIN_PX
    return sheet


def _place(sheet: Image.Image, cell: _Cell, corner: tuple[int, int], font: Font) -> None:
    left, top = corner
    sheet.paste(cell.picture, corner)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(cell.lines):
        draw.text((left, top + cell.picture.height + 10 + number * LINE_PX), line, fill=INK, font=font)


def fitted(image: Image.Image, side_px: int) -> Image.Image:
    """`image` in the size it is shown at."""
    longest = max(image.size)
    if longest <= PIXEL_ART_PX:
        factor = max(side_px // longest, -(-SMALLEST_PX // longest))
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    scale = max(side_px, SMALLEST_PX) / longest
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def wrapped(text: str, font: Font, width_px: int) -> tuple[str, ...]:
    """`text` in lines that fit, at most MAX_LINES; an ellipsis stands for the rest. Overlong words are broken."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        for part in _broken(word, font, width_px):
            longer = f"{line} {part}".strip()
            if font.getlength(longer) > width_px:
                lines.append(line)
                line = part
            else:
                line = longer
    lines += [line] if line else []
    if len(lines) <= MAX_LINES:
        return tuple(lines)
    last = lines[MAX_LINES - 1]
    while font.getlength(f"{last}…") > width_px:
        last = last[:-1]
    return (*lines[: MAX_LINES - 1], f"{last.rstrip()}…")


def _broken(word: str, font: Font, width_px: int) -> list[str]:
    parts = [""]
    for character in word:
        if parts[-1] and font.getlength(parts[-1] + character) > width_px:
            parts.append("")
        parts[-1] += character
    return parts
