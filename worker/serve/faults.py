"""Faults of the worker itself, not of its runs: recognised, counted, and reported to the parent process."""

import errno
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from celery.exceptions import Ignore
from celery.utils.dispatch import Signal

from core.model_folder import ModelFolderError
from storage.errors import StoreAccessError
from worker.errors import WorkerFaulty
from worker.jobs.inputs import InputError
from worker.serve.device_errors import is_device_fault

log = logging.getLogger(__name__)

MAX_IN_A_ROW: Final = 3
"""After so many faults in a row the worker ends."""
LONGEST_PAUSE_S: Final = 60.0
DISK_ERRORS: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE}
)

unhealthy = Signal(name="unhealthy", providing_args=["reason"])
"""Sent in the parent process when the child has had too many faults."""


class WorkerUnhealthy(Ignore):
    """Asks the parent process to end this worker. The run was given back before."""


def fault_of(error: Exception) -> WorkerFaulty | None:
    """The fault of the worker that `error` shows; None if the run may be its cause."""
    if isinstance(error, WorkerFaulty):
        return error
    if is_device_fault(error):
        return WorkerFaulty(f"this worker's device failed: {error}", is_lasting=True)
    what = _what_failed(error)
    return WorkerFaulty(f"{what}: {str(error) or type(error).__name__}") if what else None


def _what_failed(error: Exception) -> str | None:
    match error:
        case StoreAccessError():
            return "this worker has no access to the bucket of the runs"
        case ModelFolderError():
            return "this worker's model can't be used"
        case OSError(errno=number) if number in DISK_ERRORS:
            return "this worker's disk or its limits failed"
        case RuntimeError() if "can't start new thread" in str(error):
            return "this worker may start no more threads"
        case InputError(__cause__=OSError() as cause):
            return _what_failed(cause)
    return None


@contextmanager
def loading_model() -> Iterator[None]:
    """Raises WorkerFaulty for any error of the model's loading, since no run has a part in it."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, ImportError, AssertionError, MemoryError) as error:
        what = f"this worker can't load its model: {type(error).__name__}: {error}"
        raise WorkerFaulty(what, is_lasting=True) from error


class FaultCount:
    """The faults of a worker in a row, since its last successful run. Its child processes share them.

    Args:
        folder: of the file with the faults, which a new child continues and the parent reads; None for a process that
            has neither. A disk that fails costs only what other processes would read.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._path = folder / "faults.json" if folder else None
        self._reasons = self.reasons()

    def reasons(self) -> list[str]:
        """The faults in the file, also those that another process added."""
        try:
            return list(json.loads(self._path.read_text())) if self._path else []
        except (FileNotFoundError, ValueError):
            return []

    def add(self, fault: WorkerFaulty) -> bool:
        """Count a fault. Returns whether the worker should end."""
        self._reasons.append(str(fault))
        if self._path:
            part = self._path.with_suffix(".part")
            try:
                part.write_text(json.dumps(self._reasons))
                part.replace(self._path)
            except OSError as error:
                log.warning("the faults of this worker can't be written: %s", error)
        return len(self._reasons) >= MAX_IN_A_ROW

    def clear(self) -> None:
        """Start again, after a run that succeeded."""
        if self._reasons and self._path:
            self._path.unlink(missing_ok=True)
        self._reasons = []

    def pause_s(self, first_s: float) -> float:
        """How long to take no run after the last fault: `first_s` after the first, then twice as long each time."""
        return min(first_s * 2.0 ** (len(self._reasons) - 1), LONGEST_PAUSE_S)


def report_unhealthy(error: BaseException) -> None:
    """Called in the parent process with the exception that ended a task in the child."""
    error = getattr(error, "exc", error)  # billiard wraps it
    if isinstance(error, WorkerUnhealthy):
        unhealthy.send(sender=None, reason=str(error))
