"""Text on a picture: in lines that fit, each character in a font that has it."""

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
"""Stands for characters that no font has, however many they are."""
_ZERO_WIDTH_JOINER = "\u200d"
_VARIATION_SELECTORS = re.compile("[\ufe0e\ufe0f]")


class TextLayout:
    """Text of one size."""

    def __init__(self, size_px: int = FONT_PX, files: Sequence[Path] | None = None) -> None:
        """`files`: the fonts for what Pillow's own lacks, by default those that are installed."""
        self._fonts = FontSet(size_px, installed_fonts() if files is None else files)

    def missing(self, text: str) -> str:
        """The characters of `text` that no font has, each once."""
        return "".join(dict.fromkeys(part for part in _clusters(_one_line(text)) if not self._fonts.find(part)))

    def width_px(self, line: str) -> float:
        return sum(face.width_px(run) for face, run in self._runs(line))

    def wrap(self, text: str, width_px: int) -> tuple[str, ...]:
        """`text` in lines that fit, at most MAX_LINES; an ellipsis stands for the rest. Overlong words are broken."""
        lines = list(islice(self._lines(text, width_px), MAX_LINES + 1))
        if len(lines) <= MAX_LINES:
            return tuple(lines)
        last = _clusters(lines[MAX_LINES - 1])
        while self.width_px("".join(last) + "…") > width_px:
            last.pop()
        return (*lines[: MAX_LINES - 1], f"{''.join(last).rstrip()}…")

    def draw(self, sheet: Image.Image, corner: tuple[float, int], line: str, ink: tuple[int, ...]) -> None:
        """Draw one line on an RGB picture, from its left top `corner` on."""
        left, baseline = corner[0], corner[1] + self._fonts.first.ascent_px
        for face, run in self._runs(line):
            face.draw(sheet, (left, baseline), run, ink)
            left += face.width_px(run)

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
        """What may stand at the start of a line: words with the space before them, Chinese characters, broken words."""
        for word in paragraph.split():
            part = " "
            for before, cluster in pairwise((" ", *_clusters(word))):
                if part.strip() and (_may_break(before, cluster) or self.width_px(part.strip() + cluster) > width_px):
                    yield part
                    part = ""
                part += cluster
            yield part

    def _runs(self, line: str) -> list[tuple[Face, str]]:
        """`line` in runs of one font each, from left to right. A word has one font if there is one that has all of it.

        Spaces and right-to-left words stay in the font of what comes before, so that its layout orders them.
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
        """`text` in one line, with a placeholder for what no font has."""
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
    """The characters of `text` that no installed font has, each once: they are shown as MISSING."""
    return text_layout().missing(text)


def _one_line(text: str) -> str:
    return re.sub(r"\s", " ", _VARIATION_SELECTORS.sub("", printable(text)))


def _clusters(text: str) -> list[str]:
    """`text` in what people see as one character: with its accents, or emoji joined to one, or a flag."""
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
    """Whether a line may end between two characters without a space: beside a wide one that is no punctuation."""
    wide = any(unicodedata.east_asian_width(one[0]) in {"W", "F"} for one in (before, after))
    return (
        wide and unicodedata.category(after[0]) not in {"Po", "Pe", "Pf"} and unicodedata.category(before[-1]) != "Ps"
    )


def _directions(text: str) -> list[str]:
    return [unicodedata.bidirectional(one) for one in text]
