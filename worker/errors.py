"""Exceptions that end the work on a run before its manifest, and the exit codes of a worker."""

# The exceptions are control flow, except for what clients see.
# ruff: noqa: N818 - the names say what happened; Celery stores them

BAD_CONFIGURATION, UNAVAILABLE = 2, 3
"""Exit codes of a worker that can't start: as it is configured, in which case a new start does not help; or as Redis or
S3 can't be used. They have the same meaning in `autoseq`, and the first one in `celery`."""
EXIT_UNHEALTHY = 78
"""The exit code of a worker that ended after too many faults: EX_CONFIG of sysexits.h."""


class RunEnded(Exception):
    """The work on a run ended before its manifest.

    RunEnded
    ├── RunFailed
    ├── ClaimLost
    └── RunStopped
        ├── RunCancelled
        └── RunHandedBack
            ├── RunNotServable
            └── WorkerFaulty
    """


class RunFailed(RunEnded):
    """The run can't succeed; the message says why."""


class ClaimLost(RunEnded):
    """Another worker has the run or has completed it; this one stops and reports nothing."""


class RunStopped(RunEnded):
    """The run was stopped between two events; the steps that it completed are committed."""


class RunCancelled(RunStopped):
    """A client cancelled the run."""


class RunHandedBack(RunStopped):
    """This worker shuts down; another one continues the run."""


class RunNotServable(RunHandedBack):
    """This worker has other model weights, or can't read a record of a newer release; another worker may continue."""


class WorkerFaulty(RunHandedBack):
    """This worker can't complete any run: its access to S3, its disk, its model or its device failed.

    Args:
        message: what failed.
        is_lasting: whether only a new process can recover.
    """

    def __init__(self, message: str, *, is_lasting: bool = False) -> None:
        super().__init__(message)
        self.is_lasting = is_lasting
