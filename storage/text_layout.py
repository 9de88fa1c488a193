"""Text on an image: in lines that fit, each character in a font that has it."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice, pairwise
from pathlib import Path

from PIL import Image

from storage.fonts import Face, FontSet, installed_fonts
from storage.printable import printable

LINE_PX = 21
FONT_PX = 15
MAX_LINES = 6
MISSING = "[?]"
"""Replaces any number of consecutive characters that no font has."""
_ZERO_WIDTH_JOINER = "\u200d"
_VARIATION_SELECTORS = re.compile("[\ufe0e\ufe0f]")


class TextLayout:
    """Text of one size."""

    def __init__(self, size_px: int = FONT_PX, files: Sequence[Path] | None = None) -> None:
        """`files`: fonts for the characters that Pillow's own font lacks; the installed ones by default."""
        self._fonts = FontSet(size_px, installed_fonts() if files is None else files)

    def missing(self, text: str) -> str:
        """The characters of `text` that no font has, each once."""
        return "".join(dict.fromkeys(part for part in _clusters(_one_line(text)) if not self._fonts.find(part)))

    def width_px(self, line: str) -> float:
        return sum(face.width_px(run) for face, run in self._runs(line))

    def wrap(self, text: str, width_px: int) -> tuple[str, ...]:
        """`text` in lines that fit, at most MAX_LINES; an ellipsis replaces the rest. Overlong words are broken."""
        lines = list(islice(self._lines(text, width_px), MAX_LINES + 1))
        if len(lines) <= MAX_LINES:
            return tuple(lines)
        last = _clusters(lines[MAX_LINES - 1])
        while self.width_px("".join(last) + "…") > width_px:
            last.pop()
        return (*lines[: MAX_LINES - 1], f"{''.join(last).rstrip()}…")

    def draw(self, sheet: Image.Image, corner: tuple[float, int], line: str, ink: tuple[int, ...]) -> None:
        """Draw one line on an RGB image; `corner` is its top left corner."""
        left, baseline = corner[0], corner[1] + self._fonts.first.ascent_px
        for face, run in self._runs(line):
            face.draw(sheet, (left, baseline), run, ink)
            left += face.width_px(run)

    def draw_lines(
        self, sheet: Image.Image, corner: tuple[int, int], lines: Sequence[str], ink: tuple[int, ...]
    ) -> None:
        """Draw lines below each other on an RGB image; `corner` is their top left corner."""
        for number, line in enumerate(lines):
            self.draw(sheet, (corner[0], corner[1] + number * LINE_PX), line, ink)

    def _lines(self, text: str, width_px: int) -> Iterator[str]:
        for paragraph in printable(text).splitlines():
            line = ""
            for part in self._parts(self._shown(paragraph), width_px):
                if line and self.width_px(f"{line}{part}".strip()) > width_px:
                    yield line.strip()
                    line = ""
                line += part
            if line:
                yield line.strip()

    def _parts(self, paragraph: str, width_px: int) -> Iterator[str]:
        """The parts between possible line breaks: words with the space before them, wide characters, broken words."""
        for word in paragraph.split():
            part = " "
            for before, cluster in pairwise((" ", *_clusters(word))):
                if part.strip() and (_may_break(before, cluster) or self.width_px(part.strip() + cluster) > width_px):
                    yield part
                    part = ""
                part += cluster
            yield part

    def _runs(self, line: str) -> list[tuple[Face, str]]:
        """`line` in runs of one font each, from left to right. A word is in one font if any font has all of it.

        Spaces and right-to-left words stay in the font before them, so that the font's layout orders them.
        """
        runs: list[tuple[Face, str]] = []
        for word in re.findall(r"\s+|\S+", self._shown(line)):
            whole = self._fonts.find(word)
            for part in (word,) if whole else _clusters(word):
                face = whole or self._fonts.find(part) or self._fonts.first
                if runs and (runs[-1][0] is face or (runs[-1][0].has(part) and "L" not in _directions(part))):
                    runs[-1] = (runs[-1][0], runs[-1][1] + part)
                else:
                    runs.append((face, part))
        first = next((one for one in _directions(line) if one in {"L", "R", "AL"}), "L")
        return runs if first == "L" else runs[::-1]

    def _shown(self, text: str) -> str:
        """`text` in one line, with MISSING for characters that no font has."""
        shown: list[str] = []
        for part in _clusters(_one_line(text)):
            if self._fonts.find(part):
                shown.append(part)
            elif shown[-1:] != [MISSING]:
                shown.append(MISSING)
        return "".join(shown)


@cache
def text_layout(size_px: int = FONT_PX) -> TextLayout:
    """The layout in the fonts of this machine."""
    return TextLayout(size_px)


def missing_glyphs(text: str) -> str:
    """The characters of `text` that no installed font has, each once; they are drawn as MISSING."""
    return text_layout().missing(text)


def _one_line(text: str) -> str:
    return re.sub(r"\s", " ", _VARIATION_SELECTORS.sub("", printable(text)))


def _clusters(text: str) -> list[str]:
    """`text` split into visible characters: each with its accents; joined emoji and flags are one."""
    clusters: list[str] = []
    for one in text:
        if clusters and _extends(clusters[-1], one):
            clusters[-1] += one
        else:
            clusters.append(one)
    return clusters


def _extends(cluster: str, character: str) -> bool:
    is_skin_tone = "\U0001f3fb" <= character <= "\U0001f3ff"
    is_flag = all("\U0001f1e6" <= one <= "\U0001f1ff" for one in (*cluster, character)) and len(cluster) == 1
    is_mark = unicodedata.category(character) in {"Mn", "Me", "Mc", "Cf"}
    return is_mark or is_skin_tone or is_flag or cluster.endswith(_ZERO_WIDTH_JOINER)


def _may_break(before: str, after: str) -> bool:
    """Whether a line may break between two characters without a space: next to a wide one that is not punctuation."""
    wide = any(unicodedata.east_asian_width(one[0]) in {"W", "F"} for one in (before, after))
    return (
        wide and unicodedata.category(after[0]) not in {"Po", "Pe", "Pf"} and unicodedata.category(before[-1]) != "Ps"
    )


def _directions(text: str) -> list[str]:
    return [unicodedata.bidirectional(one) for one in text]
