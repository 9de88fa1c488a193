"""Cancels runs at random moments: while they wait, run or upload, twice, and after their end."""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from storage.redis.state import FINAL
from tests.chaos.ground import Ground, Report, moments, names
from tests.chaos.load import undisturbed_run
from tests.chaos.victims import Place
from tests.faults.proxy import FaultProxy
from tests.worker.serving import PREFIX

LATEST_S = 8.0
"""Some are cancelled only after their end."""
AT_ONCE = 6


def cancels(on: Ground, *, seed: int, runs: int, workers: int, unserved: int) -> Report:
    """Of `runs` with workers up, each is cancelled at its own moment; of `unserved`, half before any worker comes.

    S3 answers late, so that there is always something to be uploaded.
    """
    on.dismiss()
    port = urlsplit(on.env["AUTOSEQ_S3_ENDPOINT"]).port
    assert port is not None
    with FaultProxy(port, seed=seed) as proxy:
        proxy.mode = "latency"
        place = Place(env={"AUTOSEQ_S3_ENDPOINT": proxy.endpoint})
        try:
            return _cancels(on, seed=seed, runs=runs, places=[place] * workers, unserved=unserved)
        finally:
            on.dismiss()


def _cancels(on: Ground, *, seed: int, runs: int, places: Sequence[Place], unserved: int) -> Report:
    fresh = names("cancel", seed)
    waiting = [on.submit(next(fresh)) for _ in range(unserved)]
    for run_id in waiting[::2]:
        on.client.cancel(run_id)
    on.have_workers(places)
    on.until_over(waiting)
    types_of = {run_id: _types(on, run_id) for run_id in waiting[::2]}
    faults = [
        f"{run_id}, cancelled before any worker came: {types}" for run_id, types in types_of.items() if len(types) > 2
    ]

    every = [*waiting, *_cancelled_in_time(on, fresh, moments("cancel", seed), runs)]
    for run_id in every:
        faults += _looked_at(on, run_id)
        if on.client.cancel(run_id):
            faults.append(f"{run_id} was cancelled after its end")
    ends = Counter(on.client.state(run_id).state for run_id in every)
    succeeded = [run_id for run_id in every if on.client.state(run_id).state == "succeeded"]
    return Report(
        name="cancels at random moments",
        figures=", ".join(f"{count} {end}" for end, count in sorted(ends.items())) + f" on {len(places)} workers",
        faults=[*faults, *on.faults(succeeded)],
    )


def _cancelled_in_time(on: Ground, fresh: Iterator[str], rng: random.Random, runs: int) -> list[str]:
    """So many runs, some at a time, each cancelled once or twice at some moment; over by now."""
    asked: list[str] = []
    threads: list[threading.Thread] = []
    for _ in range(runs):
        on.until(lambda: sum(not on.is_over(one) for one in asked) < AT_ONCE, "a run that is over")
        asked.append(on.submit(next(fresh)))
        for _ in range(rng.choice([1, 1, 2])):
            threads.append(threading.Thread(target=_cancel, args=(on, asked[-1], rng.uniform(0, LATEST_S))))
            threads[-1].start()
    for thread in threads:
        thread.join()
    on.until_over(asked)
    return asked


def _cancel(on: Ground, run_id: str, after_s: float) -> None:
    time.sleep(after_s)
    on.client.cancel(run_id)


def _types(on: Ground, run_id: str) -> Sequence[object]:
    return [event["type"] for event in on.events(run_id)]


def _looked_at(on: Ground, run_id: str) -> list[str]:
    """One end, which is also the state; what was committed is unchanged, and all of it is in the stream."""
    faults = []
    events = on.events(run_id)
    ends = [event["type"] for event in events if event["type"] in FINAL]
    state = on.client.state(run_id).state
    if ends != [state] or events[-1]["type"] != state or state not in {"cancelled", "succeeded"}:
        faults.append(f"{run_id}: is {state}, with the events {ends}")
    expected = undisturbed_run(run_id, on.engine)
    folder = f"{PREFIX}/{run_id}/"
    found = {key.removeprefix(folder): on.client.objects.get(key) for key in on.client.objects.list(folder)}
    faults += [f"{run_id}: {name} is different" for name in found if found[name] != expected.get(name)]
    made = [artifact for commit in on.client.journal(run_id).commits() for artifact in commit.artifacts]
    reported = [(event["step"], event["sha256"]) for event in events if event["type"] == "artifact"]
    if reported != [(artifact.step, artifact.sha256) for artifact in made]:
        faults.append(f"{run_id}: {len(made)} artifacts are committed, {len(reported)} are reported")
    if ("manifest.json" in found) != (state == "succeeded"):
        faults.append(f"{run_id}: is {state}, and its manifest is {'' if 'manifest.json' in found else 'not '}there")
    return faults
