"""Many runs, queued before the first worker starts, and what each of them costs."""

import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis

from storage import keys
from storage.redis.reconcile import Reconciler
from tests.faults.judge import Judge, Verdict
from tests.scale.commands import asked
from tests.scale.fleet import cpu_s, fleet, logged
from tests.worker.serving import PREFIX, WorkerProcess, config_of, env_of, request, undisturbed
from worker.client import Client
from worker.local.services import LocalServices

DATABASE = 0
LOOKS = 20
CHUNK = 500
POLL_S = 0.2
STUCK_S = 120.0
"""Without a run's end for so long, something hangs."""


@dataclass(kw_only=True)
class RunFigures:
    """What many runs came to. Times in seconds, of runs that took place beside whatever else the machine did."""

    runs: int
    workers: int
    enqueue_s: float = 0.0
    round_trips_an_enqueue: float = 0.0
    connections_an_enqueue: float = 0.0
    recent_s: float = 0.0
    """`Client.recent` while all are open; the median."""
    look_s: float = 0.0
    """One look of a reconciler while all are open; the median."""
    serve_s: float = 0.0
    served: int = 0
    """Runs that ended within `serve_s`: those before the last worker was ready are left out."""
    cpu_s: float = 0.0
    """Of the workers, within `serve_s`."""
    round_trips_a_run: float = 0.0
    used_bytes: int = 0
    """By how much Redis's used_memory is larger than before the first was queued."""
    key_bytes: int = 0
    """MEMORY USAGE over the keys of one run; the median."""
    faults: list[str] = field(default_factory=list)


def recipe_of(number: int) -> dict[str, Any]:
    """Two steps: the smallest run that draws."""
    return {
        "name": "scale",
        "seed": number,
        "context": [{"text": "A red circle"}],
        "num_images": 1,
        "output": {"page": False},
    }


def many_runs(services: LocalServices, folder: Path, *, runs: int, workers: int, judged: int) -> RunFigures:
    """Queue `runs` runs, have them served by `workers`, and see that each happened once; compare `judged` by bytes."""
    env = env_of(services, DATABASE)
    figures = RunFigures(runs=runs, workers=workers)
    with Client(config_of(env)) as client:
        before = _used_bytes(client.redis)
        run_ids = _enqueue(client, figures)
        _look_at_open_runs(client, figures)
        with fleet(workers, env, folder / "fleet") as started:
            _serve(client, started, figures)
        figures.used_bytes = _used_bytes(client.redis) - before
        figures.key_bytes = round(statistics.median(_key_bytes(client.redis, one) for one in run_ids[:CHUNK]))
        figures.faults += _executions(started, run_ids)
        figures.faults += [*_streams(client.redis, run_ids), *_objects(client, run_ids)]
        figures.faults += _judge(client, run_ids, judged).faults()
    return figures


def _enqueue(client: Client, figures: RunFigures) -> list[str]:
    client.submit(recipe_of(0), run_id="first")  # opens what a client opens once
    run_ids = [f"run-{number:06d}" for number in range(1, figures.runs)]
    with asked(client.redis) as counted:
        began = time.monotonic()
        for number, run_id in enumerate(run_ids, start=1):
            client.submit(recipe_of(number), run_id=run_id)
        figures.enqueue_s = time.monotonic() - began
    figures.round_trips_an_enqueue = counted.round_trips / len(run_ids)
    figures.connections_an_enqueue = counted.connections / len(run_ids)
    return ["first", *run_ids]


def _look_at_open_runs(client: Client, figures: RunFigures) -> None:
    looks = Reconciler(client.redis, _never, grace_s=60.0)
    with asked(client.redis) as counted:
        figures.recent_s = _median_s(client.list)
        figures.look_s = _median_s(looks.requeue_lost)
    figures.faults += [f"a look asks for {name}" for name in counted.over_everything]
    newest = [state.run_id for state in client.list(3)]
    if newest != [f"run-{figures.runs - back:06d}" for back in (1, 2, 3)]:
        figures.faults.append(f"the newest runs are listed as {newest}")


def _never(record: object) -> None:
    raise AssertionError(f"queued again: {record}")


def _median_s(call: Callable[[], object]) -> float:
    times = []
    for _ in range(LOOKS):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _serve(client: Client, workers: list[WorkerProcess], figures: RunFigures) -> None:
    with asked(client.redis) as counted:
        open_before, began, cpu_before = _open(client.redis), time.monotonic(), cpu_s(workers)
        last, moved = open_before, began
        while left := _open(client.redis):
            if left != last:
                last, moved = left, time.monotonic()
            assert time.monotonic() - moved < STUCK_S, f"{left} runs are open, and none ends"
            time.sleep(POLL_S)
        figures.serve_s = time.monotonic() - began
    figures.served = open_before
    figures.cpu_s = cpu_s(workers) - cpu_before
    figures.round_trips_a_run = counted.round_trips / max(1, open_before)
    figures.faults += [f"the workers ask for {name}" for name in counted.over_everything]


def _open(redis: Redis) -> int:
    count: Any = redis.zcard(keys.OPEN_RUNS)
    return int(count)


def _used_bytes(redis: Redis) -> int:
    memory: Any = redis.info("memory")
    return int(memory["used_memory"])


def _key_bytes(redis: Redis, run_id: str) -> int:
    ours = (keys.run_state, keys.run_events, keys.run_cancel, keys.run_record, keys.run_lease)
    names = [*(key(run_id) for key in ours), f"autoseq:celery-task-meta-{run_id}"]
    with redis.pipeline(transaction=False) as together:
        for name in names:
            together.memory_usage(name, samples=0)
        return sum(size or 0 for size in together.execute())


def _executions(workers: list[WorkerProcess], run_ids: Sequence[str]) -> list[str]:
    """By the workers' own logs, each run was taken once and ended well once."""
    expected = Counter(run_ids)
    return [
        f"{run_id} was {word} {found[run_id]} times"
        for word in ("received", "succeeded")
        for found in [logged(workers, word)]
        for run_id in sorted((found - expected) + (expected - found))
    ]


def _streams(redis: Redis, run_ids: Sequence[str]) -> list[str]:
    """By its stream, each run was queued, started and ended once, and made each step and each artifact once."""
    faults = []
    for first in range(0, len(run_ids), CHUNK):
        some = run_ids[first : first + CHUNK]
        with redis.pipeline(transaction=False) as together:
            for run_id in some:
                together.xrange(keys.run_events(run_id))
            streams = together.execute()
        for run_id, entries in zip(some, streams, strict=True):
            events = [json.loads(fields["event"]) for _, fields in entries]
            seen = [(event["type"], event.get("step")) for event in events if event["type"] != "denoised"]
            if seen != EVENTS:
                faults.append(f"{run_id} has the events {seen}")
    return faults


EVENTS = [
    ("queued", None),
    ("started", None),
    ("step", 1),
    ("step", 2),
    ("artifact", 2),
    ("succeeded", None),
]
OBJECTS = {
    *("recipe.json", "model.json", "manifest.json"),
    *("commits/001.json", "commits/002.json", "steps/002-image.png"),
}


def _objects(client: Client, run_ids: Sequence[str]) -> list[str]:
    """In the bucket, each run has its objects, its commits and its manifest, and no other folder is there."""
    found: dict[str, list[str]] = {}
    for key in client.objects.list(f"{PREFIX}/"):
        run_id, _, name = key.removeprefix(f"{PREFIX}/").partition("/")
        found.setdefault(run_id, []).append(name)
    strange = sorted(found.keys() ^ set(run_ids))
    wrong = [run_id for run_id, names in found.items() if sorted(names) != sorted(OBJECTS)]
    return [f"{run_id}: {found.get(run_id)} in the bucket" for run_id in [*strange, *wrong]]


def _judge(client: Client, run_ids: Sequence[str], judged: int) -> Verdict:
    """A sample by its bytes; that nothing is left in Redis without a time to live, of all."""
    every = max(1, len(run_ids) // judged)
    numbers = {run_id: number for number, run_id in enumerate(run_ids)}
    judge = Judge(
        client.redis,
        client.objects,
        PREFIX,
        lambda run_id: undisturbed(request(run_id, {**recipe_of(numbers[run_id]), "model": "scripted"})),
    )
    return judge.judge(run_ids[::every], alone=every == 1)
