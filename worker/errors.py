"""How a run can end, or be left, other than well."""

# ruff: noqa: N818 - the names say what happened; "Error" would add nothing


class RunEnded(Exception):
    """A run did not get to its manifest.

    RunEnded
    ├── RunFailed          and will not: says why, in words for the user
    └── RunStopped         between two events; what was made until then is committed
        ├── RunCancelled   because someone asked for that
        └── RunHandedBack  because this worker shuts down: another goes on
    """


class RunFailed(RunEnded):
    """The run can't succeed: says why, in words for the user."""


class RunStopped(RunEnded):
    """The run was stopped between two events; what was made until then is committed."""


class RunCancelled(RunStopped):
    """Someone asked for the run to stop."""


class RunHandedBack(RunStopped):
    """This worker shuts down; another goes on with the run."""
