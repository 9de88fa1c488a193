"""The health file: a worker's own state for a liveness or readiness probe, which must not depend on any service."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from storage.redis.workers import WorkerState

STALE_S: Final = 90.0
"""Age of the file at which the worker counts as dead: longer than its thread can wait for any service."""
NOT_READY: Final[Mapping[WorkerState, str]] = {
    "starting": "the worker loads its model",
    "draining": "the worker shuts down",
}


@dataclass(frozen=True, kw_only=True)
class Health:
    """What a worker says of itself."""

    state: WorkerState
    reason: str = ""
    """Why it is unhealthy."""
    unavailable: str = ""
    """The service that could not be used, and why; empty when all can."""
    at: float = 0.0
    """In unix seconds, for people."""
    monotonic_s: float = 0.0
    """The same moment by the machine's monotonic clock, which all its processes share."""
    pid: int = 0

    def write(self, path: Path) -> None:
        """Replace the file atomically. Raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        part.write_text(json.dumps(asdict(self)))
        part.replace(path)


def problem_of(path: Path, *, ready: bool, monotonic_s: float | None = None) -> str | None:
    """Why the worker with this health file is not alive, or with `ready` not ready for runs; None if it is."""
    try:
        health = Health(**json.loads(path.read_text()))
        age_s = (time.monotonic() if monotonic_s is None else monotonic_s) - health.monotonic_s
    except FileNotFoundError:
        return f"{path}: no such file; the worker has not started or has ended"
    except (OSError, ValueError, TypeError) as error:
        return f"{path}: can't be read: {error}"
    if not 0 <= age_s < STALE_S:
        return f"the worker's last sign of life in {path} is not from the last {STALE_S:g} s"
    if health.state == "unhealthy":
        return f"the worker is unhealthy: {health.reason}"
    if ready and health.state in NOT_READY:
        return NOT_READY[health.state]
    return health.unavailable or None if ready else None
