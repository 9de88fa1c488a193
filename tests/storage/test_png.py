"""Pictures are kept without loss, with their origin, and to the byte the same each time."""

from io import BytesIO

from PIL import Image

from storage.png import encode_png

METADATA = {"run_id": "r1", "step": "4", "recipe": "Küste 海岸"}


def picture() -> Image.Image:
    return Image.effect_mandelbrot((64, 48), (-2, -1.5, 1, 1.5), 50).convert("RGB")


def test_no_pixel_changes_and_the_origin_is_inside() -> None:
    with Image.open(BytesIO(encode_png(picture(), METADATA))) as read:
        assert read.tobytes() == picture().tobytes()
        assert read.format == "PNG"
        assert dict(read.info) == METADATA


def test_the_same_picture_gives_the_same_bytes() -> None:
    assert encode_png(picture(), METADATA) == encode_png(picture(), dict(METADATA))
