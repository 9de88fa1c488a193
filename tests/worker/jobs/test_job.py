"""A job says what its steps take."""

from collections import Counter

from core.scripted import SPEC
from storage.journal import Journal
from storage.objects.memory import MemoryStore
from tests.worker.serving import picture_uri, recipe, request
from worker.jobs.inputs import Sources
from worker.jobs.job import resolve, restore, store
from worker.settings import PROJECT


def test_the_size_of_a_step_names_images_only_where_it_draws_them() -> None:
    asked = request("run-1", recipe(variations_per_image=3, image={"width": 64, "height": 64}))
    job = resolve(asked, SPEC, recipes=PROJECT / "recipes", sources=Sources())
    assert job.sizes_at(2) == "at step 2 with 1 context items and 64 x 64 pixels"
    assert job.sizes_at(3) == "at step 3 with 2 context items and 64 x 64 pixels, 3 at once"


class CountingStore(MemoryStore):
    """Counts how often each object is read."""

    def __init__(self) -> None:
        super().__init__()
        self.read = Counter[str]()

    def get(self, key: str) -> bytes:
        self.read[key] += 1
        return super().get(key)


def test_equal_images_of_a_stored_run_are_read_once() -> None:
    images = [{"image": picture_uri(colour)} for colour in ("teal", "red", "teal", "teal")]
    asked = request("run-1", recipe(context=[*images, {"text": "Mix them"}]))
    objects = CountingStore()
    journal = Journal(objects, "", "run-1")
    job = resolve(asked, SPEC, recipes=PROJECT / "recipes", sources=Sources())
    store(job, journal)
    again = restore("run-1", journal)
    assert again is not None
    assert (again.inputs, again.recipe_sha256) == (job.inputs, job.recipe_sha256)
    assert {key: count for key, count in objects.read.items() if "inputs/" in key} == {
        "run-1/inputs/000.png": 1,
        "run-1/inputs/001.png": 1,
    }
    assert again.inputs[0] is again.inputs[2] is again.inputs[3]
