"""The fonts of labels on images: Pillow's own, then installed ones for the characters that it lacks."""

import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import cast

from PIL import Image, ImageDraw, ImageFont

FOLDERS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/.local/share/fonts",
    "~/.fonts",
    "/System/Library/Fonts",
    "/Library/Fonts",
    "~/Library/Fonts",
    "C:/Windows/Fonts",
)
NAMES = (
    *("DejaVuSans.ttf", "NotoSans-Regular.*", "NotoSansCJK-Regular.*", "NotoSansCJK*-Regular.*", "NotoSans*-Regular.*"),
    *("NotoColorEmoji.ttf", "NotoEmoji*.ttf", "Symbola*.*", "wqy-*.tt?", "DroidSansFallback*.ttf"),
    *("Arial Unicode.ttf", "Hiragino Sans GB.ttc", "AppleSDGothicNeo.ttc", "Apple Color Emoji.ttc"),
    *("segoeui.ttf", "msyh.ttc", "YuGothM.ttc", "malgun.ttf", "seguisym.ttf", "seguiemj.ttf"),
)
"""Font files in order of preference: Linux, macOS, Windows."""
BITMAP_SIZES_PX = (109, 160)
"""The only sizes of the colour bitmap fonts of Noto and Apple; they are scaled down when drawn."""
_NONCHARACTER = "\uffff"


class Face:
    """A font at one size."""

    def __init__(self, font: ImageFont.FreeTypeFont, *, scale: float = 1.0) -> None:
        self._font = font
        self._scale = scale
        self._known: dict[str, bool] = {}
        self._missing = self._glyph(_NONCHARACTER)
        self.ascent_px = round(font.getmetrics()[0] * scale)

    def has(self, text: str) -> bool:
        """Whether there is a glyph for each character of `text`; format characters such as joiners need none."""
        return all(self._has(one) or unicodedata.category(one) == "Cf" for one in text)

    def width_px(self, text: str) -> float:
        return self._font.getlength(self._drawn(text)) * self._scale

    def draw(self, sheet: Image.Image, start: tuple[float, int], text: str, ink: tuple[int, ...]) -> None:
        """Draw `text` on an RGB image; `start` is the left end of its baseline."""
        drawn = self._drawn(text)
        if self._scale == 1.0:
            pen = ImageDraw.Draw(sheet)
            pen.text(start, drawn, fill=ink, font=self._font, anchor="ls", embedded_color=True)
            return
        left, top, right, bottom = self._font.getbbox(drawn, anchor="ls")
        large = Image.new("RGBA", (round(right - left), round(bottom - top)))
        ImageDraw.Draw(large).text((-left, -top), drawn, font=self._font, anchor="ls", embedded_color=True)
        small = large.resize([max(1, round(side * self._scale)) for side in large.size], Image.Resampling.BOX)
        sheet.paste(small, (round(start[0] + left * self._scale), round(start[1] + top * self._scale)), small)

    def _has(self, character: str) -> bool:
        if character not in self._known:
            glyph = self._glyph(character)
            is_drawn = any(glyph[1]) or character.isspace()
            is_digit_of_emoji = self._scale != 1.0 and character.isascii()  # only for keycap emoji
            self._known[character] = glyph != self._missing and is_drawn and not is_digit_of_emoji
        return self._known[character]

    def _glyph(self, character: str) -> tuple[tuple[int, int], bytes, float]:
        """The drawing of a character; all characters without a glyph have the same. Pillow has no character map."""
        mask = self._font.getmask(character)
        return mask.size, bytes(mask), self._font.getlength(character)

    def _drawn(self, text: str) -> str:
        """`text` without the format characters that would be drawn as a missing glyph."""
        return "".join(one for one in text if unicodedata.category(one) != "Cf" or self._glyph(one) != self._missing)


class FontSet:
    """Pillow's font and those in `files`, at one size. A file is opened if the fonts before it lack a character."""

    def __init__(self, size_px: int, files: Sequence[Path]) -> None:
        self.first = Face(cast("ImageFont.FreeTypeFont", ImageFont.load_default(size_px)))
        self._size_px = size_px
        self._files = files

    def find(self, text: str) -> Face | None:
        """The first font that has all of `text`."""
        return next((face for face in self._faces() if face.has(text)), None)

    def _faces(self) -> Iterator[Face]:
        yield self.first
        for file in self._files:
            if face := _open(file, self._size_px):
                yield face


@cache
def installed_fonts() -> tuple[Path, ...]:
    """The font files of this machine that match NAMES, in its order."""
    files = [file for folder in FOLDERS for file in sorted(Path(folder).expanduser().rglob("*.[tToO][tT][fFcC]"))]
    return tuple(dict.fromkeys(file for name in NAMES for file in files if file.match(name)))


@cache
def _open(file: Path, size_px: int) -> Face | None:
    for size in (size_px, *BITMAP_SIZES_PX):
        try:
            return Face(ImageFont.truetype(file, size), scale=size_px / size)
        except OSError:  # damaged, or has only bitmaps of another size
            continue
    return None
