"""Where encoded objects wait for the store: a little in memory, the rest on disk, all of it bounded."""

import logging
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)

RETRY_S = 1.0
"""A disk that is full, or a folder that can't be written, is tried again after this long: others may have made room."""


class SpooledBytes:
    """Bytes in a spool. Take them once."""

    def __init__(self, size: int, source: bytes | IO[bytes], release: Callable[[], None]) -> None:
        self.size = size
        self._source = source
        self._release = release

    def take(self) -> bytes:
        """The bytes; their place in the spool is free from now on."""
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

    Its files have no name and can be opened by no one else; the system removes them with this process, however it ends.

    Args:
        memory_bytes: how much is held in memory.
        disk_bytes: how much more is held in files.
        folder: where the files are; the system's folder for temporary files by default.
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
        self._complained = False

    @property
    def in_memory(self) -> int:
        """Bytes held in memory."""
        return self._in_memory

    @property
    def on_disk(self) -> int:
        """Bytes held in files."""
        return self._on_disk

    def put(self, data: bytes) -> SpooledBytes:
        """Hold `data`. Blocks while there is room for it neither in memory nor on disk, until `close`.

        A disk that fails is as good as one that is full: what it would hold waits for room in memory. What is larger
        than either passes alone.
        """
        size = len(data)
        with self._room:
            while True:
                if self._closed or self._fits_in_memory(size):
                    self._in_memory += size
                    return SpooledBytes(size, data, lambda: self._release(memory=size))
                file = self._written(data) if self._on_disk + size <= self._disk_bytes else None
                if file is not None:
                    return self._held_in(file, size)
                self._room.wait(RETRY_S)

    def close(self) -> None:
        """Let no `put` wait any more."""
        with self._room:
            self._closed = True
            self._room.notify_all()

    def drop(self) -> None:
        """Evict what was not taken. Nobody may put or take any more."""
        self.close()
        for file in self._files:
            file.close()

    def _fits_in_memory(self, size: int) -> bool:
        return self._in_memory + size <= self._memory_bytes or not (self._in_memory + self._on_disk)

    def _held_in(self, file: IO[bytes], size: int) -> SpooledBytes:
        self._on_disk += size
        self._files.add(file)

        def release() -> None:
            self._files.discard(file)
            self._release(disk=size)

        return SpooledBytes(size, file, release)

    def _written(self, data: bytes) -> IO[bytes] | None:
        """A file that holds `data`; None when the disk does not take it."""
        try:
            if self._folder:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Without a buffer: what the disk refuses must not be tried again by `close`.
            file = tempfile.TemporaryFile(buffering=0, dir=self._folder)  # noqa: SIM115 - open until it is taken
        except OSError as error:
            self._complain(error)
            return None
        left = memoryview(data)
        try:
            while left:
                left = left[file.write(left) :]
        except OSError as error:
            file.close()
            self._complain(error)
            return None
        return file

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            log.warning("uploads can't wait on disk, the work waits for the store instead: %s", error)

    def _release(self, *, memory: int = 0, disk: int = 0) -> None:
        with self._room:
            self._in_memory -= memory
            self._on_disk -= disk
            self._room.notify_all()
