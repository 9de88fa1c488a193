"""Python loads this at the start of every process of a victim: it can then be killed at a marked point, or misled.

The folder CHAOS_FOLDER holds the orders: a file named as a point, whose text is who is to die (`child` or `worker`).
The first process that comes to the point takes the order, writes down that it did, and dies. A file poison/RUN there
holds a step: whoever is about to store that step of that run dies. A file hunger/RUN holds a step, too: whoever begins
it takes all the memory that it can get, each time, or `once`. The file CHAOS_CLOCK holds how many seconds the wall
clock is off; the monotonic clock is not. Without the variables nothing happens, and nothing of the product knows of it:
the points are put around its methods as they are imported.
"""

import datetime
import functools
import importlib.machinery
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

# module -> (class, method, the points around it, how to find the run in its arguments)
MARKED: dict[str, list[tuple[str, str, str, Callable[..., str]]]] = {
    "storage.journal": [
        ("Journal", "put_of_step", "upload", lambda journal, *_: journal.run_id),
        ("Journal", "commit", "commit", lambda journal, *_: journal.run_id),
        ("Journal", "write_manifest", "manifest", lambda journal, *_: journal.run_id),
    ],
    "worker.serve.run_reporter": [
        ("RunReporter", "ended", "finish", lambda reporter, *_: reporter.run_id),
        ("RunReporter", "event", "event", lambda reporter, *_: reporter.run_id),
    ],
    # Of the worker's parent process: the broker's record that a message is under way, and its end.
    "kombu.transport.redis": [
        ("QoS", "append", "claim", lambda _qos, message, *_: message.headers["id"]),
        ("QoS", "ack", "ack", lambda qos, tag: qos._delivered[tag].headers["id"] if tag in qos._delivered else ""),
    ],
    # Not to kill, but to know which worker has which run.
    "worker.serve.delivery": [("Delivery", "run_to_completion", "", lambda delivery: delivery.request.run_id)],
}
OF_PARENT = ("claim", "ack")
PART_BYTES, MOST_PARTS = 2**24, 128
"""What is taken at a time, and how often; more than 2 GiB is never taken, if the limit under test does not hold."""
LOOK_INTERVAL_S = 1.0


class Points:
    """The marked points of this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def strike(self, side: str, name: str, run_id: str) -> None:
        """Die here, when that is the order."""
        point = f"{side}-{name}"
        taken = self.folder / "taken" / f"{point}.{os.getpid()}"
        try:
            (self.folder / "orders" / point).rename(taken)
        except FileNotFoundError:
            return
        who = taken.read_text()
        line = json.dumps({"kind": f"kill {who} {point}", "at": time.time(), "run_id": run_id}) + "\n"
        with (self.folder / "struck").open("a") as struck:
            struck.write(line)
        if who == "worker":
            os.killpg(os.getpgid(os.getpid() if name in OF_PARENT else os.getppid()), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    def poison(self, run_id: str, step: int) -> None:
        """Die here, when this step of this run is deadly."""
        deadly = self.folder / "poison" / run_id
        if deadly.exists() and int(deadly.read_text()) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def starve(self, run_id: str, step: int) -> None:
        """Take all memory, when this step of this run is hungry."""
        hungry = self.folder / "hunger" / run_id
        wanted, *once = hungry.read_text().split() if hungry.exists() else ["0"]
        if int(wanted) == step:
            if once:
                hungry.unlink()
            hoard = [bytes([number]) * PART_BYTES for number in range(MOST_PARTS)]
            raise AssertionError(f"there is no limit to memory here: {len(hoard)} parts were had")

    def marked(self, method: Callable[..., Any], name: str, run_of: Callable[..., str]) -> Callable[..., Any]:
        """The method between its two points."""

        @functools.wraps(method)
        def around(*args: Any, **kwargs: Any) -> Any:
            run_id = run_of(*args)
            if name == "upload":
                self.poison(run_id, args[1])
            if name == "event":
                result = method(*args, **kwargs)
                if type(args[1]).__name__ == "StepStarted":
                    self.starve(run_id, args[1].step.number)
                return result
            self.strike("before", name, run_id)
            result = method(*args, **kwargs)
            self.strike("after", name, run_id)
            return result

        return around

    def noted(self, method: Callable[..., Any], run_of: Callable[..., str]) -> Callable[..., Any]:
        """The method; while it runs, a file named as the worker says which run it serves."""

        @functools.wraps(method)
        def around(*args: Any, **kwargs: Any) -> Any:
            note = self.folder / "serving" / str(os.getppid())
            note.write_text(run_of(*args))
            try:
                return method(*args, **kwargs)
            finally:
                note.unlink(missing_ok=True)

        return around


class Marker:
    """Finds modules as ever, and puts the points into those that have some as soon as they are executed."""

    def __init__(self, points: Points) -> None:
        self.points = points

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in MARKED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        loader: Any = spec.loader if spec else None
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            for owner, method, name, run_of in MARKED[fullname]:
                made = getattr(module, owner)
                before = getattr(made, method)
                after = self.points.marked(before, name, run_of) if name else self.points.noted(before, run_of)
                setattr(made, method, after)

        loader.exec_module = exec_module
        return spec


def end_with(campaign: int) -> None:
    """A worker whose campaign is gone, however it went, ends with its whole process group."""
    while os.getppid() == campaign:
        time.sleep(LOOK_INTERVAL_S)
    os.killpg(os.getpid(), signal.SIGKILL)


def mislead(file: Path) -> None:
    """From now on the wall clock is off by what `file` says, at any time."""
    true_time, true_datetime = time.time, datetime.datetime

    def off() -> float:
        return float(file.read_text() or 0)

    class AnyDatetime(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, true_datetime)

    class Datetime(true_datetime, metaclass=AnyDatetime):  # type: ignore[misc, valid-type]  # a class all the same
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return true_datetime.now(tz) + datetime.timedelta(seconds=off())

        @classmethod
        def utcnow(cls) -> Any:
            return cls.now(datetime.UTC).replace(tzinfo=None)

    time.time = lambda: true_time() + off()
    time.time_ns = lambda: round(time.time() * 1e9)
    datetime.datetime = Datetime  # type: ignore[misc]  # whoever imports it from now on gets this one


if "CHAOS_CLOCK" in os.environ:
    mislead(Path(os.environ["CHAOS_CLOCK"]))
if "CHAOS_FOLDER" in os.environ:
    if os.getpid() == os.getpgid(0):  # the worker's parent process
        threading.Thread(target=end_with, args=[os.getppid()], daemon=True).start()
    sys.meta_path.insert(0, Marker(Points(Path(os.environ["CHAOS_FOLDER"]))))
