"""Measures the overhead of the worker: runs a recipe in this process and through the queue, alternately.

python -m worker.bench [RECIPE] [--rounds N] [--put-delay SECONDS]

The worker runs it twice in each round: with the local S3 server, and with one whose PUTs are delayed.

The cost of the worker is the time to the last denoising step, compared with that in this process: what it takes from
the device. It should not depend on S3. The time to the end also has the latency of S3: at least one PUT each for the
last object, its commit and the manifest, and one for each commit that is still to be made. The time to the start has no
PUT. CPU times are those of all threads of a process; they depend less on what else the machine does.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

from core.events import Denoised
from core.sequence import run_sequence
from recipes.load import find, load
from recipes.recipe import Recipe
from storage import events
from worker.client import Client
from worker.local.fleet import WorkerFleet
from worker.local.slow_link import SlowLink
from worker.local.stack import Stack, settings_of, stack
from worker.serve.engine import Engine
from worker.settings import settings

SLOW_LOG = Path(".autoseq/slow-worker.log")
HEADS = ("to last step", "to the end", "CPU", "parent's CPU", "to the start")
"""Of the columns, in the order of the fields of Times; seconds."""
WIDTH = max(map(len, HEADS))


@dataclass(frozen=True)
class Times:
    """Seconds of one run."""

    work_s: float
    """From the start to the last denoising step."""
    wall_s: float
    """From the start to the end. A worker takes its next run then."""
    cpu_s: float
    """Of the process that computes."""
    parent_cpu_s: float = 0.0
    """Of the parent process of a worker."""
    queued_s: float = 0.0
    """From the submission to the start."""


class InProcess:
    """Runs the sequence alone, with an empty cache as at the start of a run."""

    def __init__(self, recipe: Recipe, engine: Engine) -> None:
        self._recipe = recipe
        engine.warm_up()
        self._model = engine.model()

    def run(self) -> Times:
        self._model.forget()
        started, cpu_started = time.perf_counter(), time.process_time()
        for event in run_sequence(self._recipe, self._model):
            if isinstance(event, Denoised):
                worked = time.perf_counter()
        return Times(
            work_s=worked - started, wall_s=time.perf_counter() - started, cpu_s=time.process_time() - cpu_started
        )


class Worker:
    """Runs the recipe through the queue of one worker."""

    def __init__(self, recipe: str, client: Client, parent: int) -> None:
        self._recipe = recipe
        self._client = client
        self._parent = parent
        while [one.state for one in client.workers()] != ["idle"]:
            time.sleep(0.1)

    def run(self) -> Times:
        submitted_at, cpu_before = time.time(), self._cpu_s()
        run_id = self._client.submit(self._recipe)
        denoised = [event for event in self._client.watch(run_id) if event.type == events.Denoised.type]
        cpu_after = self._cpu_s()
        state = self._client.state(run_id)
        if state.state != "succeeded" or state.started_at is None or state.finished_at is None:
            raise RuntimeError(f"run {run_id} has not succeeded: {state.error}")
        child_s, parent_s = (after - before for before, after in zip(cpu_before, cpu_after, strict=True))
        return Times(
            work_s=denoised[-1].at - state.started_at,
            wall_s=state.finished_at - state.started_at,
            cpu_s=child_s,
            parent_cpu_s=parent_s,
            queued_s=state.started_at - submitted_at,
        )

    def _cpu_s(self) -> tuple[float, float]:
        """The CPU times so far of the worker's children and of itself."""
        children = Path(f"/proc/{self._parent}/task/{self._parent}/children").read_text().split()
        return sum(_cpu_s(int(child)) for child in children), _cpu_s(self._parent)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the times of each round, their medians, and the ratios of worker to process."""
    parser = argparse.ArgumentParser(prog="python -m worker.bench", description="Measure the overhead of the worker.")
    parser.add_argument("recipe", nargs="?", default="magical-forest", help="a shipped recipe without images")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--put-delay", type=float, default=0.3, metavar="SECONDS", help="of each PUT to the slow S3")
    options = parser.parse_args(arguments)
    engine = Engine(settings())
    recipe = load(find(options.recipe), spec=engine.spec())
    with stack() as up, _slow_worker(up, options.put_delay) as (slow_client, slow_fleet):
        sides: dict[str, InProcess | Worker] = {
            "in process": InProcess(recipe, engine),
            "worker": Worker(options.recipe, up.client, *up.workers.pids),
            "slow S3": Worker(options.recipe, slow_client, *slow_fleet.pids),
        }
        print(f"{'':7}  {'':10}" + "".join(f"  {head:>{WIDTH}}" for head in HEADS))
        rounds: dict[str, list[Times]] = {name: [] for name in sides}
        for number in range(options.rounds + 1):
            for name, side in sides.items():
                times = side.run()
                _print_row(str(number) if number else "first", name, times)
                if number:
                    rounds[name].append(times)
    medians = {name: _median(times) for name, times in rounds.items()}
    here = medians["in process"]
    for name, times in medians.items():
        _print_row("median", name, times)
        if name != "in process":
            ratios = (times.work_s / here.work_s, times.wall_s / here.wall_s, times.cpu_s / here.cpu_s)
            print("{} / in process: to the last step {:.3f}, to the end {:.3f}, by CPU {:.3f}".format(name, *ratios))
    return 0


@contextmanager
def _slow_worker(up: Stack, put_delay_s: float) -> Iterator[tuple[Client, WorkerFleet]]:
    """A worker with a Redis database of its own, whose PUTs to S3 are delayed."""
    env = up.services.env()
    with ExitStack() as opened:
        port = int(env["AUTOSEQ_S3_ENDPOINT"].rpartition(":")[2])
        link = opened.enter_context(SlowLink(port, delay_s=put_delay_s))
        env |= {
            "AUTOSEQ_S3_ENDPOINT": link.endpoint,
            "AUTOSEQ_REDIS_URL": f"{env['AUTOSEQ_REDIS_URL'].rpartition('/')[0]}/1",
        }
        fleet = opened.enter_context(WorkerFleet({**os.environ, **env}, log=SLOW_LOG))
        yield opened.enter_context(Client(settings_of(env))), fleet


def _median(times: Sequence[Times]) -> Times:
    return Times(*map(statistics.median, zip(*map(astuple, times), strict=True)))


def _print_row(label: str, name: str, times: Times) -> None:
    print(f"{label:>7}  {name:10}" + "".join(f"  {value:{WIDTH}.3f}" for value in astuple(times)))


if __name__ == "__main__":
    sys.exit(main())
