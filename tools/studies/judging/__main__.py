"""A study of whether judging improves images: tasks done with and without a judge, checked by their pixels.

Run `python -m tools.studies.judging` in the repository; docs/measured.md has its results. The study is not part of the
test suite; `pytest tools/studies/judging` checks its figures.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from core.bagel import Bagel
from tools.studies.judging import rendered
from tools.studies.judging.report import report
from tools.studies.judging.tasks import WORDINGS, tasks
from tools.studies.judging.trial import recorded, trial

TINY = Path(__file__).parents[3] / "models" / "tiny-bagel"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the tasks that the results file lacks, then print the tables of all its tasks."""
    options = _parser().parse_args(arguments)
    model = Bagel.load(options.model_path, device="cpu", dtype="float32")
    write = sys.stdout.write
    write(f"seed {options.seed}, {options.timesteps} time steps, results in {options.results}\n\n")
    write(rendered.report(model, options.rendered, options.seed) + "\n")
    done = recorded(options.results)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    both = zip(*(tasks(kind, options.tasks, options.seed) for kind in WORDINGS), strict=True)
    with options.results.open("a") as results:
        for task in (task for pair in both for task in pair):
            if f"{task.kind} {task.number}" not in done:
                result = trial(task, model, options.timesteps)
                done[result.name] = result
                results.write(result.to_json() + "\n")
                results.flush()
    for kind in WORDINGS:
        of_kind = [done[f"{kind} {number}"] for number in range(options.tasks)]
        write("\n" + report(of_kind) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.studies.judging", description="Study whether judging improves images."
    )
    parser.add_argument("--model_path", type=Path, default=TINY, help="tiny-bagel, or one trained on the same world")
    parser.add_argument("--tasks", type=int, default=120, help="number of tasks of each kind: drawing and editing")
    parser.add_argument("--rendered", type=int, default=200, help="number of rendered pictures to judge")
    parser.add_argument("--timesteps", type=int, default=11, help="points of the denoising schedule")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("out/judging.jsonl"),
        help="results file, one line per task; its tasks are not repeated",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
