"""Whether a sequence gives the same bits again: on a rebuilt context and in another process."""

import hashlib
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence

from core.bagel import Bagel
from core.events import ImageReady, TextReady
from core.sequence import run_sequence
from recipes.recipe import ImageSettings, Recipe, TextItem, TextSettings

IMAGES, STEPS, TOKENS = 2, 4, 24
MAX_SIDE_PX = 512
TIMEOUT_S = 300


def image_settings(model: Bagel, steps: int = STEPS) -> ImageSettings:
    """Settings for a small image, guided by text and image in each step."""
    side = min(MAX_SIDE_PX, model.spec.max_side_px)
    return ImageSettings(
        width=side,
        height=side,
        num_timesteps=steps + 1,
        timestep_shift=3.0,
        cfg_text_scale=4.0,
        cfg_img_scale=1.5,
        cfg_interval=(0.0, 1.0),
    )


def hash_of_run(model: Bagel) -> str:
    """A hash of all texts and pixels of a short sequence, from an empty cache."""
    recipe = Recipe(
        name="hash",
        seed=3,
        context=(TextItem(text="A magical forest"),),
        think=True,
        num_images=IMAGES,
        text=TextSettings(max_new_tokens=TOKENS, temperature=1.0),
        image=image_settings(model),
    )
    model.forget()
    digest = hashlib.sha256()
    for event in run_sequence(recipe, model):
        if isinstance(event, TextReady):
            digest.update(event.text.encode())
        elif isinstance(event, ImageReady):
            for variation in event.variations:
                digest.update(variation.image.tobytes())
    return digest.hexdigest()


def sequence_hash(model: Bagel) -> Iterator[Mapping[str, object]]:
    """The hash of a sequence."""
    yield {"sha256": hash_of_run(model)}


def two_processes(model: Bagel, command: Sequence[str]) -> Iterator[Mapping[str, object]]:
    """Whether a rebuilt context, and another process that runs `command`, give the same hash."""
    here, again = hash_of_run(model), hash_of_run(model)
    yield {"sha256": here, "rebuilt_equal": here == again}
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT_S).stdout  # noqa: S603 - this program
    there = json.loads(out.splitlines()[0])["sha256"]
    yield {"other_process": there, "processes_equal": here == there}
