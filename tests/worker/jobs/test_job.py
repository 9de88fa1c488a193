"""A job says what its steps take."""

from core.scripted import SPEC
from tests.worker.serving import recipe, request
from worker.jobs.inputs import Sources
from worker.jobs.job import resolve
from worker.settings import PROJECT


def test_the_size_of_a_step_names_images_only_where_it_draws_them() -> None:
    asked = request("run-1", recipe(variations_per_image=3, image={"width": 64, "height": 64}))
    job = resolve(asked, SPEC, recipes=PROJECT / "recipes", sources=Sources())
    assert job.sizes_at(2) == "at step 2 with 1 context items and 64 x 64 pixels"
    assert job.sizes_at(3) == "at step 3 with 2 context items and 64 x 64 pixels, 3 at once"
