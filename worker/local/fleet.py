"""Celery workers as child processes, one for each GPU, started, monitored and stopped together."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from types import FrameType
from typing import Final, Self

from worker.cores import available_cores
from worker.errors import BAD_CONFIGURATION
from worker.local.process import LocalServiceError, bound_to_parent, log_tail
from worker.settings import Settings

log = logging.getLogger(__name__)

POLL_S = 0.05
STOP_TIMEOUT_S = 5.0
VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True, kw_only=True)
class RestartPolicy:
    """When a worker that ended is started again."""

    first_pause_s: float = 1.0
    """The pause after an early end. Each further one in a row doubles it."""
    longest_pause_s: float = 30.0
    early_s: float = 60.0
    """An end is early if the worker ran for less than this."""
    max_early_ends: int = 8
    """After so many early ends in a row the worker isn't started again. By then it was tried for 90 s or more."""

    def pause_s(self, early_ends: int) -> float:
        return min(self.first_pause_s * 2.0 ** max(early_ends - 1, 0), self.longest_pause_s)


class FleetWorker:
    """One worker, which can be started repeatedly."""

    def __init__(self, name: str, args: Sequence[str], env: Mapping[str, str], log: Path | None) -> None:
        self.name = name
        self._args = args
        self._env = env
        self._log = log
        self._early_ends = 0
        self._start_at: float | None = None
        self.start()

    def start(self) -> None:
        self._start_at = None
        self._started = time.monotonic()
        with self._log.open("ab") if self._log else nullcontext() as output:
            self.process = subprocess.Popen(  # noqa: S603 - a fixed command line, without a shell
                self._args,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # this process forwards Ctrl-C; a second one stops celery at once
            )

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def kill(self) -> None:
        """Kill what is left of the worker: it leads its session, and a child may outlive it and hold the GPU."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def supervise(self, policy: RestartPolicy) -> bool:
        """Start the worker again once it ended by itself, when it is due. False if it isn't started again."""
        if not self.has_ended:
            return True
        now = time.monotonic()
        if self._start_at is None:
            self.kill()
            pause_s = self._pause_s(now, policy)
            if pause_s is None:
                return False
            self._start_at = now + pause_s
        elif now >= self._start_at:
            self.start()
        return True

    def _pause_s(self, now: float, policy: RestartPolicy) -> float | None:
        """The pause before the next start; None if there is none."""
        code = self.process.returncode
        if code == 0:  # it was asked to: by `celery control shutdown`, or by a signal to it alone
            return None
        self._early_ends = self._early_ends + 1 if now - self._started < policy.early_s else 0
        if code == BAD_CONFIGURATION:
            log.error(
                "%s ended with exit code %d: it is not started again, as its configuration is wrong", self.name, code
            )
        elif self._early_ends >= policy.max_early_ends:
            log.error(
                "%s ended with exit code %d, %d times in a row within %g s: it is not started again",
                self.name,
                code,
                self._early_ends,
                policy.early_s,
            )
        else:
            pause_s = policy.pause_s(self._early_ends)
            log.warning("%s ended with exit code %d; it starts again in %g s", self.name, code, pause_s)
            return pause_s
        return None


class WorkerFleet:
    """One worker for each GPU of `gpus`, pinned to it; a single unpinned worker if `gpus` is empty.

    Args:
        env: environment of the workers.
        gpus: their numbers; if CUDA_VISIBLE_DEVICES is set, as by SLURM, their places in it, from 0.
        options: more options for `celery worker`.
        log: file for their output; by default they write to the output of this process.
        orphan_signal: signal that the workers get when this process ends without stopping them. On SIGTERM they hand
            their run back, which needs Redis.

    Raises:
        LocalServiceError: a worker can't be pinned to its GPU. No worker is started.
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
        if log:
            log.write_bytes(b"")
        pins: Sequence[int | None] = gpus or [None]
        shared = with_thread_share(env, len(pins))
        environments = [environment(shared, gpu) for gpu in pins]
        self._workers = [
            FleetWorker(
                "the worker" if gpu is None else f"the worker on GPU {gpu}",
                bound_to_parent(command(gpu, options), orphan_signal),
                environment_of_worker,
                log,
            )
            for gpu, environment_of_worker in zip(pins, environments, strict=True)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(STOP_TIMEOUT_S)

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers."""
        return [worker.process.pid for worker in self._workers]

    def send(self, number: int) -> None:
        """Send a signal to the workers that are running."""
        for worker in self._workers:
            if not worker.has_ended:
                worker.process.send_signal(number)

    def ended(self) -> bool:
        """Whether all workers have ended."""
        return all(worker.has_ended for worker in self._workers)

    def supervise(self, signals: list[int], policy: RestartPolicy) -> int:
        """Start workers again that end by themselves, until all are at their end.

        Args:
            signals: signals that this process received, in order; they are forwarded. After the first one no worker is
                started again.
            policy: when they are started again.

        Returns:
            The highest of the workers' last exit codes; a signal counts as 128 plus its number.
        """
        supervised, stopping = list(self._workers), False
        while not self.ended() or (supervised and not stopping):
            while signals:
                stopping = True
                self.send(signals.pop(0))
            if not stopping:
                supervised = [worker for worker in supervised if worker.supervise(policy)]
            time.sleep(POLL_S)
        codes = [worker.process.returncode for worker in self._workers]
        return max(128 - code if code < 0 else code for code in codes)

    def check(self) -> None:
        """Raise LocalServiceError, with the end of the log, if a worker has ended."""
        for worker in self._workers:
            if worker.has_ended:
                tail = f"; {log_tail(self.log)}" if self.log else ""
                raise LocalServiceError(f"the worker ended with exit code {worker.process.returncode}{tail}")

    def stop(self, timeout_s: float) -> None:
        """Terminate the workers, and kill them after `timeout_s`; a running run then loses only its current step."""
        self.send(signal.SIGTERM)
        deadline = time.monotonic() + timeout_s
        try:
            while not self.ended() and time.monotonic() < deadline:
                time.sleep(POLL_S)
        finally:  # also after a second Ctrl-C
            for worker in self._workers:
                if not worker.has_ended:
                    worker.kill()
                    worker.process.wait()


def command(gpu: int | None, options: Sequence[str]) -> list[str]:
    """The command line of one worker."""
    given = {option.partition("=")[0] for option in options}
    level = [] if given & {"-l", "--loglevel"} else ["--loglevel", "INFO"]
    name = [] if gpu is None or given & {"-n", "--hostname"} else ["--hostname", f"gpu{gpu}@%h"]
    return [sys.executable, "-m", "celery", "-A", "worker", "worker", *level, *name, *options]


def environment(env: Mapping[str, str], gpu: int | None) -> dict[str, str]:
    """The environment of one worker. Raises LocalServiceError if it can't be pinned to `gpu`."""
    return dict(env) if gpu is None else {**env, VISIBLE: _visible(env, gpu), "AUTOSEQ_DEVICE": _pinned_device()}


def _visible(env: Mapping[str, str], gpu: int) -> str:
    """The entry of GPU number `gpu` in VISIBLE: a number, or the UUID of a GPU or of a MIG instance."""
    inherited = env.get(VISIBLE)
    if inherited is None:
        return str(gpu)
    entries = [entry.strip() for entry in inherited.split(",")]
    visible = list(takewhile(lambda entry: entry not in {"", "-1", "NoDevFiles"}, entries))  # as CUDA reads it
    if gpu >= len(visible):
        raise LocalServiceError(
            f"there is no GPU {gpu}: {VISIBLE} is {inherited!r}, and --gpus counts its {len(visible)} entries from 0"
        )
    return visible[gpu]


def _pinned_device() -> str:
    """The device of a worker that sees one GPU. It never falls back to the CPU, as torch would without a driver."""
    config = Settings()
    if config.device not in {None, "cuda", "cuda:0"}:
        raise LocalServiceError(
            f"AUTOSEQ_DEVICE is {config.device}, and --gpus pins each worker to a GPU of its own, its cuda:0: use one"
        )
    if config.gpus:
        raise LocalServiceError(
            f"AUTOSEQ_GPUS spreads a model over the GPUs {', '.join(map(str, config.gpus))}, and --gpus pins each "
            "worker to one: use one"
        )
    return "cuda"


def with_thread_share(env: Mapping[str, str], workers: int) -> Mapping[str, str]:
    """The environment of each of several workers, which share the cores; a number of threads that is set holds."""
    if workers == 1 or Settings().threads or any(name in env for name in ("AUTOSEQ_THREADS", "OMP_NUM_THREADS")):
        return env
    return {**env, "AUTOSEQ_THREADS": str(max(1, available_cores() // workers))}


def serve(
    env: Mapping[str, str], *, gpus: Sequence[int], options: Sequence[str], policy: RestartPolicy | None = None
) -> int:
    """Run workers until this process gets a signal to end, or none is left. Returns the highest exit code."""
    received: list[int] = []
    with signals_to(lambda number, _frame: received.append(number)):
        fleet = WorkerFleet(env, gpus=gpus, options=options)
        return fleet.supervise(received, policy or RestartPolicy())


@contextmanager
def signals_to(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Handle the signals that end a process with `handler` within this context."""
    before = {number: signal.signal(number, handler) for number in FORWARDED}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
