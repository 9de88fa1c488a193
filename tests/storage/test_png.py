"""Pictures are kept without loss, with their origin, and to the byte the same each time."""

from io import BytesIO

import pytest
from PIL import Image

from storage.png import CHUNKS, PngProvenance, encode_png, text_chunks

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


@pytest.mark.parametrize("model_sha256", [None, "beef"])
def test_where_an_image_is_from_is_read_back(model_sha256: str | None) -> None:
    provenance = PngProvenance(
        run_id="r1", step=4, variation=1, seed=2**63 - 1, recipe_sha256="cafe", model_sha256=model_sha256
    )
    with Image.open(BytesIO(encode_png(picture(), provenance.to_chunks()))) as read:
        assert PngProvenance.from_chunks(text_chunks(read)) == provenance
    assert (CHUNKS["model_sha256"] in provenance.to_chunks()) == (model_sha256 is not None)


@pytest.mark.parametrize("damage", [{"autosequence:seed": "many"}, {"autosequence:step": ""}])
def test_chunks_that_say_nothing_are_told(damage: dict[str, str]) -> None:
    whole = PngProvenance(run_id="r1", step=4, variation=1, seed=5, recipe_sha256="cafe").to_chunks()
    with pytest.raises(ValueError, match="invalid literal"):
        PngProvenance.from_chunks(whole | damage)
    with pytest.raises(ValueError, match="the text chunk autosequence:run is missing"):
        PngProvenance.from_chunks({name: text for name, text in whole.items() if name != "autosequence:run"})
