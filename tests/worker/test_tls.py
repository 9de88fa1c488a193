"""Redis and S3 over TLS, with certificates of an authority of one's own: what is trusted is used, nothing else is."""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from tests.worker.serving import DEADLINE_S, celery_result, config_of, empty_database, env_of, ready_worker, recipe
from worker.app import make_app
from worker.client import Client
from worker.connections import ServiceUnavailableError, check_redis, connect_redis, connect_store, explain_s3_errors
from worker.local.services import LocalServices
from worker.settings import PROJECT

DATABASE = 12
CONFIG = """
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = DNS:{host}
"""


def certificate(folder: Path, name: str, *, host: str = "", ca: Path | None = None) -> Path:
    """A certificate and its key, in <name>.pem and <name>.key; signed by itself, or by `ca` for the name `host`."""
    config, made = folder / f"{name}.cnf", folder / f"{name}.pem"
    config.write_text(CONFIG.format(host=host or "none"))
    signed = ["-CA", str(ca), "-CAkey", str(ca.with_suffix(".key"))] if ca else []
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-config", str(config), "-extensions", "server" if ca else "ca", "-subj", f"/CN={name}", "-days", "2"]
    command += ["-keyout", str(made.with_suffix(".key")), "-out", str(made), *signed]
    subprocess.run(command, check=True, capture_output=True)
    return made


@contextmanager
def tls_before(port: int, made: Path) -> Iterator[int]:
    """The port on which TLS with this certificate leads to the plain service on `port`."""
    command = [sys.executable, "-m", "tests.faults.tls", str(port), str(made)]
    quiet = subprocess.DEVNULL  # clients that trust no certificate break the handshake
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=quiet, text=True) as forwarder:
        try:
            assert forwarder.stdout is not None
            yield int(forwarder.stdout.readline())
        finally:
            forwarder.kill()


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("ca"), "ca")


@contextmanager
def secured(services: LocalServices, ca: Path, host: str) -> Iterator[dict[str, str]]:
    """The environment for both servers behind TLS, with certificates for `host`, reached as localhost."""
    made = certificate(ca.parent, host, host=host, ca=ca)
    env = env_of(services, DATABASE)
    redis, s3 = urlsplit(env["AUTOSEQ_REDIS_URL"]), urlsplit(env["AUTOSEQ_S3_ENDPOINT"])
    assert redis.port
    assert s3.port
    with tls_before(redis.port, made) as redis_port, tls_before(s3.port, made) as s3_port:
        url = f"rediss://:{redis.password}@localhost:{redis_port}/{DATABASE}"
        yield {
            **env,
            "AUTOSEQ_REDIS_URL": f"{url}?ssl_ca_certs={ca}",
            "AUTOSEQ_S3_ENDPOINT": f"https://localhost:{s3_port}",
        }


@pytest.fixture(scope="module")
def env(services: LocalServices, ca: Path) -> Iterator[dict[str, str]]:
    with secured(services, ca, "localhost") as found:
        yield found


def test_a_run_is_served_with_an_authority_of_ones_own(
    env: Mapping[str, str], ca: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(ca))
    empty_database(env)
    with ready_worker(env, tmp_path / "log") as worker, Client(worker.config) as client:
        run_id = client.submit(recipe())
        result = client.result(run_id, timeout_s=DEADLINE_S)
        assert client.app.control.ping(timeout=DEADLINE_S, limit=1)
        assert celery_result(worker, run_id).state == "SUCCESS"
        assert result["artifacts"][0]["url"].startswith("https://localhost:")


def without_authority(env: Mapping[str, str]) -> dict[str, str]:
    return {**env, "AUTOSEQ_REDIS_URL": env["AUTOSEQ_REDIS_URL"].partition("?")[0]}


def refused(env: Mapping[str, str]) -> list[str]:
    """What our client, Celery's broker and its results, and S3 say of these servers."""
    config = config_of(env)
    words = []
    with connect_redis(config, outage_timeout_s=0) as redis, pytest.raises(ServiceUnavailableError) as raised:
        check_redis(redis)
    words.append(str(raised.value))
    celery = make_app(config)
    with celery.connection_for_write() as broker, pytest.raises(OperationalError) as broken:
        broker.ensure_connection(max_retries=1, interval_start=0)
    words.append(str(broken.value))
    backend: Any = celery.backend
    with pytest.raises(RedisError) as unread:
        backend.client.ping()
    words.append(str(unread.value))
    store = connect_store(config, attempts=1)
    with pytest.raises(ServiceUnavailableError) as denied, explain_s3_errors("S3 can't be used"):
        store.ensure_bucket()
    store.close()
    return [*words, str(denied.value)]


def test_an_authority_that_is_not_named_is_not_trusted(env: Mapping[str, str]) -> None:
    assert [words for words in refused(without_authority(env)) if "certificate verify failed" not in words] == []


def test_a_certificate_for_another_name_is_refused(
    services: LocalServices, ca: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(ca))
    with secured(services, ca, "elsewhere.example") as env:
        said = refused(env)
    mismatch = re.compile("not valid for 'localhost'|'localhost' doesn't match 'elsewhere.example'")
    assert [words for words in said if not mismatch.search(words)] == []
