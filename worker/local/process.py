"""A server as a child process that logs to a file and ends with its parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 3.0
TAIL_LINES = 15

# Runs in the child before the program. It asks the kernel to signal the program when its parent ends, even by SIGKILL.
# A preexec_fn could deadlock in a process with threads.
_LAUNCHER = """
import os, sys
if sys.platform == "linux":
    import ctypes
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(sys.argv[2]), 0, 0, 0)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[3], sys.argv[3:])
"""


class LocalServiceError(RuntimeError):
    """A local server can't be started. The message has its name, the reason and what to do."""


def bound_to_parent(command: Sequence[str], number: int = signal.SIGKILL) -> list[str]:
    """A command that runs `command` and sends it the signal `number` when the thread that starts it ends."""
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), str(int(number)), *command]


class ServerProcess:
    """One server, which can be started and stopped repeatedly."""

    def __init__(
        self, name: str, command: Sequence[str], *, log: Path, cwd: Path, env: Mapping[str, str], lock_fd: int
    ) -> None:
        self.name = name
        self.command = command
        self.log = log
        self.cwd = cwd
        self.env = env
        self.lock_fd = lock_fd
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start without waiting. Call this from the main thread: the server ends with the calling thread."""
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - a fixed command line, without a shell
                bound_to_parent(self.command),  # both servers keep their data when they are killed
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.cwd,
                env=dict(self.env),
                pass_fds=[self.lock_fd],  # the lock is held until the last server has ended
                start_new_session=True,  # Ctrl-C must not stop a server that the worker still needs
            )

    def wait_until(self, answers: Callable[[], bool]) -> None:
        """Return once `answers()`. Raises LocalServiceError when the server ends or START_TIMEOUT_S passes first."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not answers():
            if self._process is None or self._process.poll() is not None:
                raise LocalServiceError(f"{self.name} ended while it was starting; {log_tail(self.log)}")
            if time.monotonic() > deadline:
                raise LocalServiceError(
                    f"{self.name} did not answer within {START_TIMEOUT_S:.0f} s; {log_tail(self.log)}"
                )
            time.sleep(0.02)

    def stop(self) -> None:
        """Terminate the server, and kill it after STOP_TIMEOUT_S."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """Kill the server, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def log_tail(log: Path) -> str:
    """The last lines of a log, for an error message."""
    lines = log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
    return "\n  ".join([f"the end of {log}:", *lines])
