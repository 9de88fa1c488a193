"""Redis and an S3 server on loopback, for `autoseq demo`, `autoseq dev` and the tests."""

import atexit
import fcntl
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import redis

from storage.errors import StorageError, StoreUnavailableError
from storage.objects.s3 import S3Settings, S3Store
from worker.local.identity import Identity, listens
from worker.local.process import LocalServiceError
from worker.local.servers import redis_server, remove_sockets, s3_server

BUCKET = "autosequence"
REGION = "us-east-1"
LOCK_TIMEOUT_S = 15.0


class LocalServices:
    """A Redis and an S3 server with their data in one folder. They stop with the context or with this process."""

    def __init__(self, data_dir: Path, lock: IO[str]) -> None:
        self.data_dir = data_dir
        self._lock = lock
        self._identity = Identity.load(data_dir / "services.json")
        self._redis = redis_server(data_dir, self._identity, lock.fileno())
        self._s3 = s3_server(data_dir, self._identity, lock.fileno())

    @staticmethod
    def start(data_dir: Path) -> "LocalServices":
        """Start both servers and wait until they answer. They end with the calling thread.

        Data, logs and credentials are in `data_dir`, which only this user can read; the next start uses them again.
        Raises LocalServiceError if a program is missing, the folder is in use, or a server does not start.
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
        """Stop both servers and keep their data."""
        self._s3.stop()
        self._redis.stop()
        remove_sockets(self._identity)
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
        """The settings for workers and clients of these servers, as environment variables."""
        return {
            "AUTOSEQ_REDIS_URL": self.redis_url,
            "AUTOSEQ_S3_ENDPOINT": f"http://127.0.0.1:{self._identity.s3_port}",
            "AUTOSEQ_S3_ACCESS_KEY": self._identity.s3_access_key,
            "AUTOSEQ_S3_SECRET_KEY": self._identity.s3_secret_key,
            "AUTOSEQ_S3_BUCKET": BUCKET,
            "AUTOSEQ_S3_REGION": REGION,
        }

    def kill_redis(self) -> None:
        """Kill Redis, as a crash would; at most the last second of writes is lost."""
        self._redis.kill()

    def restart_redis(self) -> None:
        """Start Redis again, with the same port and data."""
        self._redis.stop()
        self._redis.start()
        self._redis.wait_until(self._redis_answers)

    def kill_s3(self) -> None:
        """Kill the S3 server, as a crash would."""
        self._s3.kill()

    def restart_s3(self) -> None:
        """Start the S3 server again, with the same port and data."""
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
        """Whether an object can be put into the bucket, which takes longer than opening the port."""
        if not listens(self._identity.s3_port):
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


def _locked(file: Path) -> IO[str]:
    """The open `file`, locked for one process. Waits for servers of an earlier start that are stopping."""
    lock = file.open("w")
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                lock.close()
                raise LocalServiceError(f"{file.parent}: local servers already run on this folder") from None
            time.sleep(0.1)
        else:
            return lock
