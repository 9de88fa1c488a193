"""The ports and secrets of the local servers, stored beside their data so that they survive a restart."""

import json
import os
import secrets
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from worker.local.process import LocalServiceError

S3_PORTS = 5
"""S3, master, volume, filer and admin, in a row; each has a gRPC port GRPC_OFFSET above it."""
GRPC_OFFSET = 10_000
LOWEST_PORT, HIGHEST_PORT = 12_000, 22_000
"""These ports and their gRPC ports are below those that Linux assigns to clients."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The ports and secrets of one Redis and one S3 server."""

    redis_port: int
    redis_password: str
    s3_port: int
    s3_access_key: str
    s3_secret_key: str
    s3_inner_key: str
    """Protects the internal HTTP services of SeaweedFS, which would otherwise serve every object to any local user."""

    @staticmethod
    def load(file: Path) -> "Identity":
        """The identity in `file`; a new one if there is none, and new ports if the old ones are in use.

        Raises LocalServiceError when the file is damaged.
        """
        try:
            known = json.loads(file.read_text()) if file.exists() else {}
        except ValueError as error:
            raise LocalServiceError(
                f"{file}: damaged ({error}); delete it to have new credentials generated"
            ) from error
        identity = Identity(
            redis_port=free_ports(1, known.get("redis_port")),
            redis_password=known.get("redis_password") or secrets.token_hex(24),
            s3_port=free_ports(S3_PORTS, known.get("s3_port")),
            s3_access_key=known.get("s3_access_key") or secrets.token_hex(10),
            s3_secret_key=known.get("s3_secret_key") or secrets.token_hex(24),
            s3_inner_key=known.get("s3_inner_key") or secrets.token_hex(24),
        )
        write_private(file, json.dumps(asdict(identity), indent=1))
        return identity

    @property
    def s3_ports(self) -> range:
        """The ports of S3, master, volume, filer and admin."""
        return range(self.s3_port, self.s3_port + S3_PORTS)


def free_ports(count: int, wanted: int | None) -> int:
    """The first of `count` free ports in a row: `wanted` if these are free."""
    while True:
        first = wanted or LOWEST_PORT + secrets.randbelow(HIGHEST_PORT - LOWEST_PORT - count)
        if all(_is_free(port) and _is_free(port + GRPC_OFFSET) for port in range(first, first + count)):
            return first
        wanted = None


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections linger; only listeners matter
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def listens(port: int) -> bool:
    """Whether a server on this machine accepts connections on `port`."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def write_private(file: Path, text: str) -> None:
    """Write a file that only this user can ever read."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as opened:  # noqa: PTH123 - pathlib opens no descriptors
        opened.write(text)
