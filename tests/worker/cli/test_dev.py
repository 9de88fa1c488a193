"""`autoseq demo` and `autoseq dev`: everything comes up on this machine, works, and is gone at the end."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from PIL import Image

from tests.worker.serving import DEADLINE_S, eventually
from tests.worker.shell import Shell, end_of, lines_until, one_error, said
from worker.cli.dev import program
from worker.client import Client
from worker.local.fleet import WorkerFleet
from worker.local.process import LocalServiceError
from worker.local.servers import describe_programs
from worker.local.stack import ENV_FILE, LOG_FILE, running_stack
from worker.settings import settings

SHORT = "name: short\ncontext:\n  - text: A cat\nnum_images: 2\nthink: true\n"
LONG = SHORT + "image:\n  num_timesteps: 1000\n"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """In an empty folder, with the scripted model, which takes its time."""
    opened = Shell(tmp_path, monkeypatch)
    opened.use({"AUTOSEQ_MODEL": "scripted", "AUTOSEQ_SCRIPTED_DELAY_S": "0.002"})
    yield opened
    monkeypatch.undo()
    settings.cache_clear()


def something_listens(folder: Path) -> bool:
    """Whether one of the servers over `folder` is up."""
    identity = json.loads((folder / ".autoseq" / "services.json").read_text())
    for port in (identity["redis_port"], identity["s3_port"]):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
    return False


def workers_in(folder: Path) -> list[int]:
    """The Celery processes whose current folder is `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.joinpath("cwd").readlink() == folder and b"celery" in process.joinpath("cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:  # it ended meanwhile
            continue
    return found


def all_is_gone(folder: Path) -> bool:
    return not something_listens(folder) and not workers_in(folder)


@pytest.mark.services
def test_the_demo_ends_with_pictures_and_can_be_kept(shell: Shell) -> None:
    shell.recipe(SHORT)
    process = shell.start("demo", "mine.yaml", "--keep", "--set", "seed=77")
    text = "".join(lines_until(process, "Redis, S3 and a worker are running"))
    assert f"Starting a worker, {describe_programs()}.\n" in text
    assert "[2/6] thinking: " in text
    assert "[3/6] image 1: runs/" in text
    links = dict(line.rsplit(maxsplit=1) for line in text.split("succeeded in")[1].splitlines()[2:-1])
    assert [name.strip() for name in links] == ["page", "contact sheet", "image 1", "image 2", "in S3"]
    for name, link in links.items():
        assert link.startswith("s3:") or Path(unquote(urlsplit(link).path)).is_file(), name
    with Image.open(next(shell.folder.glob("out/short-*/contact-sheet.png"))) as sheet:
        assert sheet.width > sheet.height > 192
    assert json.loads(next(shell.folder.glob("out/short-*/manifest.json")).read_text())["state"] == "succeeded"
    assert json.loads(next(shell.folder.glob("out/short-*/recipe.json")).read_text())["seed"] == 77
    lines_until(process, "Ctrl-C")
    process.send_signal(signal.SIGINT)
    code, output = end_of(process)
    assert (code, output) == (0, "Stopping. A run in progress resumes at the next start.\n")
    assert all_is_gone(shell.folder)


def test_a_wrong_recipe_starts_nothing(shell: Shell) -> None:
    shell.recipe("name: mine\n")
    assert "context: is missing" in one_error(shell("demo", "mine.yaml"), code=2)
    assert not (shell.folder / ".autoseq").exists()


@pytest.mark.services
def test_ctrl_c_stops_the_demo_and_all_it_started(shell: Shell) -> None:
    shell.recipe(LONG)
    process = shell.start("demo", "mine.yaml")
    lines_until(process, "] thinking: ")
    process.send_signal(signal.SIGINT)
    assert end_of(process)[0] == 130
    assert all_is_gone(shell.folder)


@pytest.mark.services
def test_a_worker_that_dies_is_told_with_its_last_words(shell: Shell) -> None:
    shell.recipe(LONG)
    process = shell.start("demo", "mine.yaml")
    lines_until(process, "] thinking: ")
    for worker in workers_in(shell.folder):
        os.kill(worker, signal.SIGKILL)
    code, output = end_of(process)
    assert code == 3
    assert "error: the worker ended with exit code -9; the end of " in output
    assert " ready." in output
    assert all_is_gone(shell.folder)


@pytest.mark.services
def test_dev_serves_the_other_commands_in_its_folder(shell: Shell) -> None:
    shell.recipe(SHORT)
    process = shell.start("dev")
    told = "".join(lines_until(process, "Ctrl-C"))
    assert f"Starting a worker, {describe_programs()}.\n" in told
    assert "autoseq submit magical-forest --watch" in told
    assert str(LOG_FILE) in told
    assert ENV_FILE.stat().st_mode & 0o777 == 0o600
    settings.cache_clear()
    run_id = said(shell("submit", "mine.yaml", "--watch")).strip()
    assert "state     succeeded" in said(shell("show", run_id))
    called = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "worker",
        "call",
        "worker.run",
        "--kwargs",
        '{"recipe": "night-sky"}',
    ]
    other = subprocess.run(called, capture_output=True, text=True, check=True, timeout=DEADLINE_S).stdout.strip()
    assert said(shell("watch", other)).splitlines()[-1].startswith("succeeded")
    process.send_signal(signal.SIGTERM)
    code, output = end_of(process)
    assert code == 0
    assert "Stopping." in output
    assert not ENV_FILE.exists()
    assert all_is_gone(shell.folder)


@pytest.mark.services
def test_a_demo_uses_the_services_of_dev(shell: Shell) -> None:
    shell.recipe(SHORT)
    process = shell.start("dev")
    lines_until(process, "Ctrl-C")
    settings.cache_clear()
    result = shell("demo", "mine.yaml")
    assert "Using the services of `autoseq dev`" in result.stderr
    assert "contact sheet" in said(result)
    assert json.loads(said(shell("show", "--json")))["state"] == "succeeded"
    process.send_signal(signal.SIGINT)
    assert end_of(process)[0] == 0


@pytest.mark.services
def test_nothing_outlives_a_dev_that_is_killed(shell: Shell) -> None:
    shell.recipe(LONG)
    process = shell.start("dev")
    lines_until(process, "Ctrl-C")
    settings.cache_clear()
    run_id = said(shell("submit", "mine.yaml")).strip()
    with Client(settings()) as client:
        next(event for event in client.watch(run_id, timeout_s=DEADLINE_S) if event.type == "text")
    process.kill()
    assert end_of(process)[0] == -signal.SIGKILL
    eventually(lambda: all_is_gone(shell.folder), "the end of all servers and workers")
    assert running_stack() is None


def test_commands_are_named_so_that_another_terminal_finds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = Path(sys.executable).parent
    monkeypatch.setenv("PATH", "/nowhere")
    assert program("celery") == str(installed / "celery")
    monkeypatch.setenv("PATH", f"{installed}:/nowhere")
    assert program("celery") == "celery"


def test_a_fleet_that_can_not_start_is_told_with_the_end_of_its_log(shell: Shell) -> None:
    log = shell.folder / "worker.log"
    with WorkerFleet(os.environ, options=["--no-such-option"], log=log) as fleet:
        eventually(fleet.ended, "a worker that ends")
        with pytest.raises(LocalServiceError, match=r"exit code 2; the end of .*\n(.*\n)*.*No such option"):
            fleet.check()
