"""The contact sheet of a run shows what went on, what it was chosen from, or the tree that it grew into."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from PIL import Image

from storage.journal import Journal
from storage.objects.memory import MemoryStore
from storage.sheet import LINE, MARK, SOFT
from tests.worker.serving import PREFIX, make_run, picture_uri, recipe, request
from worker.cli.sheets.run_sheet import TREE_SIDES_PX, run_sheet, words_of


def made(**fields: object) -> Journal:
    """A run of the scripted model."""
    objects = MemoryStore()
    asked = request("r", recipe(image={"width": 64, "height": 64, "num_timesteps": 2}, **fields))
    make_run(asked, objects)
    return Journal(objects, PREFIX, "r")


def sheet_of(journal: Journal) -> Image.Image:
    manifest = journal.manifest()
    assert manifest is not None
    return run_sheet(journal, manifest)


def count(sheet: Image.Image, colour: tuple[int, int, int]) -> int:
    found: Mapping[Any, int] = {colour: count for count, colour in sheet.getcolors(2**24) or ()}
    return found.get(colour, 0)


def test_a_linear_run_shows_its_images_in_order() -> None:
    sheet = sheet_of(made(num_images=3))
    assert sheet.width == 20 + 3 * 276
    assert count(sheet, MARK) == 0


def test_tries_that_were_dropped_are_not_on_the_sheet() -> None:
    sheet = sheet_of(made(num_images=1, retry={"below": 1.0, "times": 2}))
    assert sheet.width == 20 + 276


def test_all_that_was_given_stands_first() -> None:
    sheet = sheet_of(
        made(num_images=1, context=[{"text": "A cat"}, {"image": picture_uri("#00ff00")}, {"text": "A dog"}])
    )
    strip = sheet.crop((0, 0, sheet.width, 20 + 31 + 192))
    assert sheet.width == 20 + 3 * (192 + 20)
    assert count(strip, (0, 255, 0)) == 192 * 192
    for column in (0, 2):
        left = 20 + column * (192 + 20)
        assert count(strip.crop((left, 51, left + 192, 51 + 192)), SOFT) > 0


def test_variations_stand_in_rows_and_one_of_each_is_framed() -> None:
    sheet = sheet_of(made(num_images=2, variations_per_image=3, select="judge"))
    assert sheet.width == 20 + 170 + 3 * 276
    frame = (256 + 8) ** 2 - 256**2
    assert count(sheet, MARK) == 2 * frame


def test_a_tree_grows_from_left_to_right() -> None:
    sheet = sheet_of(made(num_images=2, variations_per_image=3, select="tree"))
    side = TREE_SIDES_PX[0][1]
    assert sheet.width == 20 + 4 * (side + 20), "an image, and the three that came from it"
    assert sheet.height > 3 * side
    assert count(sheet, LINE) > 0


@pytest.mark.parametrize(("images", "across", "columns"), [(5, 2, 6), (1, 64, 8), (2, 7, 8)])
def test_the_largest_trees_stay_small_enough_to_look_at(images: int, across: int, columns: int) -> None:
    sheet = sheet_of(made(num_images=images, variations_per_image=across, select="tree", think=False))
    assert sheet.width <= 20 + columns * (192 + 20)
    assert sheet.height < 5000


def test_every_image_stands_with_the_words_of_its_own_branch() -> None:
    journal = made(num_images=2, variations_per_image=2, select="tree", think=True)
    manifest = journal.manifest()
    assert manifest is not None
    words = words_of(journal, manifest)
    texts = {(one.path, one.role): journal.get(one.key).decode() for one in manifest.artifacts if one.kind == "text"}
    steps = {one.path: one.step for one in manifest.artifacts if one.kind == "image"}
    assert json.loads(journal.get("recipe.json"))["context"][0]["text"] in words[steps["0"]]
    for branch in ("0", "1"):
        plain = " ".join(texts[branch, "refinement"].split())
        assert words[steps[f"{branch}.0"]].startswith(plain)
