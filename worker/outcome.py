"""How a run can end other than well."""

# ruff: noqa: N818 - the names say what happened; "Error" would add nothing


class RunEnded(Exception):
    """A run did not get to its manifest.

    RunEnded
    ├── RunFailed      and will not: says why, in words for the user
    └── RunCancelled   because someone asked for that; what was committed is kept
    """


class RunFailed(RunEnded):
    """The run can't succeed: says why, in words for the user."""


class RunCancelled(RunEnded):
    """Someone asked for the run to stop; what was committed is kept."""
