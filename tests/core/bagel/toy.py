"""The toy world that tiny-bagel was trained on: one object on a plain background, as a picture and in its words."""

import random
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw

SIDE_PX, SCALE = 64, 4
COLOURS = {
    "red": (222, 40, 40),
    "yellow": (250, 222, 45),
    "green": (40, 160, 70),
    "blue": (45, 95, 225),
    "purple": (140, 60, 185),
    "black": (18, 18, 18),
    "white": (250, 250, 250),
}
BACKGROUNDS = [colour for colour in COLOURS if colour != "red"]  # no picture of its training had a red one
SHAPES = ("circle", "square", "triangle", "ring", "cross")
RADII_PX = {"small": 6.0, "large": 10.0}
PLACES = {
    f"{row} {column}".strip() or "center": (x, y)
    for row, y in (("top", 11), ("", 32), ("bottom", 53))
    for column, x in (("left", 11), ("", 32), ("right", 53))
}


@dataclass(frozen=True)
class Scene:
    """One object."""

    shape: str
    colour: str
    size: str
    place: str
    background: str

    @property
    def text(self) -> str:
        return f"a {self.size} {self.colour} {self.shape} at the {self.place} on a {self.background} background"

    def picture(self) -> Image.Image:
        image = Image.new("RGB", (SIDE_PX * SCALE,) * 2, COLOURS[self.background])
        draw, fill = ImageDraw.Draw(image), COLOURS[self.colour]
        x, y = ((centre + 0.5) * SCALE for centre in PLACES[self.place])
        r = RADII_PX[self.size] * SCALE
        match self.shape:
            case "circle":
                draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)
            case "ring":
                draw.ellipse((x - r, y - r, x + r, y + r), outline=fill, width=round(0.45 * r))
            case "square":
                draw.rectangle((x - 0.86 * r, y - 0.86 * r, x + 0.86 * r, y + 0.86 * r), fill=fill)
            case "triangle":
                low = y + 0.85 * r
                draw.polygon((x, y - 0.95 * r, x - 0.9 * r, low, x + 0.9 * r, low), fill=fill)
            case _:
                draw.rectangle((x - 0.32 * r, y - r, x + 0.32 * r, y + r), fill=fill)
                draw.rectangle((x - r, y - 0.32 * r, x + r, y + 0.32 * r), fill=fill)
        return image.resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX)


def random_scene(rng: random.Random) -> Scene:
    background = rng.choice(BACKGROUNDS)
    colour = rng.choice([colour for colour in COLOURS if colour != background])
    return Scene(rng.choice(SHAPES), colour, rng.choice(list(RADII_PX)), rng.choice(list(PLACES)), background)


def changed(scene: Scene, rng: random.Random) -> Scene:
    """`scene` with one attribute that is another."""
    options = {
        "shape": [shape for shape in SHAPES if shape != scene.shape],
        "colour": [colour for colour in COLOURS if colour not in {scene.colour, scene.background}],
        "size": [size for size in RADII_PX if size != scene.size],
        "place": [place for place in PLACES if place != scene.place],
        "background": [colour for colour in BACKGROUNDS if colour not in {scene.colour, scene.background}],
    }
    attribute = rng.choice(list(options))
    return replace(scene, **{attribute: rng.choice(options[attribute])})
