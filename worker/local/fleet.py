"""Celery workers as child processes, one for each GPU, started, monitored and stopped together."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Self

from worker.local.process import LocalServiceError, bound_to_parent, log_tail

POLL_S = 0.05
STOP_TIMEOUT_S = 5.0
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class WorkerFleet:
    """One worker for each GPU of `gpus`, pinned to it; a single unpinned worker if `gpus` is empty.

    Args:
        env: environment of the workers.
        gpus: CUDA device numbers.
        options: more options for `celery worker`.
        log: file for their output; by default they write to the output of this process.
        orphan_signal: signal that the workers get when this process ends without stopping them. On SIGTERM they hand
            their run back, which needs Redis.
    """

    def __init__(
        self,
        env: Mapping[str, str],
        *,
        gpus: Sequence[int] = (),
        options: Sequence[str] = (),
        log: Path | None = None,
        orphan_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.log = log
        output = log.open("wb") if log else None
        pins: Sequence[int | None] = gpus or [None]
        try:
            self._processes = [
                subprocess.Popen(  # noqa: S603 - a fixed command line, without a shell
                    bound_to_parent(command(gpu, options), orphan_signal),
                    env=environment(env, gpu),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,  # this process forwards Ctrl-C; a second one stops celery at once
                )
                for gpu in pins
            ]
        finally:
            if output:
                output.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(STOP_TIMEOUT_S)

    def send(self, number: int) -> None:
        """Send a signal to the workers that are running."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)

    def ended(self) -> bool:
        """Whether all workers have ended."""
        return all(process.poll() is not None for process in self._processes)

    def wait(self) -> int:
        """Wait for all workers to end. Returns the highest exit code; a signal counts as 128 plus its number."""
        for process in self._processes:
            process.wait()
        return max(128 - code if (code := process.returncode) < 0 else code for process in self._processes)

    def check(self) -> None:
        """Raise LocalServiceError, with the end of the log, if a worker has ended."""
        for process in self._processes:
            if process.poll() is not None:
                tail = f"; {log_tail(self.log)}" if self.log else ""
                raise LocalServiceError(f"the worker ended with exit code {process.returncode}{tail}")

    def stop(self, timeout_s: float) -> None:
        """Terminate the workers, and kill them after `timeout_s`; a running run then loses only its current step."""
        self.send(signal.SIGTERM)
        deadline = time.monotonic() + timeout_s
        try:
            while not self.ended() and time.monotonic() < deadline:
                time.sleep(POLL_S)
        finally:  # also after a second Ctrl-C
            for process in self._processes:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)  # a worker leads its session: this kills its children too
                    process.wait()


def command(gpu: int | None, options: Sequence[str]) -> list[str]:
    """The command line of one worker."""
    given = {option.partition("=")[0] for option in options}
    level = [] if given & {"-l", "--loglevel"} else ["--loglevel", "INFO"]
    name = [] if gpu is None or given & {"-n", "--hostname"} else ["--hostname", f"gpu{gpu}@%h"]
    return [sys.executable, "-m", "celery", "-A", "worker", "worker", *level, *name, *options]


def environment(env: Mapping[str, str], gpu: int | None) -> dict[str, str]:
    """The environment of one worker."""
    pinned = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": str(gpu)}
    return {**env, **pinned}


def serve(env: Mapping[str, str], *, gpus: Sequence[int], options: Sequence[str]) -> int:
    """Run workers until they end or this process gets a signal to end. Returns the highest exit code."""
    waiting: list[int] = []
    fleet: WorkerFleet | None = None

    def forward(number: int, _frame: FrameType | None) -> None:
        if fleet is None:
            waiting.append(number)
        else:
            fleet.send(number)

    with signals_to(forward):
        fleet = WorkerFleet(env, gpus=gpus, options=options)
        for number in waiting:  # received while the workers were starting
            fleet.send(number)
        return fleet.wait()


@contextmanager
def signals_to(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Handle the signals that end a process with `handler` within this context."""
    before = {number: signal.signal(number, handler) for number in FORWARDED}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
