"""Text on pictures is set in fonts that have its characters, and says what no font has."""

from pathlib import Path

import pytest
from PIL import Image

from storage.fonts import NAMES, installed_fonts
from storage.printable import printable, printable_json
from storage.text_layout import MAX_LINES, MISSING, TextLayout, missing_glyphs
from tests.storage.tiny_font import HAS, write_tiny_font

INK, PAPER = (0, 0, 0), (255, 255, 255)


@pytest.fixture
def layout(tmp_path: Path) -> TextLayout:
    """Pillow's font and the tiny one."""
    return TextLayout(100, [write_tiny_font(tmp_path)])


@pytest.fixture
def latin() -> TextLayout:
    """Pillow's font alone."""
    return TextLayout(100, [])


def drawn(layout: TextLayout, line: str) -> Image.Image:
    sheet = Image.new("RGB", (1000, 140), PAPER)
    layout.draw(sheet, (10, 10), line, INK)
    return sheet


def inked_columns(sheet: Image.Image) -> list[tuple[int, int]]:
    """From where to where there is ink, from left to right."""
    columns = [INK in sheet.crop((x, 0, x + 1, sheet.height)).get_flattened_data() for x in range(sheet.width)]
    edges = [x for x in range(1, sheet.width) if columns[x] != columns[x - 1]]
    return list(zip(edges[::2], edges[1::2], strict=True))


def test_a_character_comes_from_the_first_font_that_has_it(layout: TextLayout, latin: TextLayout) -> None:
    assert layout.missing(f"A {HAS} forest") == ""
    assert latin.missing(f"A {HAS} forest") == HAS
    assert inked_columns(drawn(layout, "\u6797")) == [(10, 110)]
    assert layout.width_px("I\u6797I") == 2 * latin.width_px("I") + 100


def test_what_no_font_has_is_a_placeholder_and_is_told_once(layout: TextLayout, latin: TextLayout) -> None:
    text = "\u4e2d\u6587 A \u4e2d forest"
    assert layout.missing(text) == "\u4e2d\u6587"
    assert layout.wrap(text, 2000) == (f"{MISSING} A {MISSING} forest",)
    assert drawn(layout, "\u4e2d\u6587") == drawn(latin, MISSING)


def test_text_that_the_first_font_has_is_drawn_in_it_alone(layout: TextLayout, latin: TextLayout) -> None:
    assert drawn(layout, "A calm sea, 12 + 3.") == drawn(latin, "A calm sea, 12 + 3.")


def test_a_damaged_font_is_passed_over(tmp_path: Path) -> None:
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    assert TextLayout(20, [broken, write_tiny_font(tmp_path)]).missing("\u6797") == ""


def test_words_of_a_right_to_left_line_run_from_right_to_left(layout: TextLayout) -> None:
    first = inked_columns(drawn(layout, "\u05d0 \u6797"))
    assert [end - start for start, end in first] == [100, 30]


def test_a_line_without_spaces_breaks_between_chinese_characters(layout: TextLayout) -> None:
    assert layout.wrap("\u6797\u68ee\u6797\u68ee\u6797", 250) == ("\u6797\u68ee", "\u6797\u68ee", "\u6797")


def test_a_line_breaks_at_spaces_and_overlong_words_are_broken(latin: TextLayout) -> None:
    assert latin.wrap("sea sea", round(latin.width_px("sea sea")) - 1) == ("sea", "sea")
    assert "".join(latin.wrap("x" * 12, round(latin.width_px("xxx")))) == "x" * 12
    assert latin.wrap("one\n\ntwo", 1000) == ("one", "two")
    assert latin.wrap("", 1000) == ()


def test_a_long_text_is_cut_with_an_ellipsis_that_fits(latin: TextLayout) -> None:
    lines = latin.wrap("sea " * 500, 400)
    assert len(lines) == MAX_LINES
    assert lines[-1].endswith("\u2026")
    assert all(latin.width_px(line) <= 400 for line in lines)


def test_joined_emoji_and_accents_stay_together(layout: TextLayout) -> None:
    accents = "e\u0301" * 4
    assert all(not line.startswith("\u0301") for line in TextLayout(100).wrap(accents, 80))
    joined = "\U0001f389\u200d\U0001f389"
    assert layout.wrap(joined * 2, 210) == (joined, joined)
    assert layout.missing(f"{joined}\ufe0f") == ""


def test_control_characters_are_not_drawn(latin: TextLayout) -> None:
    assert drawn(latin, "a\x07b\u202ec\x9b") == drawn(latin, "abc")
    assert latin.missing("a\x07\u202e\u2066b\tc\u3000") == ""


def test_printable_text_keeps_words_lines_and_direction_marks() -> None:
    kept = "\u05d0\u200f caf\xe9\tx\r\n\u200ey"
    assert printable(kept) == kept
    assert printable("\u202e\u2069a\x00\x1b[31m\x85\x7f") == "a[31m"
    assert printable_json('"\u202e"\n') == '"\\u202e"\n'


def test_installed_fonts_are_those_with_known_names() -> None:
    assert all(any(file.match(name) for name in NAMES) and file.is_file() for file in installed_fonts())
    assert missing_glyphs("A calm sea") == ""
