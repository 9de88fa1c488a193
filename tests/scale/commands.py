"""What Redis was asked to do, by its own count."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from redis import Redis

OVER_EVERYTHING: Final = frozenset({"keys", "scan", "sscan", "hscan", "zscan", "sort", "zinterstore", "zunionstore"})
"""Commands whose cost grows with all there is."""
OF_THE_COUNT: Final = frozenset({"info", "config", "config|resetstat"})


@dataclass
class Asked:
    """What one block of code asked for."""

    calls: Counter[str] = field(default_factory=Counter)
    """Commands, those within scripts too."""
    round_trips: int = 0
    """How often Redis had something to read; many commands sent together are one."""
    connections: int = 0
    """How many were opened."""
    server_s: float = 0.0
    """Processor time of Redis's main thread."""

    @property
    def over_everything(self) -> list[str]:
        return sorted(set(self.calls) & OVER_EVERYTHING)


@contextmanager
def asked(redis: Redis) -> Iterator[Asked]:
    """Counts what the whole server is asked within the block; known once it is left."""
    found = Asked()
    redis.config_resetstat()
    before = _server_s(redis)
    yield found
    found.server_s = _server_s(redis) - before
    info: dict[str, Any] = redis.info("all")
    for name, one in info.items():
        command = name.removeprefix("cmdstat_")
        if command != name and command not in OF_THE_COUNT:
            found.calls[command] = one["calls"]
    found.round_trips = info["total_reads_processed"] - 3  # the questions about the processor, and this one
    found.connections = info["total_connections_received"]


def _server_s(redis: Redis) -> float:
    info: dict[str, Any] = redis.info("cpu")
    return float(info["used_cpu_user_main_thread"]) + float(info["used_cpu_sys_main_thread"])
