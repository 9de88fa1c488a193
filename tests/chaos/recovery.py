"""How soon a run goes on after what befell it."""

from collections.abc import Mapping, Sequence
from typing import Any

from storage.redis.state import FINAL
from tests.chaos.faults import DRAINS, FREEZE, MESSAGES
from tests.chaos.victims import Struck

SIGNS = frozenset({"started", *FINAL})
"""That a worker has the run in hand again."""


def recoveries(struck: Sequence[Struck], streams: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[float]]:
    """Kind of fault -> seconds from each to the next start or end of the run it met, when that had no end before.

    After an outage of a service: from its end to the next artifact, start or end of any run. A message stops nothing.
    """
    anywhere = sorted(
        event["at"] for events in streams.values() for event in events if event["type"] in SIGNS | {"artifact"}
    )
    found: dict[str, list[float]] = {}
    for one in struck:
        if one.kind in MESSAGES:
            continue
        if one.kind.startswith("kill") or one.kind in {*DRAINS, FREEZE}:
            events = streams.get(one.run_id, ())
            signs = [event["at"] for event in events if event["type"] in SIGNS]
        else:
            signs = anywhere
        after = [at for at in signs if at > one.at]
        if after:
            found.setdefault(one.kind, []).append(min(after) - one.at)
    return found
