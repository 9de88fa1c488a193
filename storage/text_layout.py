"""Words on a picture: one font, and lines that fit."""

from typing import TypeAlias

from PIL import ImageFont

LINE_PX = 21
FONT_PX = 15
MAX_LINES = 6

Font: TypeAlias = ImageFont.ImageFont | ImageFont.FreeTypeFont


def font() -> Font:
    """What everything is set in."""
    return ImageFont.load_default(size=FONT_PX)


def wrapped(text: str, font: Font, width_px: int) -> tuple[str, ...]:
    """`text` in lines that fit, at most MAX_LINES; an ellipsis stands for the rest. Overlong words are broken."""
    lines = [line for paragraph in text.splitlines() for line in _lines(paragraph, font, width_px)]
    if len(lines) <= MAX_LINES:
        return tuple(lines)
    last = lines[MAX_LINES - 1]
    while font.getlength(f"{last}…") > width_px:
        last = last[:-1]
    return (*lines[: MAX_LINES - 1], f"{last.rstrip()}…")


def _lines(paragraph: str, font: Font, width_px: int) -> list[str]:
    lines: list[str] = []
    line = ""
    for word in paragraph.split():
        for part in _broken(word, font, width_px):
            longer = f"{line} {part}".strip()
            if font.getlength(longer) > width_px:
                lines.append(line)
                line = part
            else:
                line = longer
    return [*lines, line] if line else lines


def _broken(word: str, font: Font, width_px: int) -> list[str]:
    parts = [""]
    for character in word:
        if parts[-1] and font.getlength(parts[-1] + character) > width_px:
            parts.append("")
        parts[-1] += character
    return parts
