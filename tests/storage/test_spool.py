"""Bytes wait in memory, then on disk, in bounds; no file outlives its process, and a full disk is no error."""

import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.spool import Spool, SpooledBytes


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(memory_bytes=8, disk_bytes=16, folder=tmp_path / "spool")
    yield opened
    opened.drop()


def test_what_is_put_is_taken(spool: Spool) -> None:
    held = [spool.put(f"data {number}".encode()) for number in range(3)]
    assert (spool.in_memory, spool.on_disk) == (6, 12)
    assert [one.take() for one in held] == [b"data 0", b"data 1", b"data 2"]
    assert (spool.in_memory, spool.on_disk) == (0, 0)


def test_it_is_full_until_something_is_taken(spool: Spool) -> None:
    first = spool.put(b"12345678")
    for _ in range(2):
        spool.put(b"12345678")
    late: list[SpooledBytes] = []
    waiting = threading.Thread(target=lambda: late.append(spool.put(b"late")))
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    first.take()
    waiting.join(20)
    assert late[0].take() == b"late"


def test_what_is_larger_than_everything_passes_alone(spool: Spool) -> None:
    assert spool.put(b"1" * 100).take() == b"1" * 100


def test_nobody_waits_for_a_spool_that_is_closed(spool: Spool) -> None:
    for _ in range(3):
        spool.put(b"12345678")
    waiting = threading.Thread(target=spool.put, args=(b"late",))
    waiting.start()
    spool.close()
    waiting.join(20)
    assert not waiting.is_alive()


def test_its_files_have_no_name_and_its_folder_is_private(spool: Spool, tmp_path: Path) -> None:
    spool.put(b"12345678")
    held = spool.put(b"12345678")
    assert spool.on_disk == 8
    assert list((tmp_path / "spool").iterdir()) == []
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
    held.take()


def test_a_killed_process_leaves_nothing(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys, time\nfrom storage.spool import Spool\n"
        f"held = Spool(memory_bytes=0, disk_bytes=100, folder=pathlib.Path({str(tmp_path)!r}))\n"
        "kept = [held.put(b'first'), held.put(b'second')]\nprint(held.on_disk, flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "6\n"  # the first passes alone, in memory
        process.send_signal(signal.SIGKILL)
    assert list(tmp_path.iterdir()) == []


FILE_LIMIT = 32 * 2**20
"""Far above whatever else this process writes to a file meanwhile, such as its own output."""


@pytest.fixture
def disk_full() -> Iterator[None]:
    """No file of this process can grow beyond FILE_LIMIT."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("disk_full")
def test_a_disk_that_takes_no_more_is_as_good_as_full(tmp_path: Path) -> None:
    large = bytes(FILE_LIMIT + 1)
    spool = Spool(memory_bytes=len(large), disk_bytes=4 * len(large), folder=tmp_path)
    first = spool.put(large)
    open_files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names of descriptors, no files
    late: list[SpooledBytes] = []
    waiting = threading.Thread(target=lambda: late.append(spool.put(large)))
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive()
    assert spool.on_disk == 0
    first.take()
    waiting.join(20)
    assert late[0].take() == large
    assert len(os.listdir("/proc/self/fd")) == open_files  # noqa: PTH208 - as above
