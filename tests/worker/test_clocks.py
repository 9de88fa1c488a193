"""Clocks that are an hour off, or jump by one, harm no run; and a run may take longer than a day."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from core.scripted import ScriptedModel
from storage import keys
from storage.events import Gap, Started, TextDelta
from storage.objects.s3 import S3Store
from storage.redis.follow import follow
from storage.redis.progress import Progress
from tests.chaos.victims import INJECT
from tests.worker.serving import (
    DEADLINE_S,
    WorkerProcess,
    config_of,
    empty_database,
    env_of,
    eventually,
    objects_of,
    picture_uri,
    recipe,
    request,
    undisturbed,
)
from worker.app import write_record
from worker.client import Client
from worker.errors import RunFailed
from worker.jobs.request import RunRequest
from worker.local.services import LocalServices
from worker.serve.delivery import Delivery, Message
from worker.serve.engine import Engine
from worker.serve.runtime import WorkerRuntime
from worker.settings import PROJECT

DATABASE, UNSERVED_DATABASE = 5, 4
HOUR_S = 3600
DAY_S = 24 * HOUR_S
SWEEP_S = 5
"""Between two searches of the broker for messages whose worker seems dead (worker.app.BROKER)."""
COMMANDS = """if True:
    import json, sys
    from typer.testing import CliRunner
    from worker.cli.main import app
    for line in sys.stdin:
        done = CliRunner().invoke(app, json.loads(line), prog_name="autoseq")
        print(json.dumps([done.exit_code, done.stdout, done.stderr]), flush=True)
"""


class SetClock:
    """A file with the seconds by which the clock of a process is off, and the environment of that process."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.env = {"CHAOS_CLOCK": str(file), "PYTHONPATH": os.pathsep.join([str(INJECT), str(PROJECT)])}
        self.set(0)

    def set(self, off_s: int) -> None:
        written = self._file.with_suffix(".new")
        written.write_text(str(off_s))
        written.rename(self._file)


@pytest.fixture(scope="module")
def pair(
    services: LocalServices, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[tuple[WorkerProcess, SetClock]]]:
    """Two workers on one queue, each with a clock of its own; their time limits are shorter than an hour."""
    limits = {"run_timeout_s": 1800, "step_timeout_s": 1800}
    env = env_of(services, DATABASE, scripted_delay_s=0.002, visibility_timeout_s=5, lease_s=3, **limits)
    folder = tmp_path_factory.mktemp("pair")
    clocks = [SetClock(folder / f"clock{n}") for n in range(2)]
    empty_database(env)
    with ExitStack() as stack:
        workers = [
            stack.enter_context(WorkerProcess(env | clock.env, folder / f"log{n}", "-n", f"w{n}"))
            for n, clock in enumerate(clocks)
        ]
        for worker in workers:
            worker.wait_until_ready()
        yield list(zip(workers, clocks, strict=True))
        for worker in workers:
            worker.process.terminate()
        assert [worker.process.wait(DEADLINE_S) for worker in workers] == [0, 0]


@pytest.fixture
def pair_client(pair: list[tuple[WorkerProcess, SetClock]]) -> Iterator[Client]:
    """Of the two workers."""
    with Client(pair[0][0].config) as opened:
        yield opened


def test_a_clock_that_jumps_in_mid_run_loses_and_doubles_nothing(
    pair: list[tuple[WorkerProcess, SetClock]], pair_client: Client, s3_store: S3Store
) -> None:
    document = recipe(num_images=7, think=False, image={"num_timesteps": 1000})
    run_id = pair_client.submit(document)
    eventually(lambda: pair_client.state(run_id).step == 2, "its first image under way")
    (owner, clock), (other, _) = sorted(pair, key=lambda one: -one[0].received(run_id))
    clock.set(-HOUR_S)
    time.sleep(SWEEP_S + 1)
    assert other.received(run_id) == 0, "its claim is renewed by the clock of Redis"
    clock.set(HOUR_S)  # to its own search every claim, its own too, now seems old
    eventually(lambda: other.received(run_id) == 1, "the message again")
    clock.set(0)  # before it searches again
    assert pair_client.state(run_id).state == "running"
    result = pair_client.result(run_id, timeout_s=DEADLINE_S)
    starts = [event for event in pair_client.watch(run_id) if isinstance(event, Started)]
    assert (len(starts), owner.received(run_id), other.received(run_id)) == (1, 1, 1)
    asked = request(run_id, pair_client.runs.record(run_id).document)
    assert objects_of(s3_store, run_id) == undisturbed(asked)
    for artifact in result["artifacts"]:
        with urllib.request.urlopen(artifact["url"]) as answer:
            assert answer.status == 200
    assert pair_client.count_open() == 0
    assert "lapsed" not in owner.output
    assert "s off; signing with the clock of the S3 server" in owner.output


@pytest.mark.parametrize("off_s", [HOUR_S, -HOUR_S])
def test_a_client_whose_clock_is_an_hour_off_can_do_everything(
    services: LocalServices, pair_client: Client, tmp_path: Path, run_id: str, off_s: int
) -> None:
    del pair_client  # its workers serve the runs
    clock = SetClock(tmp_path / "clock")
    clock.set(off_s)
    document = recipe(context=[{"image": picture_uri()}, {"text": "A cat"}], num_images=2, think=False)
    (tmp_path / "mine.json").write_text(json.dumps(document))
    commands = [
        ["submit", "mine.json", "--watch", "--run-id", run_id],
        ["verify", run_id],
        ["show", run_id, "--json"],
        ["branch", run_id, "--at", "3", "--watch", "--run-id", f"{run_id}-b"],
        ["diff", run_id, f"{run_id}-b"],
        ["recipe", "from", run_id],
    ]
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        input="".join(f"{json.dumps(command)}\n" for command in commands),
        env={**os.environ, **env_of(services, DATABASE), **clock.env},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=DEADLINE_S,
    )
    answers: list[Any] = [json.loads(line) for line in done.stdout.splitlines()]
    assert [code for code, _, _ in answers] == [0] * len(commands), answers
    links = [part for part in json.dumps(json.loads(answers[2][1])).split('"') if part.startswith("http")]
    assert links
    for link in links:
        with urllib.request.urlopen(link) as answer:
            assert answer.status == 200


class Days:
    """A clock by which each look takes `look_s`."""

    def __init__(self, look_s: float) -> None:
        self.now, self.look_s = 0.0, look_s

    def __call__(self) -> float:
        self.now += self.look_s
        return self.now


def test_a_run_longer_than_a_day_fails_by_its_time_limit_alone_and_goes_on(
    services: LocalServices, s3_store: S3Store, run_id: str
) -> None:
    config = config_of(env_of(services, UNSERVED_DATABASE, keep_progress_s=1, step_timeout_s=DAY_S))
    days, model = Days(look_s=20.0), ScriptedModel()
    runtime = replace(WorkerRuntime.connect(config), engine=Engine(config, model), clock=days)
    redis = runtime.redis
    document = recipe(num_images=6, think=False, image={"num_timesteps": 1000})
    asked = RunRequest(run_id=run_id, recipe=document, overrides={}, idempotency_key=run_id)
    write_record(runtime.runs, asked, queue="model.scripted", model="scripted")
    runtime.runs.add_alias(f"{run_id}-again", run_id)
    redis.zadd(keys.BROKER_CLAIMS, {run_id: 1.0})
    expiring: set[str] = set()

    def look(step: int, steps: int) -> None:
        del steps
        of_run = [*redis.scan_iter(f"autoseq:run:{run_id}*"), keys.idempotency(run_id)]
        expiring.update(key for key in of_run if redis.pttl(key) != -1)
        claimed = redis.zscore(keys.BROKER_CLAIMS, run_id)
        assert claimed is not None
        assert abs(float(claimed) - time.time()) < HOUR_S / 2, step

    message = Message(tag=run_id, update_state=look)
    with pytest.raises(RunFailed, match=r"the run took longer than 86400 s \(run_timeout_s\)"):
        Delivery(asked, message, runtime).run_to_completion()
    assert days.now > DAY_S
    assert runtime.runs.reopen(run_id)
    time.sleep(1.5)  # longer than an ended run is kept
    assert Delivery(asked, message, runtime).run_to_completion()["state"] == "succeeded"
    assert days.now > 1.25 * DAY_S
    assert expiring == {keys.run_lease(run_id)}
    assert objects_of(s3_store, run_id) == undisturbed(asked)
    redis.zrem(keys.BROKER_CLAIMS, run_id)
    runtime.close()


def test_a_run_of_very_many_events_keeps_the_last_and_says_what_is_gone(redis_client: Redis, run_id: str) -> None:
    progress = Progress(redis_client, run_id)
    progress.publish(Started(name="n", model="m", steps=2))
    for _ in range(12_000):
        progress.publish(TextDelta(step=1, delta="a"))
    assert keys.MAX_EVENTS <= redis_client.xlen(keys.run_events(run_id)) < 12_000
    watched = follow(redis_client, run_id)
    assert isinstance(next(watched), Gap)
