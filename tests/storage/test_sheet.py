"""A contact sheet shows every picture, whole and sharp, above its words."""

import pytest
from PIL import Image

from storage.sheet import MAX_LINES, PAPER, contact_sheet


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
