"""What is seen in a picture is what it was made of, also when it is not quite clean; and a small change is seen."""

import random

import numpy as np
import pytest
from PIL import Image

from tests.toyworld.edits import EDITS, random_edit
from tests.toyworld.pictures import picture, see
from tests.toyworld.scenes import Scene, Thing, random_scene

RNG = random.Random(1)
SCENES = [random_scene(RNG, things) for things in (1, 2, 3, 4) for _ in range(50)]


def noisy(image: Image.Image, seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).normal(0, 12, (64, 64, 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def test_a_scene_is_read_from_its_picture() -> None:
    assert [see(picture(scene)) for scene in SCENES] == SCENES


def test_noise_does_not_change_what_is_seen() -> None:
    assert [see(noisy(picture(scene), seed)) for seed, scene in enumerate(SCENES)] == SCENES


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_every_change_makes_another_picture(edit: object) -> None:
    assert callable(edit)
    for number, scene in enumerate(SCENES[:150]):
        asked = edit(scene, random.Random(number))
        assert asked.target != scene
        assert see(picture(asked.target)) == asked.target


def test_words_name_all_that_is_there() -> None:
    circle = Thing(shape="circle", colour="orange", size="small", place="top left")
    cross = Thing(shape="cross", colour="red", size="large", place="bottom")
    scene = Scene(background="white", things=frozenset({cross, circle}))
    assert scene.text == (
        "a small orange circle at the top left and a large red cross at the bottom on a white background"
    )


def test_the_same_seed_asks_for_the_same() -> None:
    scene = SCENES[-1]
    assert random_edit(scene, random.Random(3)) == random_edit(scene, random.Random(3))
