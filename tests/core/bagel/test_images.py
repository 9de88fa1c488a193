"""Pictures become pixels, patches and latents, and come back."""

import pytest
import torch
from PIL import Image

from core.bagel.autoencoder import patchify, shrink, to_uint8, unpatchify
from core.bagel.images import opaque, resized, to_image, to_pixels
from core.bagel.vision import grid_positions, to_patches
from recipes.model_spec import ResizeRule


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(mode: str) -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    if mode == "P":
        paletted = Image.new("P", (2, 1))
        paletted.putpalette([0, 0, 0, 255, 0, 0])
        paletted.putpixel((1, 0), 1)
        paletted.info["transparency"] = 1
        image = paletted
    else:
        image = image.convert(mode)
    flat = opaque(image)
    assert flat.mode == "RGB"
    assert [flat.getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 0), (255, 255, 255)]


def test_an_image_without_transparency_keeps_its_colours() -> None:
    assert opaque(Image.new("L", (1, 1), 77)).getpixel((0, 0)) == (77, 77, 77)


def test_an_image_is_resized_by_the_rule() -> None:
    assert resized(Image.new("RGB", (300, 100)), ResizeRule(max_px=96, min_px=32, stride_px=16)).size == (96, 32)


def test_pixels_come_back_as_they_were() -> None:
    image = Image.effect_noise((8, 6), 90).convert("RGB")
    pixels = to_pixels(image)
    assert pixels.shape == (3, 6, 8)
    assert to_pixels(Image.new("RGB", (1, 1), (0, 255, 255))).flatten().tolist() == [-1.0, 1.0, 1.0]
    # Fractions are cut off, so a rounding error may cost a level; half a level more brings each back.
    assert to_image(to_uint8(pixels + 1 / 255)).tobytes() == image.tobytes()


def test_bytes_are_cut_off_and_clamped() -> None:
    pixels = torch.tensor([-2.0, -1 + 1.99 * 2 / 255, 3.0])[:, None, None]
    assert to_uint8(pixels).flatten().tolist() == [0, 1, 255]


def test_a_patch_is_row_then_column_then_channel() -> None:
    latents = torch.arange(2 * 2 * 4).view(2, 2, 4)
    assert patchify(latents, 2).tolist() == [[0, 8, 1, 9, 4, 12, 5, 13], [2, 10, 3, 11, 6, 14, 7, 15]]
    assert torch.equal(to_patches(torch.arange(3 * 2 * 4).view(3, 2, 4), 2)[0, :3], torch.tensor([0, 8, 16]))


def test_patches_come_back_as_the_latents_they_were() -> None:
    latents = torch.randn(3, 4, 10, generator=torch.Generator().manual_seed(0))
    assert torch.equal(unpatchify(patchify(latents, 2), 2, rows=2), latents)


def test_grid_positions_count_along_the_rows_of_the_table() -> None:
    assert grid_positions(2, 3, side=10).tolist() == [0, 1, 2, 10, 11, 12]


def test_shrinking_averages_squares() -> None:
    latents = torch.tensor([[[1.0, 3.0, 7.0], [5.0, 7.0, 9.0]]])
    assert shrink(latents, 1) is latents
    assert shrink(latents, 2).tolist() == [[[4.0, 8.0]]]
