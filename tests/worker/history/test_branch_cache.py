"""On real weights a branch begins with the very numbers that its parent had in its cache at that step."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from PIL.Image import Image

from core.bagel import Bagel
from core.bagel.guidance import text_free
from core.bagel.reader import items_of
from core.plan import Draw, Evict, Write, plan
from core.protocol import Context, Denoising, Drawn, ModelWrapper
from recipes.recipe import ImageSettings, TextSettings
from storage.journal import Journal
from storage.objects.memory import MemoryStore
from tests.core.bagel.golden import load
from tests.worker.serving import PREFIX, UPLOADS, Silent, request
from worker.history.branch import branched
from worker.history.history import read_recipe
from worker.jobs.input_rule import InputRule
from worker.jobs.inputs import Sources
from worker.jobs.job import resolve, store
from worker.serve.claim import Unclaimed
from worker.serve.run import run
from worker.settings import PROJECT

DOCUMENT: dict[str, Any] = {
    "name": "test",
    "context": [{"text": "A large red circle at the center"}],
    "num_images": 2,
    "think": True,
    "max_context_items": 4,
    "text": {"max_new_tokens": 12},
    "image": {"width": 64, "height": 64, "num_timesteps": 3},
}


class Snapshots(ModelWrapper):
    """Keeps the numbers that a model has read before each text and image: the whole context, and the text-free."""

    model: Bagel

    def __init__(self, model: Bagel) -> None:
        super().__init__(model)
        self.taken: list[tuple[int, torch.Tensor, torch.Tensor]] = []

    def write(self, context: Context, settings: TextSettings, *, seed: int) -> Iterator[str]:
        self._take(context)
        return self.model.write(context, settings, seed=seed)

    def draw(self, context: Context, settings: ImageSettings, *, seeds: Sequence[int]) -> Iterator[Denoising | Drawn]:
        self._take(context)
        return self.model.draw(context, settings, seeds=seeds)

    def judge(self, image: Image, question: str, answer: str | None = None) -> float:
        pytest.fail(f"nothing is judged here, but was: {(image, question, answer)}")

    def _take(self, context: Context) -> None:
        cache = self.model._context
        self.model.reader.sync(cache, items_of(context))
        self.taken.append((text_free(cache).tokens, *cache.stacked(cache.end.tokens)))


def made(objects: MemoryStore, run_id: str, document: dict[str, Any]) -> Snapshots:
    model = Snapshots(load("tiny"))
    journal = Journal(objects, PREFIX, run_id)
    sources = Sources(store=objects, rule=InputRule(bucket=objects.bucket, prefix=PREFIX))
    job = resolve(request(run_id, document), model.spec, recipes=PROJECT / "recipes", sources=sources)
    store(job, journal)
    run(job, model=model, journal=journal, reporter=Silent(), claim=Unclaimed(), uploads=UPLOADS)
    return model


def test_a_branch_has_the_cache_of_its_parent() -> None:
    objects = MemoryStore()
    parent = made(objects, "run-1", DOCUMENT)
    steps = plan(read_recipe(Journal(objects, PREFIX, "run-1")).recipe)
    generations = [step.number for step in steps if isinstance(step, Write | Draw)]
    assert any(isinstance(step, Evict) for step in steps[:-1])
    for at in range(1, len(steps)):
        branch = made(objects, f"run-at-{at}", branched(Journal(objects, PREFIX, "run-1"), at=at))
        following = next(index for index, number in enumerate(generations) if number > at)
        (begin, keys, values), (mine, my_keys, my_values) = parent.taken[following], branch.taken[0]
        assert mine == begin, at
        assert torch.equal(my_keys, keys), at
        assert torch.equal(my_values, values), at
