"""The workers of a campaign: real processes, each restarted as soon as it has ended."""

import itertools
import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.worker.serving import WorkerProcess
from worker.settings import PROJECT

INJECT = Path(__file__).parent / "inject"
STOP_TIMEOUT_S = UNHEARD_S = 60.0
UNAVAILABLE, UNHEALTHY = 3, 78
"""Exit codes of a worker that can't start while a service is away, and of one that met too many faults of its own."""


@dataclass(frozen=True, kw_only=True)
class Struck:
    """A fault that happened."""

    kind: str
    at: float
    """Unix seconds; of an outage, its end."""
    run_id: str = ""
    """Whom it met: a run, or several ('')."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a worker runs."""

    env: Mapping[str, str] = field(default_factory=dict)
    """What is different there."""
    inside: Sequence[str] = ()
    """A command that runs another there."""


class Victim(WorkerProcess):
    """A worker that faults are done to."""

    def __init__(self, name: str, env: Mapping[str, str], folder: Path, inside: Sequence[str] = ()) -> None:
        log = folder / "logs" / name.partition(".")[0]
        super().__init__(env, log, "-n", f"{name}@chaos", "-l", "WARNING", base=_uncovered(), inside=inside)
        self.name = name
        self._drained_at: float | None = None
        self._frozen_until = 0.0
        self._serving = folder / "serving"

    @property
    def run_id(self) -> str:
        """The run it serves; '' when there is none."""
        try:
            return (self._serving / str(self.process.pid)).read_text()
        except FileNotFoundError:
            return ""

    def freeze(self, seconds: float) -> None:
        """Stop it and its children for a while."""
        self.signal_all(signal.SIGSTOP)
        self._frozen_until = time.monotonic() + seconds

    @property
    def is_frozen(self) -> bool:
        return self._frozen_until > 0

    def thaw_when_due(self) -> None:
        if self.is_frozen and time.monotonic() >= self._frozen_until:
            self.signal_all(signal.SIGCONT)
            self._frozen_until = 0.0

    @property
    def drained(self) -> bool:
        """Whether it was asked to drain."""
        return self._drained_at is not None

    def has_been_asked(self) -> None:
        """It was asked to drain."""
        self._drained_at = time.monotonic()

    def drain(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.has_been_asked()
        self.process.send_signal(number)

    def drain_when_unheard(self) -> None:
        """Ask again: remote control does not reach a worker that has no connection to Redis at the time."""
        if self._drained_at is not None and time.monotonic() - self._drained_at > UNHEARD_S:
            self.drain()

    def forget(self) -> None:
        """Leave nothing of it once it has ended."""
        self.signal_all(signal.SIGKILL)
        (self._serving / str(self.process.pid)).unlink(missing_ok=True)


def _uncovered() -> dict[str, str]:
    """The environment of this process without the measurement of coverage, which a kill would cut off."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}


class Fleet:
    """Some workers over one folder, where orders are left for them and they leave what became of these."""

    def __init__(self, places: int | Sequence[Place], env: Mapping[str, str], folder: Path) -> None:
        for name in ("orders", "taken", "serving", "logs", "poison", "hunger"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._places = [Place()] * places if isinstance(places, int) else places
        self.folder = folder
        self.drain_exits: list[int] = []
        self.own_exits: list[int] = []
        paths = os.pathsep.join([str(INJECT), str(PROJECT)])
        self._env = {**env, "PYTHONPATH": paths, "CHAOS_FOLDER": str(folder), "OMP_NUM_THREADS": "1"}
        self._numbers = itertools.count()
        self.victims = [self._start(place) for place in range(len(self._places))]

    def _start(self, place: int) -> Victim:
        there = self._places[place]
        return Victim(f"victim{place}.{next(self._numbers)}", {**self._env, **there.env}, self.folder, there.inside)

    def tend(self) -> None:
        """Start again whoever has ended, and let go on whoever has stood still for long enough."""
        for place, victim in enumerate(self.victims):
            if victim.has_ended:
                victim.forget()
                if victim.drained:
                    self.drain_exits.append(victim.process.returncode)
                elif victim.process.returncode != -signal.SIGKILL:
                    self.own_exits.append(victim.process.returncode)
                self.victims[place] = self._start(place)
            else:
                victim.thaw_when_due()
                victim.drain_when_unheard()

    def busy(self) -> Sequence[Victim]:
        """Those that serve a run and are to go on."""
        able = [victim for victim in self.victims if not (victim.has_ended or victim.drained or victim.is_frozen)]
        return [victim for victim in able if victim.run_id]

    def order(self, kill: str) -> None:
        """Have the next process that comes to a marked point killed; `kill` as in faults.KILLS."""
        _, who, point = kill.split()
        written = self.folder / "taken" / "next"
        written.write_text(who)
        written.rename(self.folder / "orders" / point)

    def is_ordered(self, kill: str) -> bool:
        """Whether the last order for that point still waits."""
        return (self.folder / "orders" / kill.split()[2]).exists()

    @property
    def orders(self) -> int:
        """How many wait."""
        return len(list((self.folder / "orders").iterdir()))

    def withdraw_orders(self) -> int:
        """Take back those that no one came to; how many."""
        left = list((self.folder / "orders").iterdir())
        for order in left:
            order.unlink(missing_ok=True)
        return len(left)

    def struck(self) -> list[Struck]:
        """The orders that were carried out."""
        file = self.folder / "struck"
        return [Struck(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []

    def stop(self) -> list[int]:
        """Let every worker end well; their exit codes."""
        for victim in self.victims:
            if not victim.has_ended:
                victim.process.terminate()
                victim.signal_all(signal.SIGCONT)  # one that stands still would not see it
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while not all(victim.has_ended for victim in self.victims) and time.monotonic() < deadline:
            time.sleep(0.05)
        for victim in self.victims:
            victim.kill()
            victim.forget()
        return [victim.process.returncode for victim in self.victims]
