"""Changes of a scene: the words that ask for one, and the scene that is to come of it."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.toyworld.scenes import BACKGROUNDS, SHAPES, SIZES, Scene, Thing, free_colours, free_places, one_more, used


@dataclass(frozen=True, kw_only=True)
class Edit:
    """What is asked for, and what is right."""

    instruction: str
    target: Scene


def recolour(scene: Scene, rng: random.Random) -> Edit:
    thing, colour = _any(scene, rng), rng.choice(free_colours(scene))
    return _changed(scene, thing, f"Make the {thing.shape} {colour}", colour=colour)


def move(scene: Scene, rng: random.Random) -> Edit:
    thing, place = _any(scene, rng), rng.choice(free_places(scene))
    return _changed(scene, thing, f"Move the {thing.shape} to the {place}", place=place)


def resize(scene: Scene, rng: random.Random) -> Edit:
    thing = _any(scene, rng)
    size = SIZES[1 - SIZES.index(thing.size)]
    word = {"small": "smaller", "large": "larger"}[size]
    return _changed(scene, thing, f"Make the {thing.shape} {word}", size=size)


def reshape(scene: Scene, rng: random.Random) -> Edit:
    thing = _any(scene, rng)
    shape = rng.choice([shape for shape in SHAPES if shape not in used(scene, "shape")])
    return _changed(scene, thing, f"Turn the {thing.shape} into a {shape}", shape=shape)


def add(scene: Scene, rng: random.Random) -> Edit:
    target = one_more(scene, rng)
    (thing,) = target.things - scene.things
    return Edit(instruction=f"Add {thing.text}", target=target)


def repaint(scene: Scene, rng: random.Random) -> Edit:
    taken = used(scene, "colour") | {scene.background}
    colour = rng.choice([colour for colour in BACKGROUNDS if colour not in taken])
    return Edit(instruction=f"Change the background to {colour}", target=replace(scene, background=colour))


EDITS: tuple[Callable[[Scene, random.Random], Edit], ...] = (recolour, move, resize, reshape, add, repaint)


def random_edit(scene: Scene, rng: random.Random) -> Edit:
    """A change of one attribute of one thing, another thing, or another background."""
    return rng.choice(EDITS)(scene, rng)


def _any(scene: Scene, rng: random.Random) -> Thing:
    return rng.choice(scene.in_order)


def _changed(scene: Scene, thing: Thing, instruction: str, **attributes: str) -> Edit:
    things = scene.things - {thing} | {replace(thing, **attributes)}
    return Edit(instruction=instruction, target=replace(scene, things=things))
