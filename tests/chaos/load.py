"""The runs of a campaign: what is asked for, and what each leaves when nothing happens to it."""

import random
from collections.abc import Mapping
from typing import Any

from tests.worker.serving import picture_uri, request, undisturbed
from worker.serve.engine import Engine


def recipe_of(run_id: str) -> dict[str, Any]:
    """The recipe of a run, the same for the same id: with and without images, thinking, refinements, forgetting."""
    rng = random.Random(run_id)
    images = rng.randint(1, 4)
    context: list[dict[str, str]] = [{"text": f"A {rng.choice(['red', 'green', 'blue'])} circle"}]
    if rng.random() < 0.25:
        context.append({"image": picture_uri((rng.randrange(256), 40, 80))})
    return {
        "name": "chaos",
        "seed": rng.randrange(10_000),
        "context": context,
        "num_images": images,
        "think": rng.random() < 0.5,
        "refinement_prompts": ["larger"] if rng.random() < 0.3 else [],
        "max_context_items": rng.choice([None, None, 3]),
        "image": {"width": 64, "height": 64, "num_timesteps": rng.choice([8, 20])},
        "text": {"max_new_tokens": 12},
    }


def undisturbed_run(run_id: str, engine: Engine, recipe: Mapping[str, Any] | None = None) -> dict[str, bytes]:
    """The objects that a run leaves when nothing happens to it; of its own recipe, unless another is given."""
    return undisturbed(request(run_id, recipe or recipe_of(run_id)), engine.model())
