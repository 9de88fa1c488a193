"""Every object name, Redis key and time to live: the only place where names become keys."""

import re
from collections.abc import Sequence

from storage.errors import InvalidNameError

RUN_TTL_S = 7 * 24 * 3600
"""How long Redis keeps a run after its end; S3 keeps it forever. A run that has not ended does not expire."""
MODELS_TTL_S = 30 * 24 * 3600
"""How long Redis keeps announced models after the last worker started."""
MAX_EVENTS = 10_000
"""The approximate number of events that a run's stream keeps."""
MAX_SWEEP_ID_CHARS = 120
"""A run id of a sweep is the sweep id and a number (see `run_of_sweep`)."""
MAX_RECENT = 1_000
"""The maximum number of runs that `Runs.recent` can list."""

RUNS = "autoseq:runs"
"""Sorted set: run ids by the time of their submission."""
OPEN_RUNS = "autoseq:runs:open"
"""Sorted set: the ids of the runs without a final state, by the time of their submission."""
LEASES = "autoseq:leases"
"""Sorted set: the ids of the runs that have a lease, by when it expires (milliseconds of the server's clock)."""
QUEUE_SLOTS = "autoseq:lines"
"""Set: every queue slot in which runs have waited (see `queue_slot`). Release 0.1.0 reads this name."""
STARTED = "autoseq:started"
"""Hash: queue slot -> when the run that was last started from it had joined it (ms of the server's clock)."""
RECONCILER = "autoseq:reconciler"
"""The token of the elected reconciler."""
BROKER_PREFIX = "autoseq:"
"""The prefix of the keys of the broker and of Celery's results (global_keyprefix)."""
BROKER_CLAIMS = f"{BROKER_PREFIX}unacked_index"
"""Sorted set of the broker: unacknowledged messages by their last heartbeat."""
SPECS = "autoseq:specs"
"""Hash: model name -> its spec as JSON."""
MODELS = "autoseq:models"
"""Hash: model name -> its spec as release 0.1.0 reads it."""

WORKERS = "autoseq:workers"
"""Hash: worker name -> its WorkerInfo as JSON."""
WORKER_EXPIRIES = "autoseq:workers:expiries"
"""Sorted set: worker names by when their announcement expires (milliseconds of the server's clock)."""

RECIPE = "recipe.json"
MODEL = "model.json"
MANIFEST = "manifest.json"
PAGE = "index.html"
CONTACT_SHEET = "contact-sheet.png"
SWEEPS = "sweeps"
"""The folder of all sweeps, next to the folders of the runs."""
COMMITS = "commits/"

WAITING_PREFIX = "autoseq:waiting:"
"""The key of the runs that wait in a queue slot, before its name (see `waiting`)."""
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ROLE = re.compile(r"[a-z][a-z0-9-]{0,31}")
_PREFIX = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def check_run_id(text: str) -> str:
    """`text`, if it is a valid run id. Raises InvalidNameError."""
    if text == SWEEPS:
        raise InvalidNameError(f"run id {text!r}: is reserved for the folder of the sweeps")
    if not _RUN_ID.fullmatch(text):
        allowed = "1 to 128 letters, digits, dots, dashes or underscores, a letter or digit first"
        raise InvalidNameError(f"run id {text[:140]!r}: must be {allowed}")
    return text


def run_state(run_id: str) -> str:
    """Hash: the run's state."""
    return f"autoseq:run:{check_run_id(run_id)}"


def run_events(run_id: str) -> str:
    """Stream: the events of the run."""
    return f"{run_state(run_id)}:events"


def run_cancel(run_id: str) -> str:
    """Flag: cancel the run."""
    return f"{run_state(run_id)}:cancel"


def run_record(run_id: str) -> str:
    """JSON: the request, written before the run's message."""
    return f"{run_state(run_id)}:record"


def run_preview(run_id: str) -> str:
    """The number of an event, a space, and the latest preview of the images being drawn."""
    return f"{run_state(run_id)}:preview"


def run_alias(run_id: str) -> str:
    """The run that owns the idempotency key under which the message `run_id` was published."""
    return f"{run_state(run_id)}:alias"


def run_lease(run_id: str) -> str:
    """The token of the worker that may write the run."""
    return f"{run_state(run_id)}:lease"


def queue_slot(queue: str, priority: int) -> str:
    """The name of one first-in, first-out list of the broker: a queue at a priority."""
    return f"{queue}|{priority}"


def broker_list(queue_slot: str) -> str:
    """List of the broker: the messages in a queue slot; kombu's name for a queue at a priority."""
    queue, _, priority = queue_slot.rpartition("|")
    return BROKER_PREFIX + queue + (f"\x06\x16{priority}" if int(priority) else "")


def waiting(queue_slot: str) -> str:
    """Sorted set: the run ids whose message is in a queue slot, by when they joined it (ms of the server's clock)."""
    return f"{WAITING_PREFIX}{queue_slot}"


def idempotency(key: str) -> str:
    """The run id that owns an idempotency key."""
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        raise InvalidNameError(
            f"idempotency key {key[:140]!r}: must be 1 to 255 printable ASCII characters without spaces"
        )
    return f"autoseq:idempotency:{key}"


def run_folder(prefix: str, run_id: str) -> str:
    """The folder of a run's objects, with the slash: `<prefix>/<run_id>/`; an empty prefix gives `<run_id>/`."""
    return f"{_folder(prefix)}{check_run_id(run_id)}/"


def _folder(prefix: str) -> str:
    """A prefix with the slash, or an empty text."""
    if prefix and (not _PREFIX.fullmatch(prefix) or {".", ".."} & set(prefix.split("/"))):
        raise InvalidNameError(
            f"prefix {prefix!r}: must be folders of letters, digits, dots, dashes or underscores, such as a/b"
        )
    return f"{prefix}/" if prefix else ""


def check_sweep_id(text: str) -> str:
    """`text`, if it is a valid sweep id. Raises InvalidNameError."""
    if not _RUN_ID.fullmatch(text) or len(text) > MAX_SWEEP_ID_CHARS:
        allowed = f"1 to {MAX_SWEEP_ID_CHARS} letters, digits, dots, dashes or underscores, a letter or digit first"
        raise InvalidNameError(f"sweep id {text[:140]!r}: must be {allowed}")
    return text


def run_of_sweep(sweep_id: str, number: int) -> str:
    """The run id of a sweep's run, counted from 1: <sweep id>-001."""
    return f"{check_sweep_id(sweep_id)}-{number:03d}"


def sweep(prefix: str, sweep_id: str) -> str:
    """The record of a sweep: <prefix>/sweeps/<sweep id>/sweep.json."""
    return f"{_sweep_folder(prefix, sweep_id)}sweep.json"


def sweep_sheet(prefix: str, sweep_id: str) -> str:
    """The contact sheet of a sweep: <prefix>/sweeps/<sweep id>/contact-sheet.png."""
    return f"{_sweep_folder(prefix, sweep_id)}{CONTACT_SHEET}"


def input_image(index: int, extension: str = "png") -> str:
    """An image of the initial context, from 0: inputs/000.png."""
    return f"inputs/{index:03d}.{_role(extension)}"


def step_text(step: int, role: str, branch: Sequence[int] = ()) -> str:
    """The text of a step: steps/003-thinking.txt; on a branch of a tree steps/003-thinking.v0.v1.txt."""
    return f"steps/{step:03d}-{_role(role)}{_variations(branch)}.txt"


def step_image(step: int, branch: Sequence[int] = (), extension: str = "png") -> str:
    """An image of a step: steps/004-image.png; a variation steps/004-image.v1.png, on a branch with its path."""
    return f"steps/{step:03d}-image{_variations(branch)}.{_role(extension)}"


def commit(step: int) -> str:
    """The record that a step is done: commits/003.json."""
    return f"{COMMITS}{step:03d}.json"


def _sweep_folder(prefix: str, sweep_id: str) -> str:
    return f"{_folder(prefix)}{SWEEPS}/{check_sweep_id(sweep_id)}/"


def _variations(branch: Sequence[int]) -> str:
    return "".join(f".v{number}" for number in branch)


def _role(text: str) -> str:
    if not _ROLE.fullmatch(text):
        raise InvalidNameError(f"{text!r}: must be 1 to 32 lower-case letters, digits and dashes, a letter first")
    return text
