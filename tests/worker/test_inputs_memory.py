"""A small recipe can't fill the memory of a worker."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.worker.serving import DEADLINE_S, WorkerProcess, empty_database, env_of, eventually, ready_worker
from worker.client import Client
from worker.local.services import LocalServices

DATABASE = 9
MOST_MIB = 1_300
"""About 800 are needed, and 3,000 if each image of the recipe is kept decoded."""


@pytest.fixture
def worker(services: LocalServices, tmp_path: Path) -> Iterator[WorkerProcess]:
    """One with a process of its own, whose memory nothing else has used."""
    env = env_of(services, DATABASE, lease_s=DEADLINE_S)
    empty_database(env)
    with ready_worker(env, tmp_path / "log") as worker:
        yield worker


def peak_mib(worker: WorkerProcess) -> int:
    """The most memory that the process which computes has used so far."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        (child,) = worker.children()
        status = Path(f"/proc/{child}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) // 1024
    return 0


def test_a_recipe_of_huge_images_needs_the_memory_of_one(worker: WorkerProcess, tmp_path: Path) -> None:
    for level in range(3):
        Image.new("RGB", (8000, 8000), (level, 0, 0)).save(tmp_path / f"{level}.png", compress_level=1)
    context = "".join(f"  - image: {number % 3}.png\n" for number in range(6))
    file = tmp_path / "huge.yaml"
    file.write_text(f"name: huge\nnum_images: 1\nimage: {{num_timesteps: 2}}\ncontext:\n{context}  - text: Mix them\n")
    with Client(worker.config) as client:
        run_id = client.submit(file)

        def has_ended() -> bool:
            assert peak_mib(worker) < MOST_MIB
            return client.state(run_id).state == "succeeded"

        eventually(has_ended, "the end of the run")
    assert 0 < peak_mib(worker) < MOST_MIB
