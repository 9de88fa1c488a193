"""Two runs' pictures stand side by side, each above its words, and what is missing is seen to be missing."""

from PIL import Image

from storage.pair_sheet import ALIKE, APART, EMPTY, Half, Row, pair_sheet
from storage.sheet import PAPER


def plain(colour: str, size: tuple[int, int] = (64, 64)) -> Half:
    return Half(picture=Image.new("RGB", size, colour), caption="step 3: A cat")


def row(one: Half | None, other: Half | None, *, same: bool = False) -> Row:
    return Row(title="Image 1", note="the same" if same else "different", same=same, halves=(one, other))


def colours(sheet: Image.Image) -> set[object]:
    found = sheet.getcolors(maxcolors=2**24)
    assert found is not None
    return {colour for _count, colour in found}


def test_both_pictures_are_there_whole_and_in_their_columns() -> None:
    sheet = pair_sheet(("run-1", "run-2"), [row(plain("blue"), plain("red"))])
    half = sheet.width // 2
    left, right = sheet.crop((0, 0, half, sheet.height)), sheet.crop((half, 0, *sheet.size))
    assert sheet.width == 3 * 20 + 2 * 320
    assert [
        sum(count for count, what in part.getcolors(2**24) or () if what == colour)
        for part, colour in ((left, (0, 0, 255)), (right, (255, 0, 0)))
    ] == [320 * 320, 320 * 320]


def test_what_one_run_lacks_is_an_empty_place() -> None:
    assert EMPTY in colours(pair_sheet(("run-1", "run-2"), [row(None, plain("red"))]))
    assert EMPTY not in colours(pair_sheet(("run-1", "run-2"), [row(plain("red"), plain("red"))]))


def test_how_far_they_are_apart_is_told_in_colour() -> None:
    alike = colours(pair_sheet(("run-1", "run-2"), [row(plain("red"), plain("red"), same=True)]))
    apart = colours(pair_sheet(("run-1", "run-2"), [row(plain("red"), plain("blue"))]))
    assert (ALIKE in alike, APART in alike) == (True, False)
    assert (ALIKE in apart, APART in apart) == (False, True)


def test_rows_and_notes_make_it_longer_and_nothing_wider() -> None:
    one = row(plain("red"), plain("blue", (1024, 512)))
    single, double = (pair_sheet(("run-1", "run-2"), [one] * count) for count in (1, 2))
    noted = pair_sheet(("run-1", "run-2"), [one], note="seed: 5 -> 9")
    long = pair_sheet(("run-1" * 40, "run-2"), [one])
    assert single.width == double.width == noted.width == long.width
    assert min(double.height, noted.height, long.height) > single.height
    assert PAPER in colours(single)
