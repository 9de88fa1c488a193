"""A contact sheet shows every picture, whole and sharp, above its words."""

import pytest
from PIL import Image

from storage.sheet import LINE, MARK, PAPER, Tile, contact_sheet, stacked, tiled_sheet
from storage.text_layout import MAX_LINES


def plain(colour: str, size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.new("RGB", size, colour)


def colours(sheet: Image.Image) -> set[object]:
    found = sheet.getcolors(maxcolors=2**24)
    assert found is not None
    return {colour for _count, colour in found}


def test_every_picture_is_there_and_pixels_stay_sharp() -> None:
    checkers = Image.new("RGB", (64, 64))
    checkers.putpixel((0, 0), (255, 0, 0))
    sheet = contact_sheet([plain("blue"), checkers])
    assert colours(sheet) == {PAPER, (0, 0, 255), (0, 0, 0), (255, 0, 0)}
    assert sheet.size == (20 + 2 * (256 + 20), 20 + 256 + 20)


def test_large_pictures_are_made_smaller_in_proportion() -> None:
    sheet = contact_sheet([plain("blue", (1024, 512))], side_px=300)
    assert sheet.size == (340, 190)


def test_captions_stand_beneath() -> None:
    bare, told = contact_sheet([plain("blue")]), contact_sheet([plain("blue")], ["A calm sea."])
    assert told.width == bare.width
    assert told.height > bare.height
    beneath = told.crop((0, bare.height, *told.size))
    assert len(colours(beneath)) > 2


def test_a_long_caption_is_wrapped_and_cut() -> None:
    bare = contact_sheet([plain("blue")]).height
    long = contact_sheet([plain("blue")], ["sea " * 500]).height
    assert long == contact_sheet([plain("blue")], ["x" * 5000]).height == bare + 10 + 21 * MAX_LINES


def test_rows_have_the_columns_asked_for() -> None:
    pictures = [plain("blue")] * 5
    assert contact_sheet(pictures, columns=2).size == (20 + 2 * 276, 20 + 3 * 276)
    assert contact_sheet(pictures).size == (20 + 4 * 276, 20 + 2 * 276)


@pytest.mark.parametrize(("images", "captions"), [(0, 0), (2, 1)])
def test_a_caption_for_each_or_none(images: int, captions: int) -> None:
    with pytest.raises(ValueError, match="a caption for each image"):
        contact_sheet([plain("blue")] * images, ["sea"] * captions)


@pytest.mark.parametrize(("side", "shown"), [(64, 256), (96, 192), (128, 256), (30, 240), (1, 256), (2048, 256)])
def test_small_pictures_are_enlarged_by_whole_factors(side: int, shown: int) -> None:
    assert contact_sheet([plain("blue", (side, side))]).width == shown + 40


def test_rows_and_columns_have_labels() -> None:
    tiles = [Tile(image=plain("blue"), row=row, column=column) for row in range(2) for column in range(3)]
    bare = tiled_sheet(tiles, side_px=64)
    told = tiled_sheet(tiles, side_px=64, title="Seas", row_labels=["calm", "wild"], column_labels=["a", "b", "c"])
    assert bare.size == (20 + 3 * 84, 20 + 2 * 84)
    assert told.size == (bare.width + 170, bare.height + 2 * (21 + 10))
    for box in ((20, 20, 60, 41), (190, 51, 210, 72), (20, 82, 60, 103), (20, 166, 60, 187)):
        assert len(colours(told.crop(box))) > 2, box


def test_an_empty_place_says_why_it_is_empty() -> None:
    sheet = tiled_sheet(
        [Tile(image=plain("blue"), row=0, column=0), Tile(image=None, caption="failed", row=0, column=1)], side_px=64
    )
    assert sheet.size == (20 + 2 * 84, 20 + 84)
    empty = sheet.crop((104, 20, 168, 84))
    assert LINE in colours(empty)
    assert (0, 0, 255) not in colours(empty)
    assert len(colours(empty.crop((8, 8, 60, 32)))) > 2, "the word"


def test_an_empty_place_is_as_high_as_its_words() -> None:
    flat = Tile(image=plain("blue", (64, 8)), row=0, column=0)
    sheet = tiled_sheet([flat, Tile(image=None, caption="one\ntwo\nthree", row=0, column=1)], side_px=64)
    assert sheet.height == 20 + (3 * 21 + 2 * 10) + 20


def test_stacked_sheets_share_the_margin_between_them() -> None:
    wide, narrow = contact_sheet([plain("blue")] * 2), contact_sheet([plain("red")])
    both = stacked([wide, narrow])
    assert both.size == (wide.width, wide.height + narrow.height - 20)
    assert both.crop((0, 0, wide.width, 276)) == wide.crop((0, 0, wide.width, 276))
    assert both.crop((0, 276, narrow.width, both.height)) == narrow


def test_a_sheet_of_nothing_but_empty_places_can_be_made() -> None:
    assert tiled_sheet([Tile(image=None, caption="failed", row=0, column=0)], side_px=64).size == (104, 104)


def test_a_framed_picture_has_a_frame_around_it() -> None:
    sheet = tiled_sheet([Tile(image=plain("blue"), row=0, column=0, framed=True)], side_px=64)
    assert sheet.getpixel((18, 40)) == MARK
    assert sheet.getpixel((20, 40)) == (0, 0, 255)


def test_a_picture_stands_in_the_middle_of_its_rows_with_lines_to_what_came_of_it() -> None:
    children = [Tile(image=plain("red"), row=row, column=1, parent=0) for row in range(3)]
    sheet = tiled_sheet([Tile(image=plain("blue"), row=0, column=0, rows=3), *children], side_px=64)
    assert sheet.getpixel((21, 20 + 84 + 1)) == (0, 0, 255)
    assert sheet.getpixel((21, 20 + 1)) == PAPER
    assert LINE in {sheet.getpixel((94, y)) for y in range(60, 80)}
