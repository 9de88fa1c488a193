"""The sheet of a sweep has rows and columns by what the runs changed, and a place for each run."""

import io
from collections.abc import Sequence
from typing import Any

import pytest
from PIL import Image

from recipes.sweep import combinations
from storage.journal import Journal
from storage.objects.memory import MemoryStore
from storage.redis.state import RunState
from storage.sheet import LINE
from storage.sweeps import Sweep, SweepRun
from tests.worker.serving import PREFIX, make_run, recipe, request
from worker.cli.sheets.sweep_sheet import sweep_sheet

PICTURE = {"width": 64, "height": 64, "num_timesteps": 2}


def sheet_of(fields: dict[str, Sequence[Any]], *, failed: int | None = None, size: int = 64) -> Image.Image:
    """The sheet of a sweep whose runs all succeeded, but for one."""
    store = MemoryStore()
    runs = tuple(SweepRun(run_id=f"s-{number:03d}", values=one) for number, one in enumerate(combinations(fields)))
    sweep = Sweep(sweep_id="s", name="sky", document={}, fields=fields, runs=runs)
    image = {**PICTURE, "width": size, "height": size}
    for number, run in enumerate(runs):
        if number != failed:
            make_run(request(run.run_id, recipe(num_images=1, think=False, image=image)), store)
    states: dict[str, RunState | None] = {
        run.run_id: RunState(run_id=run.run_id, state="failed" if number == failed else "succeeded")
        for number, run in enumerate(runs)
    }
    return Image.open(io.BytesIO(sweep_sheet(sweep, states, lambda run_id: Journal(store, PREFIX, run_id))))


HEAD = 20 + 2 * (21 + 10)


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"seed": [1, 2, 3]}, (20 + 3 * 276, 20 + 31 + 256 + 31 + 20)),
        ({"seed": range(10)}, (20 + 8 * 212, 20 + 31 + 2 * (192 + 31 + 20))),
        ({"seed": [1, 2], "top_k": [0, 9, 20]}, (190 + 3 * 276, HEAD + 2 * 276)),
        ({"seed": [1, 2], "think": [True], "top_k": [0, 9]}, (190 + 2 * 276, HEAD + 2 * 276)),
        ({"seed": [1, 2], "top_p": [0.5, 1.0], "top_k": [0, 9]}, (190 + 2 * 276, HEAD + 4 * 276)),
        ({"seed": [1]}, (20 + 276, 20 + 31 + 256 + 31 + 20)),
    ],
)
def test_the_swept_fields_are_its_rows_and_columns(fields: dict[str, Sequence[Any]], size: tuple[int, int]) -> None:
    assert sheet_of(fields).size == size


def test_a_failed_run_leaves_its_place_empty() -> None:
    whole, lacking = sheet_of({"seed": [1, 2], "top_k": [0, 9]}), sheet_of({"seed": [1, 2], "top_k": [0, 9]}, failed=3)
    assert lacking.size == whole.size
    place = (190 + 276, HEAD + 276)
    assert lacking.getpixel(place) == LINE
    assert whole.getpixel(place) != LINE


def test_large_images_are_made_smaller() -> None:
    assert sheet_of({"seed": [1, 2], "top_k": [0, 9]}, size=1024).size == (190 + 2 * 276, HEAD + 2 * 276)
