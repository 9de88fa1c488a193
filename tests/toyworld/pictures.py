"""Pictures of scenes, and the scene that a picture shows: read from its pixels alone, without any model.

Axes: D drawings that a thing may look like (shape, size, shift), K colours, N pixels of the cell of one place.
"""

import functools
import math
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tests.toyworld.scenes import BACKGROUNDS, COLOURS, PLACES, SHAPES, SIZES, THING_COLOURS, Scene, Thing

SIDE_PX: Final = 64
CELL_PX: Final = 22
CENTRES_PX: Final = (11, 32, 53)
RADII_PX: Final = {"small": 6.0, "large": 10.0}
SHIFTS_PX: Final = ((0, 0), (-1, -1), (1, -1), (-1, 1), (1, 1))
"""How far things of the training's pictures were off the centre of their place."""
SCALE: Final = 4
"""Drawn so much larger, then made smaller, so that edges are smooth."""
EMPTY: Final = 0.004
"""The mean squared difference to the background below which there is nothing in a cell."""
LIKENESS: Final = 0.6
"""A thing is seen where it leaves less than this share of the cell's difference to the background unexplained."""

Array: TypeAlias = NDArray[np.floating[Any]]


def picture(scene: Scene) -> Image.Image:
    """`scene` as the pictures of the training showed it."""
    image = Image.new("RGB", (SIDE_PX, SIDE_PX), COLOURS[scene.background])
    for thing in scene.in_order:
        x, y = _corner(thing.place)
        image.paste(COLOURS[thing.colour], (x, y), mask(thing.shape, thing.size))
    return image


def mask(shape: str, size: str, shift_px: tuple[int, int] = (0, 0)) -> Image.Image:
    """How much of each pixel of a cell a thing covers, 0 to 255."""
    image = Image.new("L", (CELL_PX * SCALE,) * 2)
    draw, r = ImageDraw.Draw(image), RADII_PX[size] * SCALE
    x, y = ((CELL_PX / 2 + shift + 0.5) * SCALE for shift in shift_px)
    match shape:
        case "circle":
            draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
        case "ring":
            draw.ellipse((x - r, y - r, x + r, y + r), outline=255, width=round(0.45 * r))
        case "square":
            draw.rectangle((x - 0.86 * r, y - 0.86 * r, x + 0.86 * r, y + 0.86 * r), fill=255)
        case "triangle":
            draw.polygon((x, y - 0.95 * r, x - 0.9 * r, y + 0.85 * r, x + 0.9 * r, y + 0.85 * r), fill=255)
        case "cross":
            draw.rectangle((x - 0.32 * r, y - r, x + 0.32 * r, y + r), fill=255)
            draw.rectangle((x - r, y - 0.32 * r, x + r, y + 0.32 * r), fill=255)
        case _:
            points = [(k * math.pi / 5, (1.1 * r, 0.48 * r)[k % 2]) for k in range(10)]
            draw.polygon([(x + d * math.sin(angle), y - d * math.cos(angle)) for angle, d in points], fill=255)
    return image.resize((CELL_PX, CELL_PX), Image.Resampling.BOX)


def see(image: Image.Image) -> Scene:
    """The scene that explains the pixels of `image` best, cell by cell, by least squares."""
    pixels = np.asarray(image.convert("RGB"), np.float32) / 255
    background = _background(pixels)
    plain = _rgb(background)
    things = set()
    for place in PLACES:
        x, y = _corner(place)
        cell = pixels[y : y + CELL_PX, x : x + CELL_PX].reshape(-1, 3) - plain
        if (cell**2).sum() > EMPTY * len(cell) and (thing := _thing(cell, place, background)):
            things.add(thing)
    return Scene(background=background, things=frozenset(things))


def _thing(cell: Array, place: str, background: str) -> Thing | None:
    """What a cell (N, 3), as differences to the background, shows: the least of |cell - coverage * colour|^2."""
    colours = [colour for colour in THING_COLOURS if colour != background]
    drawings, coverage = _drawings()
    towards = np.stack([_rgb(colour) for colour in colours]) - _rgb(background)  # (K, 3)
    fit = (coverage @ cell) @ towards.T  # (D, K)
    weight = (coverage**2).sum(1)[:, None] * (towards**2).sum(1)[None]
    left = (cell**2).sum() - 2 * fit + weight
    drawing, colour = np.unravel_index(left.argmin(), left.shape)
    if left.min() > LIKENESS * (cell**2).sum():
        return None
    shape, size = drawings[drawing]
    return Thing(shape=shape, colour=colours[colour], size=size, place=place)


def _background(pixels: Array) -> str:
    """The colour that most pixels are nearest to."""
    palette = np.stack([_rgb(colour) for colour in COLOURS])
    nearest = ((pixels[:, :, None] - palette) ** 2).sum(-1).argmin(-1)
    counts = np.bincount(nearest.ravel(), minlength=len(palette))
    return max(BACKGROUNDS, key=lambda colour: counts[list(COLOURS).index(colour)])


@functools.cache
def _drawings() -> tuple[list[tuple[str, str]], Array]:
    """Shape and size of each drawing, and what it covers, (D, N)."""
    wanted = [(shape, size, shift) for shape in SHAPES for size in SIZES for shift in SHIFTS_PX]
    coverage: list[Any] = [np.asarray(mask(*one), np.float32).ravel() / 255 for one in wanted]
    return [(shape, size) for shape, size, _ in wanted], np.stack(coverage)


def _rgb(colour: str) -> Array:
    return np.array(COLOURS[colour], np.float32) / 255


def _corner(place: str) -> tuple[int, int]:
    """The left and upper pixel of a place's cell."""
    row, column = divmod(PLACES.index(place), 3)
    return CENTRES_PX[column] - CELL_PX // 2, CENTRES_PX[row] - CELL_PX // 2
