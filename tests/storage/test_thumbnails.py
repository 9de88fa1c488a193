"""Thumbnails are small, the same for the same image, and together within what a page may hold."""

import io
import random

import pytest
from PIL import Image

from storage.thumbnails import LARGEST_BYTES, SIDE_PX, TOTAL_BYTES, bounded, data_uri, thumbnail


def noise(width: int, height: int, *, seed: int = 1) -> Image.Image:
    """What compresses worst."""
    return Image.frombytes("RGB", (width, height), random.Random(seed).randbytes(width * height * 3))


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize(
    ("size", "shown"),
    [((1024, 512), (256, 128)), ((64, 64), (64, 64)), ((1, 3000), (1, 256)), ((256, 257), (255, 256))],
)
def test_a_thumbnail_is_at_most_256_pixels_and_never_enlarged(size: tuple[int, int], shown: tuple[int, int]) -> None:
    assert opened(thumbnail(Image.new("RGB", size, "teal"))).size == shown


def test_the_same_pixels_give_the_same_bytes() -> None:
    image, stored = noise(300, 200), io.BytesIO()
    image.save(stored, "PNG")
    assert thumbnail(image) == thumbnail(opened(stored.getvalue()))
    assert thumbnail(image) != thumbnail(noise(300, 200, seed=2))


def test_transparency_is_kept() -> None:
    assert opened(thumbnail(Image.new("RGBA", (10, 10), (0, 0, 0, 0)))).convert("RGBA").getpixel((5, 5))[3] == 0  # type: ignore[index]


def test_a_limit_is_kept_by_smaller_sides() -> None:
    whole, small = thumbnail(noise(512, 512)), thumbnail(noise(512, 512), limit_bytes=3000)
    assert len(whole) <= LARGEST_BYTES
    assert len(small) <= 3000
    assert max(opened(small).size) < SIDE_PX
    assert thumbnail(noise(512, 512), limit_bytes=10) == b""


def test_few_thumbnails_stay_as_they_are_and_many_are_made_smaller() -> None:
    data = thumbnail(noise(512, 512))
    few, copies = {str(n): data for n in range(5)}, 200
    assert bounded(few, len(few)) == few
    many = bounded(few, copies)
    assert many.keys() == few.keys()
    assert all(0 < len(one) <= TOTAL_BYTES // copies for one in many.values())
    assert bounded(few, TOTAL_BYTES) == {}


def test_a_data_uri_holds_the_thumbnail() -> None:
    assert data_uri(b"abc") == "data:image/webp;base64,YWJj"
