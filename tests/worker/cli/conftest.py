"""A shell for the tests of the command line: without services, with them, and with a worker."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import keys
from tests.worker.serving import DEADLINE_S, WorkerProcess, env_of, recipe
from tests.worker.shell import Shell
from worker.client import Client
from worker.local.services import LocalServices
from worker.settings import settings


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """In an empty folder, with the scripted model and no services."""
    yield Shell(tmp_path, monkeypatch)
    monkeypatch.undo()
    settings.cache_clear()


@pytest.fixture
def serving(shell: Shell, scripted_worker: WorkerProcess, client: Client) -> Shell:
    """With a worker that serves the scripted model."""
    client.redis.delete(keys.DEAD_LETTERS)  # of other tests
    shell.use({name: value for name, value in scripted_worker.env.items() if name.startswith("AUTOSEQ_")})
    return shell


@pytest.fixture
def idle(shell: Shell, idle_client: Client, services: LocalServices) -> Shell:
    """With services, and no worker."""
    assert idle_client.list() == []
    shell.use(env_of(services, 1))
    return shell


@pytest.fixture
def parent(client: Client) -> str:
    """A run of two images with thoughts, complete."""
    run_id = client.submit(recipe())
    client.result(run_id, timeout_s=DEADLINE_S)
    return run_id
