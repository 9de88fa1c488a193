"""Workers for the whole test session: one on a scripted model that takes its time, one on tiny-bagel."""

from collections.abc import Iterator

import pytest

from tests.worker.serving import WorkerProcess, config_of, env_of, ready_worker
from worker.client import Client
from worker.local.services import LocalServices
from worker.settings import PROJECT

IDLE_DATABASE, SCRIPTED_DATABASE, TINY_DATABASE = 1, 2, 3


@pytest.fixture(scope="session")
def scripted_worker(services: LocalServices, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """2 ms for each token and denoising step; a run without a sign of life is given on after seconds."""
    env = env_of(services, SCRIPTED_DATABASE, scripted_delay_s=0.002, visibility_timeout_s=5, lease_s=3)
    with ready_worker(env, tmp_path_factory.mktemp("scripted") / "log") as worker:
        yield worker


@pytest.fixture(scope="session")
def tiny_worker(services: LocalServices, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    env = env_of(services, TINY_DATABASE, model=PROJECT / "models" / "tiny-bagel")
    with ready_worker(env, tmp_path_factory.mktemp("tiny") / "log") as worker:
        yield worker


@pytest.fixture
def client(scripted_worker: WorkerProcess) -> Iterator[Client]:
    """Of the scripted worker."""
    with Client(scripted_worker.config) as opened:
        yield opened


@pytest.fixture
def idle_client(services: LocalServices) -> Iterator[Client]:
    """Of a Redis that no worker listens to, empty at first."""
    with Client(config_of(env_of(services, IDLE_DATABASE))) as opened:
        opened.redis.flushdb()
        yield opened
