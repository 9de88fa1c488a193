"""The flag with which a worker's parent process asks its child to hand its run back."""

import os
import time
from pathlib import Path

from worker.serve.temp_folder import TempFolder

DRAIN_VARIABLE = "AUTOSEQ_DRAIN_FLAG"
POLL_S = 0.1


class DrainFlag:
    """A file that exists while the worker drains.

    Celery notifies only the parent process of a shutdown; the child finds the file through its environment.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    @property
    def folder(self) -> Path | None:
        """The folder that a parent shares with its children; None if there is no parent."""
        return self._path.parent if self._path else None

    @staticmethod
    def create() -> "DrainFlag":
        """A new, lowered flag in a new TempFolder; child processes find it with `inherited`."""
        path = TempFolder.create().path / "drain"
        os.environ[DRAIN_VARIABLE] = str(path)
        return DrainFlag(path)

    @staticmethod
    def inherited() -> "DrainFlag":
        """The parent's flag; a flag that is never raised if the parent has none."""
        name = os.environ.get(DRAIN_VARIABLE)
        return DrainFlag(Path(name) if name else None)

    def raise_(self) -> None:
        """Ask the child to hand its run back."""
        if self._path:
            self._path.touch()

    def wait(self, timeout_s: float) -> None:
        """Wait until the flag is raised, for at most `timeout_s`."""
        until = time.monotonic() + timeout_s
        while not self.is_raised and time.monotonic() < until:
            time.sleep(POLL_S)

    def remove(self) -> None:
        """Lower the flag."""
        if self._path:
            self._path.unlink(missing_ok=True)

    @property
    def is_raised(self) -> bool:
        return self._path is not None and self._path.exists()
