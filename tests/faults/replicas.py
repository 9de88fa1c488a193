"""A primary, its replica and a Sentinel that promotes it, behind one address that follows the primary."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from tests.faults.proxy import FaultProxy
from tests.worker.serving import eventually
from worker.local.identity import free_ports
from worker.local.process import bound_to_parent
from worker.local.servers import find_redis

NAME = "autosequence"
LOOK_S = 0.05
DOWN_AFTER_MS, NEVER_MS = 1_000, 600_000
"""For how long a primary must be silent before its replica is promoted."""


@dataclass(frozen=True, kw_only=True)
class Replicas:
    """Two servers, of which one is the primary."""

    address: FaultProxy
    """Leads to the primary, as a load balancer or a virtual address does."""
    link: FaultProxy
    """Between the first primary and all that watches it: its replica and Sentinel."""
    primary: subprocess.Popen[bytes]
    replica: redis.Redis
    sentinel: Any

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.address.port}/0"

    @property
    def is_in_sync(self) -> bool:
        """Whether the replica has all that the primary was told."""
        found: dict[str, Any] = self.replica.info("replication")
        return found["role"] == "slave" and found["master_link_status"] == "up" and not found["master_sync_in_progress"]

    def cut_off(self) -> None:
        """From now on the replica hears nothing, and no one acts on it."""
        self._promote_after(NEVER_MS)
        self.link.mode = "silent"

    def fail_over(self) -> None:
        """Kill the primary, and wait until its replica is promoted and the address leads there."""
        self.primary.kill()
        self.primary.wait()
        self.link.mode = "off"  # what was not passed on yet is lost
        self._promote_after(DOWN_AFTER_MS)
        port = self.replica.connection_pool.connection_kwargs["port"]
        eventually(lambda: self.address.upstream_port == port, "a promoted replica")

    def _promote_after(self, milliseconds: int) -> None:
        self.sentinel.execute_command("SENTINEL", "SET", NAME, "down-after-milliseconds", milliseconds)


@contextmanager
def replicas(folder: Path, *options: str) -> Iterator[Replicas]:
    """Both servers, in sync; `options` are lines of the configuration of both."""
    with ExitStack() as undo:
        ports = [free_ports(1, None) for _ in range(3)]
        primary = _start(folder / "primary", ports[0], options, undo)
        link = undo.enter_context(FaultProxy(ports[0]))
        leads = f"127.0.0.1 {link.port}"
        _start(folder / "replica", ports[1], [*options, f"replicaof {leads}"], undo)
        watched = [f"monitor {NAME} {leads} 1", f"down-after-milliseconds {NAME} {DOWN_AFTER_MS}"]
        _start(folder / "sentinel", ports[2], [f"sentinel {line}" for line in watched], undo, "--sentinel")
        address = undo.enter_context(FaultProxy(ports[0]))
        replica, sentinel = (undo.enter_context(_client(port)) for port in ports[1:])
        made = Replicas(address=address, link=link, primary=primary, replica=replica, sentinel=sentinel)
        eventually(lambda: made.is_in_sync, "a replica in sync")
        eventually(lambda: sentinel.execute_command("SENTINEL", "replicas", NAME), "a Sentinel that knows the replica")
        undo.enter_context(_following(sentinel, address, {link.port: ports[0]}))
        yield made


def _start(
    folder: Path, port: int, lines: list[str] | tuple[str, ...], undo: ExitStack, *flags: str
) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True)
    config = folder / "redis.conf"
    data = "" if flags else 'appendonly yes\nsave ""\nrepl-diskless-sync yes\nrepl-diskless-sync-delay 0\n'
    config.write_text("\n".join([f"bind 127.0.0.1\nport {port}\ndir {folder}\n{data}", *lines]) + "\n")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            bound_to_parent([find_redis(), str(config), *flags]), stdout=log, stderr=log, env={"LC_ALL": "C"}
        )
    undo.callback(process.wait)
    undo.callback(process.kill)
    with _client(port) as client:
        eventually(lambda: _answers(client), f"an answer of {folder.name}")
    return process


def _client(port: int) -> redis.Redis:
    return redis.Redis(port=port, decode_responses=True)


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@contextmanager
def _following(sentinel: Any, address: FaultProxy, behind: dict[int, int]) -> Iterator[None]:
    """Until the block ends, the address leads to what the Sentinel says; `behind` has the ports behind proxies."""
    ends = threading.Event()

    def follow() -> None:
        while not ends.wait(LOOK_S):
            port = int(sentinel.execute_command("SENTINEL", "get-master-addr-by-name", NAME)[1])
            address.upstream_port = behind.get(port, port)

    thread = threading.Thread(target=follow, name="follows the primary")
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()
