"""How the work on a run ends without a manifest. Control flow, except RunFailed, which clients see."""

# ruff: noqa: N818 - the names say what happened; Celery stores them


class RunEnded(Exception):
    """The work on a run ended before its manifest.

    RunEnded
    ├── RunFailed              the run can't succeed
    ├── ClaimLost              another worker has the run
    └── RunStopped             between two events; what was made until then is committed
        ├── RunCancelled       on request
        └── RunHandedBack      this worker shuts down; another one continues
            └── RunNotServable this worker can't continue the run; another one may
    """


class RunFailed(RunEnded):
    """The run can't succeed; the message says why."""


class ClaimLost(RunEnded):
    """Another worker has the run, or has brought it to its end: this one stops and reports nothing."""


class RunStopped(RunEnded):
    """The run was stopped between two events; what was made until then is committed."""


class RunCancelled(RunStopped):
    """Someone asked for the run to stop."""


class RunHandedBack(RunStopped):
    """This worker shuts down; another one continues the run."""


class RunNotServable(RunHandedBack):
    """This worker can't continue the run: other model weights, or a record of a newer release. Another one may."""
