"""A study of step caching: images with forecast steps against images with fewer steps at the same cost.

Run `python -m tools.studies.step_cache` in the repository; docs/measured.md has its results. Each task of the study of
judging is drawn once for each row, from the same seed, and checked by its pixels.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from PIL.Image import Image

from core.bagel import Bagel
from core.cost import velocity_evaluations
from core.protocol import Context, Drawn, Item, Picture, Text, UnifiedModel
from recipes.defaults import image_defaults, image_settings
from recipes.model_spec import ModelSpec
from recipes.recipe import ImageSettings, StepCacheSettings
from tools.measured import Tables, markdown
from tools.studies.judging.figures import gain, mcnemar
from tools.studies.judging.tasks import Kind, Task, tasks

TINY = Path(__file__).parents[2] / "models" / "tiny-bagel"
FULL = 50
"""Points of the schedule of the image to which the others are compared."""
CACHED = tuple(
    (timesteps, StepCacheSettings(interval=interval, order=order))
    for timesteps, interval, order in (
        (50, 2, 1),
        (50, 2, 2),
        (50, 3, 1),
        (50, 3, 2),
        (50, 4, 1),
        (50, 4, 2),
        (50, 6, 1),
        (24, 2, 1),
        (24, 2, 2),
        (24, 3, 1),
        (12, 2, 1),
    )
)


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to draw an image."""

    settings: ImageSettings

    @property
    def name(self) -> str:
        cache = self.settings.step_cache
        return f"{self.settings.num_timesteps}" + (f", interval {cache.interval}, order {cache.order}" if cache else "")

    @property
    def evaluations(self) -> int:
        return velocity_evaluations(self.settings)

    def with_fewer_steps(self) -> "Way":
        """The fewest computed steps, without a cache, that cost at least as much."""
        plain = (Way(settings=replace(self.settings, num_timesteps=n, step_cache=None)) for n in range(2, FULL + 1))
        return next(way for way in plain if way.evaluations >= self.evaluations)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What became of a task, by the name of the way."""

    kind: Kind
    number: int
    right: Mapping[str, bool]
    cpu_s: Mapping[str, float]
    deviation: Mapping[str, float]
    """Mean absolute difference from the pixels of the full image, in levels of 0 to 255."""


def ways(spec: ModelSpec, kind: Kind) -> tuple[list[Way], list[Way]]:
    """The ways without a cache, from the most steps to the fewest, and the ways with one."""
    defaults = image_defaults(spec, "generation" if kind == "drawing" else "editing")
    settings = image_settings(defaults)
    cached = [Way(settings=replace(settings, num_timesteps=n, step_cache=cache)) for n, cache in CACHED]
    whole = [Way(settings=replace(settings, num_timesteps=n)) for n in (FULL, 24, 12)]
    plain = {way.name: way for way in (*whole, *(way.with_fewer_steps() for way in cached))}
    return sorted(plain.values(), key=lambda way: -way.settings.num_timesteps), cached


def trial(task: Task, model: UnifiedModel) -> Trial:
    """Draw `task` in every way."""
    given: tuple[Item, ...] = () if task.given is None else (Picture(task.given),)
    context = Context(items=(*given, Text(task.instruction)))
    plain, cached = ways(model.spec, task.kind)
    _draw(model, context, replace(plain[0].settings, num_timesteps=2), task.number)  # reads the context
    images: dict[str, Image] = {}
    cpu_s: dict[str, float] = {}
    for way in (*plain, *cached):
        started = time.process_time()
        images[way.name] = _draw(model, context, way.settings, task.number)
        cpu_s[way.name] = time.process_time() - started
    full = np.asarray(images[plain[0].name], float)
    return Trial(
        kind=task.kind,
        number=task.number,
        right={name: task.is_right(image) for name, image in images.items()},
        cpu_s=cpu_s,
        deviation={name: float(np.abs(np.asarray(image, float) - full).mean()) for name, image in images.items()},
    )


def _draw(model: UnifiedModel, context: Context, settings: ImageSettings, seed: int) -> Image:
    *_, last = model.draw(context, settings, seeds=(seed,))
    if not isinstance(last, Drawn):
        raise TypeError("the model returned no image")
    return last.images[0]


def summary(trials: Sequence[Trial], spec: ModelSpec) -> dict[str, Any]:
    """The figures of the trials of one kind, as JSON data."""
    plain, cached = ways(spec, trials[0].kind)
    rows = [_figures(trials, way) for way in plain]
    rows += [{**_figures(trials, way), **_against(trials, way, way.with_fewer_steps())} for way in cached]
    return {"kind": trials[0].kind, "tasks": len(trials), "rows": rows}


def _figures(trials: Sequence[Trial], way: Way) -> dict[str, Any]:
    return {
        "way": way.name,
        "evaluations": way.evaluations,
        "cpu_s": mean(one.cpu_s[way.name] for one in trials),
        "right": mean(one.right[way.name] for one in trials),
        "deviation": mean(one.deviation[way.name] for one in trials),
    }


def _against(trials: Sequence[Trial], ours: Way, theirs: Way) -> dict[str, Any]:
    """Paired tests against a way of the same cost: of the share of right images, and of the deviation."""
    more = gain([one.right[ours.name] for one in trials], [one.right[theirs.name] for one in trials])
    pairs = [(one.deviation[ours.name], one.deviation[theirs.name]) for one in trials]
    closer, farther = sum(a < b for a, b in pairs), sum(a > b for a, b in pairs)
    return {"against": theirs.name, "gain": asdict(more), "closer": closer, "p_closer": mcnemar(closer, farther)}


def tables(found: Mapping[str, Any]) -> Tables:
    """The figures as tables: whole schedules, and forecasts beside the fewer steps that cost as much."""
    rows = {row["way"]: row for row in found["rows"]}
    plain = [[name, *_cells(row)] for name, row in rows.items() if "against" not in row]
    forecasts = [
        [
            name,
            *_cells(row),
            row["against"],
            *_cells(rows[row["against"]]),
            f"{row['closer']} of {found['tasks']}",
            f"{row['gain']['p']:.2g}",
        ]
        for name, row in rows.items()
        if "against" in row
    ]
    columns = ["evaluations", "CPU s", "right", "deviation"]
    against = ["fewer time steps", *columns, "closer in", "p, right"]
    return {
        f"{found['kind']} steps": {"columns": ["time steps", *columns], "rows": plain},
        f"{found['kind']} forecasts": {"columns": ["time steps", *columns, *against], "rows": forecasts},
    }


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [str(row["evaluations"]), f"{row['cpu_s']:.2f}", f"{row['right']:.1%}", f"{row['deviation']:.2f}"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the tasks that the results file lacks, then print the figures of all its tasks."""
    options = _parser().parse_args(arguments)
    model = Bagel.load(options.model_path, device="cpu", dtype="float32")
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.touch()
    done = [Trial(**json.loads(line)) for line in options.results.read_text().splitlines()]
    known = {(one.kind, one.number) for one in done}
    found: Tables = {}
    for kind in options.kinds:
        with options.results.open("a") as results:
            for task in tasks(kind, options.tasks, options.seed):
                if (kind, task.number) not in known:
                    done.append(trial(task, model))
                    results.write(json.dumps(asdict(done[-1])) + "\n")
                    results.flush()
        of_kind = [one for one in done if one.kind == kind and one.number < options.tasks]
        found = {**found, **tables(summary(of_kind, model.spec))}
    for name, table in found.items():
        sys.stdout.write(f"{name}\n\n{markdown(table)}\n")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.studies.step_cache", description="Study step caching.")
    parser.add_argument("--model_path", type=Path, default=TINY, help="tiny-bagel, or one trained on the same world")
    parser.add_argument("--kinds", nargs="+", choices=("drawing", "editing"), default=["drawing"])
    parser.add_argument("--tasks", type=int, default=110, help="number of tasks of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the tables to this file, for tools.measured")
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("out/step-cache.jsonl"),
        help="results file, one line per task; its tasks are not repeated",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
