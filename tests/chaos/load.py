"""The runs of a campaign: what is asked for, and what each leaves when nothing happens to it."""

import base64
import functools
import io
import random
from collections.abc import Mapping
from typing import Any

from PIL import Image

from storage.journal import Journal
from storage.objects.memory import MemoryStore
from storage.uploader import UploadLimits
from tests.worker.serving import Silent
from worker.jobs.inputs import Sources
from worker.jobs.job import resolve, store
from worker.jobs.request import RunRequest
from worker.serve.claim import Unclaimed
from worker.serve.engine import Engine
from worker.serve.run import run
from worker.settings import PROJECT

UPLOADS = UploadLimits(pending_bytes=2**28, outage_timeout_s=1.0)


def recipe_of(run_id: str) -> dict[str, Any]:
    """The recipe of a run, the same for the same id: with and without images, thinking, refinements, forgetting."""
    rng = random.Random(run_id)
    images = rng.randint(1, 4)
    context: list[dict[str, str]] = [{"text": f"A {rng.choice(['red', 'green', 'blue'])} circle"}]
    if rng.random() < 0.25:
        context.append({"image": _picture(rng.randrange(256))})
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


def undisturbed(run_id: str, engine: Engine, recipe: Mapping[str, Any] | None = None) -> dict[str, bytes]:
    """The objects that the run leaves, by name within its folder, made here and now without any service.

    Its recipe is the one that belongs to its name, unless another is given.
    """
    objects = MemoryStore()
    journal = Journal(objects, "", run_id)
    request = RunRequest(run_id=run_id, recipe=recipe or recipe_of(run_id), overrides={})
    job = resolve(request, engine.identified_spec(), recipes=PROJECT / "recipes", sources=Sources())
    store(job, journal)
    run(job, model=engine.model(), journal=journal, reporter=Silent(), claim=Unclaimed(), uploads=UPLOADS)
    return {key.removeprefix(journal.folder): objects.get(key) for key in objects.list(journal.folder)}


@functools.cache
def _picture(brightness: int) -> str:
    data = io.BytesIO()
    Image.new("RGB", (64, 64), (brightness, 40, 80)).save(data, "PNG")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
