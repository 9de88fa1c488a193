"""The world that tiny-bagel was trained on: things on a plain background, and the words for them."""

import random
from dataclasses import dataclass
from typing import Final

SHAPES: Final = ("circle", "square", "triangle", "star", "ring", "cross")
SIZES: Final = ("small", "large")
PLACES: Final = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
COLOURS: Final = {
    "red": (222, 40, 40),
    "orange": (247, 140, 25),
    "yellow": (250, 222, 45),
    "green": (40, 160, 70),
    "blue": (45, 95, 225),
    "purple": (140, 60, 185),
    "black": (18, 18, 18),
    "white": (250, 250, 250),
    "pink": (250, 150, 195),
    "brown": (125, 75, 40),
    "gray": (140, 140, 140),
}
BACKGROUNDS: Final = ("white", "black", "gray", "yellow", "green", "blue", "pink", "purple")
THING_COLOURS: Final = tuple(colour for colour in COLOURS if colour != "gray")


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One shape at a place."""

    shape: str
    colour: str
    size: str
    place: str

    @property
    def text(self) -> str:
        return f"a {self.size} {self.colour} {self.shape} at the {self.place}"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A background with things on it; two scenes are the same whatever the order of their things."""

    background: str
    things: frozenset[Thing]

    @property
    def in_order(self) -> tuple[Thing, ...]:
        """The things as one reads: from the top left to the bottom right."""
        return tuple(sorted(self.things, key=lambda thing: PLACES.index(thing.place)))

    @property
    def text(self) -> str:
        """The whole scene in words, as a prompt."""
        *others, last = [thing.text for thing in self.in_order]
        things = f"{', '.join(others)} and {last}" if others else last
        return f"{things} on a {self.background} background"


def one_more(scene: Scene, rng: random.Random) -> Scene:
    """`scene` with another thing, of a shape, colour and place that are free."""
    thing = Thing(
        shape=rng.choice([shape for shape in SHAPES if shape not in used(scene, "shape")]),
        colour=rng.choice(free_colours(scene)),
        size=rng.choice(SIZES),
        place=rng.choice(free_places(scene)),
    )
    return Scene(background=scene.background, things=scene.things | {thing})


def random_scene(rng: random.Random, things: int) -> Scene:
    """A scene of so many things, at most 4, no two of one shape: "the circle" names one of them."""
    scene = Scene(background=rng.choice(BACKGROUNDS), things=frozenset())
    for _ in range(things):
        scene = one_more(scene, rng)
    return scene


def used(scene: Scene, attribute: str) -> set[str]:
    """What the things of a scene have as their shape, colour, size or place."""
    return {getattr(thing, attribute) for thing in scene.things}


def free_places(scene: Scene) -> list[str]:
    return [place for place in PLACES if place not in used(scene, "place")]


def free_colours(scene: Scene) -> list[str]:
    """Colours that nothing in the scene has."""
    return [colour for colour in THING_COLOURS if colour not in used(scene, "colour") | {scene.background}]
