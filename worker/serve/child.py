"""The child process of a worker, as the parent sees it: whether it can take a run now."""

from typing import Any

_ending: set[int] = set()


def ends(pid: int) -> None:
    """The child with this process id ends after the run that it just gave back."""
    _ending.add(pid)


def is_ready(pool: Any) -> bool:  # noqa: ANN401 - Celery's TaskPool; its stubs lack the pool in it
    """Whether a child of `pool` has loaded its model. A message that is taken before would wait for it."""
    started = pool._pool._fileno_to_inq.values()  # the processes that reported to be up, which they do after loading
    return any(process.pid not in _ending for process in list(started))
