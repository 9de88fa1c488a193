"""One campaign: servers, a fleet and its load, faults on their schedule, until all runs have ended; then the judge."""

import contextlib
import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from storage.errors import StoreUnavailableError
from tests.chaos import faults
from tests.chaos.faults import Fault, Scale
from tests.chaos.ground import SETTINGS
from tests.chaos.load import recipe_of, undisturbed_run
from tests.chaos.recovery import recoveries
from tests.chaos.victims import Fleet, Struck
from tests.faults.judge import Judge, Verdict, kept
from tests.faults.proxy import FaultProxy
from tests.worker.serving import PREFIX, config_of, env_of, request
from worker.app import make_app, publish
from worker.client import Client
from worker.connections import ServiceUnavailableError
from worker.local.services import LocalServices
from worker.serve.engine import Engine
from worker.settings import queue_of

TICK_S = 0.05
ORDERS_AT_ONCE = 3
LONGEST_WAIT_S = 60.0
"""For a worker that can be struck: outages of services come between."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a campaign came to."""

    scale: Scale
    struck: list[Struck]
    unmet: int
    """Kills that were ordered or planned, and met no one."""
    runs: list[str]
    verdict: Verdict
    recovery_s: dict[str, list[float]]
    """Kind of fault -> from it to the next sign of life of the run it met; of an outage, of any run after its end."""
    drain_exits: list[int]
    wall_s: float


class Campaign:
    """Everything that runs during one."""

    def __init__(self, scale: Scale, services: LocalServices, proxy: FaultProxy, folder: Path) -> None:
        self.scale = scale
        self.services = services
        self.proxy = proxy
        self.rng = random.Random(f"victims/{scale.seed}")
        of_scale = {"model": scale.model, "scripted_delay_s": scale.scripted_delay_s, "lease_s": scale.lease_s}
        max_attempts = 100_000  # no run here is poison, however often it is struck
        env = env_of(services, 0, **{**SETTINGS, **of_scale, "max_attempts": max_attempts})
        self.client = Client(config_of(env))
        self.engine = Engine(config_of({**env, "AUTOSEQ_SCRIPTED_DELAY_S": "0"}))
        self.fleet = Fleet(scale.workers, {**env, "AUTOSEQ_S3_ENDPOINT": proxy.endpoint}, folder)
        self.struck: list[Struck] = []
        self.unmet = 0
        self.runs: list[str] = []
        self.is_over = threading.Event()
        self.stop = threading.Event()
        """A run failed, or something here did: then there is no need for more faults."""
        self._names = (f"run-{scale.seed}-{number:05d}" for number in itertools.count())
        self._next = next(self._names)

    def note(self, kind: str, run_id: str = "") -> None:
        self.struck.append(Struck(kind=kind, at=time.time(), run_id=run_id))

    # What befalls the workers: in a thread of its own, so that it goes on while a service is away.

    def storm(self) -> None:
        """Every fault of the workers, with the fleet tended and busy; then until nothing is left of any run."""
        for fault in faults.worker_faults(self.scale):
            if self.stop.is_set():
                break
            self._pass(fault.pause_s)
            self._wait_until(self._can_strike(fault), LONGEST_WAIT_S + self.scale.redis_outage_s)
            self._strike(fault.kind)
        self._wait_until(lambda: not self.fleet.orders, LONGEST_WAIT_S)
        self.unmet += self.fleet.withdraw_orders()
        while not self.is_over.is_set() and not self.stop.is_set():
            self._pass(TICK_S)
        deadline = time.monotonic() + self.scale.longest_end_s
        while self._unsettled() and time.monotonic() < deadline:
            self.fleet.tend()  # also once all have ended: what a killed worker left unacknowledged needs a living one
            time.sleep(TICK_S)

    def _pass(self, seconds: float) -> None:
        """Let so much time pass, with the fleet tended and loaded."""
        until = time.monotonic() + seconds
        while True:
            self.fleet.tend()
            self._load()
            if time.monotonic() >= until:
                return
            time.sleep(TICK_S)

    def _wait_until(self, holds: Callable[[], bool], longest_s: float) -> None:
        until = time.monotonic() + longest_s
        while not holds() and time.monotonic() < until and not self.stop.is_set():
            self._pass(TICK_S)

    def _can_strike(self, fault: Fault) -> Callable[[], bool]:
        if fault.kind == faults.DUPLICATE:
            return lambda: bool(self.runs)
        if fault.kind in faults.KILLS[2:]:
            return lambda: self.fleet.orders < ORDERS_AT_ONCE and not self.fleet.is_ordered(fault.kind)
        return lambda: bool(self.fleet.busy())

    def _strike(self, kind: str) -> None:
        if kind in faults.KILLS[2:]:
            self.fleet.order(kind)
        elif kind == faults.DUPLICATE:
            self._duplicate()
        elif not self.fleet.busy():
            self.unmet += 1
        else:
            victim = self.rng.choice(self.fleet.busy() or self.fleet.victims)
            self.note(kind, victim.run_id)
            if kind == faults.DRAIN:
                victim.drain()
            elif kind == faults.FREEZE:
                victim.freeze(self.scale.freeze_s)
            elif kind == "kill child":
                victim.kill_child()
            else:
                victim.kill()

    def _duplicate(self) -> None:
        """Publish the message of one of the last runs once more: one that waits, runs, or has ended."""
        run_id = self.rng.choice(self.runs[-10:])
        queue = queue_of(self.client.config.served_model)
        with self._away(), make_app(self.client.config, reads_results=False).connection_for_write() as connection:
            publish(self.client.app, request(run_id, recipe_of(run_id)), queue, connection)
            self.note(faults.DUPLICATE, run_id)

    def _load(self) -> None:
        """Keep one run more than there are workers."""
        with self._away():
            while self.client.redis.zcard("autoseq:runs:open") < self.scale.workers + 1:
                self.client.submit(recipe_of(self._next), run_id=self._next)
                self.runs.append(self._next)
                self._next = next(self._names)
                if any(run.state == "failed" for run in self.client.list()):
                    self.stop.set()

    @contextlib.contextmanager
    def _away(self) -> Iterator[None]:
        """A service that is away just now: the same will be tried again."""
        with contextlib.suppress(ServiceUnavailableError, RedisError, OperationalError, StoreUnavailableError, OSError):
            yield

    def _unsettled(self) -> bool:
        """Whether a run is open, or anything is left of one that has ended."""
        with self._away():
            return bool(kept(self.client.redis))
        return True

    # What befalls the services: in the main thread, with which they live.

    def break_services(self) -> None:
        for fault in faults.service_faults(self.scale):
            if self.stop.is_set():
                break
            time.sleep(fault.pause_s)
            self._break(fault)
            self.note(fault.kind)
        self.is_over.set()

    def _break(self, fault: Fault) -> None:
        services = self.services
        match fault.kind:
            case faults.REDIS_RESTART | faults.REDIS_OUTAGE:
                services.kill_redis()
                time.sleep(fault.lasts_s)
                services.restart_redis()
            case faults.REDIS_PAUSE:
                process = self.client.redis.info("server")["process_id"]
                os.kill(process, signal.SIGSTOP)
                time.sleep(fault.lasts_s)
                os.kill(process, signal.SIGCONT)
            case faults.S3_RESTART:
                services.kill_s3()
                services.restart_s3()
            case _:
                self.proxy.mode = next(mode for mode in faults.PROXY_MODES if fault.kind.endswith(mode))
                time.sleep(fault.lasts_s)
                self.proxy.mode = "clear"


def run_campaign(scale: Scale, folder: Path) -> Outcome:
    """The whole of one campaign, over fresh servers in `folder`."""
    began = time.monotonic()
    with (
        LocalServices.start(folder / "services") as services,
        FaultProxy(int(services.env()["AUTOSEQ_S3_ENDPOINT"].rpartition(":")[2]), seed=scale.seed) as proxy,
    ):
        campaign = Campaign(scale, services, proxy, folder / "fleet")
        with campaign.client, ThreadPoolExecutor(1) as beside:
            try:
                storm = beside.submit(campaign.storm)
                storm.add_done_callback(lambda _storm: campaign.stop.set())
                campaign.break_services()
                storm.result()
                judge = Judge(
                    campaign.client.redis,
                    campaign.client.objects,
                    PREFIX,
                    lambda run_id: undisturbed_run(run_id, campaign.engine),
                )
                verdict = judge.judge(campaign.runs)
            finally:
                campaign.stop.set()
                wait([storm])
                campaign.fleet.stop()
            struck = sorted([*campaign.struck, *campaign.fleet.struck()], key=lambda one: one.at)
            return Outcome(
                scale=scale,
                struck=struck,
                unmet=campaign.unmet,
                runs=campaign.runs,
                verdict=verdict,
                recovery_s=recoveries(struck, {run_id: judge.events(run_id) for run_id in campaign.runs}),
                drain_exits=campaign.fleet.drain_exits,
                wall_s=time.monotonic() - began,
            )
