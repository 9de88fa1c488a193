"""Many submit the same at the same moment, with one idempotency key."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from storage import keys
from tests.chaos.ground import Ground, Report, names
from tests.chaos.load import recipe_of
from worker.client import Client
from worker.settings import PROJECT

CLIENTS = 5


def one_key(on: Ground, *, seed: int, threads: int, processes: int, workers: int) -> Report:
    """From threads over several clients and from `autoseq submit`; with no worker, one comes later."""
    if workers:
        on.have_workers(workers)
    else:
        on.dismiss()
    like = next(names("submit", seed))  # what is asked for; the run's id is not known before
    key = f"rush-{seed}-{workers}"
    file = on.folder / f"{key}.yaml"
    file.write_text(json.dumps(recipe_of(like)))
    clients = [Client(on.client.config) for _ in range(CLIENTS)]
    together = threading.Barrier(threads + processes)

    def from_thread(number: int) -> str:
        together.wait()
        return clients[number % CLIENTS].submit(file, idempotency_key=key)

    def from_process(_number: int) -> str:
        together.wait()
        return _submitted(on, file, key)

    with ThreadPoolExecutor(threads + processes) as pool:
        halves = pool.map(from_thread, range(threads)), pool.map(from_process, range(processes))
        answers = [answer for half in halves for answer in half]
    for client in clients:
        client.close()
    faults = _one_answer(on, answers, workers)
    run_id = answers[0]
    on.have_workers(max(workers, 1))
    on.until_over([run_id])
    starts = [event for event in on.events(run_id) if event["type"] == "started"]
    if len(starts) != 1:
        faults.append(f"{run_id} was started {len(starts)} times")
    return Report(
        name="one idempotency key",
        figures=f"{threads} threads, {processes} processes, {workers} workers: {len(set(answers))} run",
        faults=[*faults, *on.faults([run_id], recipe=recipe_of(like))],
    )


def _submitted(on: Ground, file: Path, key: str) -> str:
    command = [sys.executable, "-m", "worker.cli.main", "submit", str(file), "--idempotency-key", key]
    env = {**os.environ, **on.env, "PYTHONPATH": str(PROJECT)}
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout.strip()


def _one_answer(on: Ground, answers: list[str], workers: int) -> list[str]:
    faults = [] if len(set(answers)) == 1 else [f"answers are {sorted(set(answers))}"]
    record = on.client.runs.record(answers[0])
    messages = int(on.client.redis.llen(keys.broker_list(record.queue_slot)))
    if not workers and messages != 1:
        faults.append(f"{messages} messages wait")
    return faults
