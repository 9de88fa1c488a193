"""What can befall a fleet, and the seeded order in which it does."""

import itertools
import random
from dataclasses import dataclass
from typing import Final

CHILD_POINTS: Final = tuple(
    f"{side}-{act}" for act in ("upload", "commit", "manifest", "finish") for side in ("before", "after")
)
"""Of the process that computes."""
WORKER_POINTS: Final = ("before-claim", "after-claim", "before-ack", "after-ack")
"""Of the worker's parent; before-claim is the gap between the broker's pop and its record of the message."""

KILLS: Final = (
    "kill child",
    "kill worker",
    *(f"kill {who} {point}" for point in CHILD_POINTS for who in ("child", "worker")),
    *(f"kill worker {point}" for point in WORKER_POINTS),
)
DRAIN: Final = "drain"
HANGUP: Final = "drain by SIGHUP"
SHUTDOWN: Final = "drain by control"
"""`celery control shutdown`."""
DRAINS: Final = (DRAIN, HANGUP, SHUTDOWN)
FREEZE: Final = "freeze"
"""A worker stands still until another has its run, and then goes on as if nothing had happened."""
DUPLICATE: Final = "duplicate"
WRONG_ARGUMENTS: Final = "wrong arguments"
"""A message under the id of a run that is not one of that run."""
REVOKE: Final = "revoke"
"""`celery control revoke` of a run that has not ended: it is cancelled, or succeeds."""
GARBAGE: Final = "garbage"
"""Something in the broker's list that is no message of a run."""
MESSAGES: Final = (DUPLICATE, WRONG_ARGUMENTS, REVOKE, GARBAGE)
"""What comes through the broker, and stops no worker."""
REDIS_RESTART: Final = "redis restart"
REDIS_OUTAGE: Final = "redis outage"
REDIS_PAUSE: Final = "redis pause"
S3_RESTART: Final = "s3 restart"
REFUSALS: Final = ("READONLY", "NOREPLICAS", "OOM")
"""With which Redis answers all that writes, while it can be read."""
REDIS_REFUSALS: Final = tuple(f"redis {code}" for code in REFUSALS)
S3_REFUSED: Final = "s3 refuses one worker"
"""As if its credentials had expired."""
PROXY_MODES: Final = ("latency", "resets", "503", "truncated", "off")
S3_MODES: Final = tuple(f"s3 {mode}" for mode in PROXY_MODES)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large a campaign is; times in seconds."""

    seed: int
    kills: int
    drains: int = 0
    hangups: int = 0
    shutdowns: int = 0
    duplicates: int = 0
    wrong_arguments: int = 0
    revokes: int = 0
    garbage: int = 0
    freezes: int = 0
    redis_restarts: int = 0
    redis_outages: int = 0
    redis_pauses: int = 0
    redis_refusals: int = 0
    """Of each kind."""
    s3_each: int = 0
    s3_refusals: int = 0
    freeze_s: float = 8.0
    redis_outage_s: float = 30.0
    redis_pause_s: float = 5.0
    refusal_s: float = 5.0
    s3_fault_s: float = 5.0
    kill_pause_s: float = 1.0
    """Between two faults of the workers, on average."""
    workers: int = 3
    model: str = "scripted"
    scripted_delay_s: float = 0.01
    lease_s: float = 3.0
    longest_end_s: float = 120.0
    """What the last runs may take to end, once the last fault is over."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault that is to come."""

    kind: str
    pause_s: float
    """After the fault before it."""
    lasts_s: float = 0.0


def worker_faults(scale: Scale) -> list[Fault]:
    """What is done to the workers, in order: half of the kills at random moments, half at each marked point in turn."""
    rng = random.Random(f"workers/{scale.seed}")
    anywhere, at_points = itertools.cycle(KILLS[:2]), itertools.cycle(KILLS[2:])
    kinds = [next(anywhere if number % 2 else at_points) for number in range(scale.kills)]
    others = {
        DRAIN: scale.drains,
        DUPLICATE: scale.duplicates,
        FREEZE: scale.freezes,
        HANGUP: scale.hangups,
        SHUTDOWN: scale.shutdowns,
        WRONG_ARGUMENTS: scale.wrong_arguments,
        REVOKE: scale.revokes,
        GARBAGE: scale.garbage,
    }
    kinds += [kind for kind, count in others.items() for _ in range(count)]
    rng.shuffle(kinds)
    return [Fault(kind=kind, pause_s=rng.uniform(0, 2 * scale.kill_pause_s)) for kind in kinds]


def service_faults(scale: Scale) -> list[Fault]:
    """What is done to Redis and S3 meanwhile, in order."""
    rng = random.Random(f"services/{scale.seed}")
    lasting = {
        **dict.fromkeys(S3_MODES, (scale.s3_each, scale.s3_fault_s)),
        S3_RESTART: (scale.s3_each, 0.0),
        REDIS_RESTART: (scale.redis_restarts, 0.0),
        REDIS_OUTAGE: (scale.redis_outages, scale.redis_outage_s),
        REDIS_PAUSE: (scale.redis_pauses, scale.redis_pause_s),
        **dict.fromkeys(REDIS_REFUSALS, (scale.redis_refusals, scale.refusal_s)),
        S3_REFUSED: (scale.s3_refusals, scale.refusal_s),
    }
    faults = [(kind, lasts_s) for kind, (count, lasts_s) in lasting.items() for _ in range(count)]
    rng.shuffle(faults)
    return [Fault(kind=kind, pause_s=rng.uniform(1, 4), lasts_s=lasts_s) for kind, lasts_s in faults]
