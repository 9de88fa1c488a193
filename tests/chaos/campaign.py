"""One campaign: servers, a fleet and its load, faults on their schedule, until all runs have ended; then the judge."""

import contextlib
import itertools
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
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
from tests.chaos.messages import Messages
from tests.chaos.outages import Outages
from tests.chaos.recovery import recoveries
from tests.chaos.victims import Fleet, Place, Struck, Victim
from tests.faults.judge import Judge, Verdict, kept
from tests.faults.proxy import FaultProxy
from tests.worker.serving import PREFIX, config_of, env_of
from worker.client import Client
from worker.connections import ServiceUnavailableError
from worker.local.services import LocalServices
from worker.serve.engine import Engine

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
    own_exits: list[int]
    """Exit codes of workers that ended though nothing had ended them."""
    wall_s: float


class Campaign:
    """Everything that runs during one."""

    def __init__(self, scale: Scale, services: LocalServices, proxies: Sequence[FaultProxy], folder: Path) -> None:
        self.scale = scale
        self.rng = random.Random(f"victims/{scale.seed}")
        of_scale = {"model": scale.model, "scripted_delay_s": scale.scripted_delay_s, "lease_s": scale.lease_s}
        max_attempts = 100_000  # no run here is poison, however often it is struck
        env = env_of(services, 0, **{**SETTINGS, **of_scale, "max_attempts": max_attempts})
        self.client = Client(config_of(env))
        self.engine = Engine(config_of({**env, "AUTOSEQ_SCRIPTED_DELAY_S": "0"}))
        self.messages = Messages(self.client, self.rng)
        self.outages = Outages(services, self.client.redis, proxies, random.Random(f"outages/{scale.seed}"))
        self.fleet = Fleet([Place(env={"AUTOSEQ_S3_ENDPOINT": proxy.endpoint}) for proxy in proxies], env, folder)
        self.struck: list[Struck] = []
        self.unmet = 0
        self.runs: list[str] = []
        self.revoked: set[str] = set()
        """Runs that may end as cancelled."""
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
        if fault.kind in faults.MESSAGES:
            return lambda: bool(self.runs)
        if fault.kind in faults.KILLS[2:]:
            return lambda: self.fleet.orders < ORDERS_AT_ONCE and not self.fleet.is_ordered(fault.kind)
        return lambda: bool(self.fleet.busy())

    def _strike(self, kind: str) -> None:
        if kind in faults.KILLS[2:]:
            self.fleet.order(kind)
        elif kind in faults.MESSAGES:
            self._send(kind)
        elif not self.fleet.busy():
            self.unmet += 1
        else:
            victim = self.rng.choice(self.fleet.busy() or self.fleet.victims)
            self.note(kind, victim.run_id)
            if kind in faults.DRAINS:
                self._drain(victim, kind)
            elif kind == faults.FREEZE:
                victim.freeze(self.scale.freeze_s)
            elif kind == "kill child":
                victim.kill_child()
            else:
                victim.kill()

    def _send(self, kind: str) -> None:
        """Something through the broker; of the last runs, as far as it means one: that waits, runs, or has ended."""
        run_id = "" if kind == faults.GARBAGE else self.rng.choice(self.runs[-10:])
        if kind == faults.REVOKE:
            self.revoked.add(run_id)
        send: dict[str, Callable[[str], None]] = {
            faults.DUPLICATE: self.messages.duplicate,
            faults.WRONG_ARGUMENTS: self.messages.wrong_arguments,
            faults.REVOKE: self.messages.revoke,
            faults.GARBAGE: lambda _run_id: self.messages.garbage(),
        }
        if self._insist(lambda: send[kind](run_id)):
            self.note(kind, run_id)

    def _drain(self, victim: Victim, kind: str) -> None:
        if kind == faults.SHUTDOWN:
            victim.has_been_asked()  # before it may end
            self._insist(lambda: self.messages.shut_down(f"{victim.name}@chaos"))
        else:
            victim.drain(signal.SIGHUP if kind == faults.HANGUP else signal.SIGTERM)

    def _insist(self, send: Callable[[], object]) -> bool:
        """Try it until no service is away. False when the campaign stops first."""
        while not self.stop.is_set():
            with self._away():
                send()
                return True
            self._pass(TICK_S)
        return False

    def _load(self) -> None:
        """Keep one run more than there are workers."""
        with self._away():
            while self.client.redis.zcard("autoseq:runs:open") < self.scale.workers + 1:
                self.client.submit(recipe_of(self._next), run_id=self._next)
                self.runs.append(self._next)
                self._next = next(self._names)
                if any(run.state == "failed" and run.run_id in self.runs for run in self.client.list()):
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
            self.outages.suffer(fault)
            self.note(fault.kind)
        self.is_over.set()


def run_campaign(scale: Scale, folder: Path) -> Outcome:
    """The whole of one campaign, over fresh servers in `folder`."""
    began = time.monotonic()
    with (
        LocalServices.start(folder / "services") as services,
        contextlib.ExitStack() as undo,
    ):
        port = int(services.env()["AUTOSEQ_S3_ENDPOINT"].rpartition(":")[2])
        seeds = range(scale.seed * scale.workers, (scale.seed + 1) * scale.workers)
        proxies = [undo.enter_context(FaultProxy(port, seed=seed)) for seed in seeds]
        campaign = Campaign(scale, services, proxies, folder / "fleet")
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
                verdict = judge.judge(campaign.runs, cancellable=campaign.revoked)
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
                own_exits=campaign.fleet.own_exits,
                wall_s=time.monotonic() - began,
            )
