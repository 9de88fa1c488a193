"""Measures the overhead of the worker: runs a recipe in this process and through the queue, alternately.

python -m worker.bench [RECIPE] [--rounds N]
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence

from core.sequence import run_sequence
from recipes.load import find, load
from recipes.recipe import Recipe
from worker.client import Client
from worker.local.stack import stack
from worker.serve.engine import Engine
from worker.settings import settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the times of each round, their medians, and the ratio of worker to process."""
    parser = argparse.ArgumentParser(prog="python -m worker.bench", description="Measure the overhead of the worker.")
    parser.add_argument("recipe", nargs="?", default="magical-forest", help="a shipped recipe without images")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(arguments)
    engine = Engine(settings())
    recipe = load(find(options.recipe), spec=engine.spec())
    here: list[float] = []
    through: list[float] = []
    with stack() as up:
        _here(engine, recipe)  # the first run on each side loads the model
        _through(up.client, options.recipe)
        print(f"{'round':>5}  {'in process (s)':>14}  {'worker (s)':>10}  {'submit to end (s)':>17}")
        for number in range(1, options.rounds + 1):
            here.append(_here(engine, recipe))
            served, waited = _through(up.client, options.recipe)
            through.append(served)
            print(f"{number:5}  {here[-1]:14.3f}  {served:10.3f}  {waited:17.3f}")
    ratio = statistics.median(through) / statistics.median(here)
    print(
        f"median {statistics.median(here):13.3f}  {statistics.median(through):10.3f}   worker / in process: {ratio:.3f}"
    )
    return 0


def _here(engine: Engine, recipe: Recipe) -> float:
    """Seconds of the sequence alone, with an empty cache as at the start of a run."""
    model = engine.model()
    model.forget()
    started = time.perf_counter()
    for _ in run_sequence(recipe, model):
        pass
    return time.perf_counter() - started


def _through(client: Client, name: str) -> tuple[float, float]:
    """Seconds from the worker's start of the run to its end, and from its submission to its end."""
    submitted = time.perf_counter()
    run_id = client.submit(name)
    *_, _last = client.watch(run_id)
    waited = time.perf_counter() - submitted
    state = client.state(run_id)
    if state.started_at is None or state.finished_at is None:
        raise RuntimeError(f"run {run_id} has no times")
    return state.finished_at - state.started_at, waited


if __name__ == "__main__":
    sys.exit(main())
