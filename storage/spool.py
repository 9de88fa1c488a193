"""A bounded buffer for encoded objects that wait for the store: some in memory, the rest on disk."""

import logging
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)

RETRY_S = 1.0
"""The pause before a disk that failed, such as a full one, is tried again."""


class SpooledBytes:
    """Bytes in a spool, to be taken once."""

    def __init__(self, source: bytes | IO[bytes], release: Callable[[], None]) -> None:
        self._source = source
        self._release = release

    def take(self) -> bytes:
        """Return the bytes and free their place in the spool."""
        if isinstance(self._source, bytes):
            data = self._source
        else:
            self._source.seek(0)
            data = self._source.read()
            self._source.close()
        self._release()
        return data


class Spool:
    """Holds bytes until they are taken. Safe to share between threads.

    Its files have no name, so no other process can open them, and the system removes them when this process ends.

    Args:
        memory_bytes: maximum number of bytes in memory.
        disk_bytes: maximum number of bytes in files.
        folder: the folder of the files; by default the system's folder for temporary files.
    """

    def __init__(self, *, memory_bytes: int, disk_bytes: int, folder: Path | None = None) -> None:
        self._memory_bytes = memory_bytes
        self._disk_bytes = disk_bytes
        self._folder = folder
        self._room = threading.Condition()
        self._in_memory = 0
        self._on_disk = 0
        self._files: set[IO[bytes]] = set()
        self._closed = False
        self._warned = False

    @property
    def in_memory(self) -> int:
        """Bytes held in memory."""
        return self._in_memory

    @property
    def on_disk(self) -> int:
        """Bytes held in files."""
        return self._on_disk

    def put(self, data: bytes) -> SpooledBytes:
        """Hold `data`. Blocks while there is no room in memory or on disk, until `close`.

        A disk that fails counts as full. Data that is larger than both limits is accepted when the spool is empty.
        """
        size = len(data)
        with self._room:
            while True:
                if self._closed or self._fits_in_memory(size):
                    self._in_memory += size
                    return SpooledBytes(data, lambda: self._release(memory=size))
                file = self._write_file(data) if self._on_disk + size <= self._disk_bytes else None
                if file is not None:
                    return self._spool_file(file, size)
                self._room.wait(RETRY_S)

    def close(self) -> None:
        """Let every `put` return at once, without regard to the limits."""
        with self._room:
            self._closed = True
            self._room.notify_all()

    def drop(self) -> None:
        """Close all files. Do not call `put` or `take` afterwards."""
        self.close()
        for file in list(self._files):  # a thread that hung in the store may take its bytes now
            file.close()

    def _fits_in_memory(self, size: int) -> bool:
        return self._in_memory + size <= self._memory_bytes or not (self._in_memory + self._on_disk)

    def _spool_file(self, file: IO[bytes], size: int) -> SpooledBytes:
        self._on_disk += size
        self._files.add(file)

        def release() -> None:
            self._files.discard(file)
            self._release(disk=size)

        return SpooledBytes(file, release)

    def _write_file(self, data: bytes) -> IO[bytes] | None:
        """A file with `data`; None when it can't be written."""
        try:
            if self._folder:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Unbuffered, so that `close` does not try again to write what the disk refused.
            file = tempfile.TemporaryFile(buffering=0, dir=self._folder)  # noqa: SIM115 - open until it is taken
        except OSError as error:
            self._warn_once(error)
            return None
        left = memoryview(data)
        try:
            while left:
                left = left[file.write(left) :]
        except OSError as error:
            file.close()
            self._warn_once(error)
            return None
        return file

    def _warn_once(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            log.warning("uploads can't be buffered on disk, so the run waits for the store: %s", error)

    def _release(self, *, memory: int = 0, disk: int = 0) -> None:
        with self._room:
            self._in_memory -= memory
            self._on_disk -= disk
            self._room.notify_all()
