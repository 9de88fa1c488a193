"""The folder for the temporary files of a worker process. If the worker is killed, the next one removes it."""

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from multiprocessing.util import Finalize
from pathlib import Path
from stat import S_ISDIR

PREFIX = "autoseq-worker-"
LOCK = "lock"


class TempFolder:
    """A private folder that holds all temporary files of this process and of its children.

    A lock on a file in it lasts as long as this process, however that ends. Process ids would not do: they repeat
    across containers that share a folder for temporary files.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock
        tempfile.tempdir = os.environ["TMPDIR"] = str(path)
        # multiprocessing removes its own folder in this one at the end of the process, with priority -100.
        self.remove = Finalize(None, self._remove, exitpriority=-101)
        """Removes the folder, at the latest when this process ends."""

    @staticmethod
    def create() -> "TempFolder":
        """A new folder, after those of ended workers of this user are removed."""
        place = Path(tempfile.gettempdir())
        for path in place.glob(f"{PREFIX}*"):
            _remove_if_abandoned(path)
        while True:
            path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
            with suppress(FileNotFoundError):  # a worker that starts now took it for abandoned
                if (lock := _lock(path)) is not None:
                    return TempFolder(path, lock)

    def _remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _lock(path: Path) -> int | None:
    """Lock the folder; the lock is held until the descriptor is closed. None if it is locked or being removed."""
    lock = os.open(path / LOCK, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), (path / LOCK).stat()):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(lock)
    return None


def _remove_if_abandoned(path: Path) -> None:
    with suppress(OSError):  # another worker removes it too
        about = path.lstat()
        if about.st_uid == os.geteuid() and S_ISDIR(about.st_mode) and (lock := _lock(path)) is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)
