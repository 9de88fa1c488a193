"""Workers that end by themselves are started again, whatever the others do, and given up on in the end."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.worker.serving import DEADLINE_S, config_of, empty_database, env_of, recipe
from tests.worker.shell import end_of, lines_until
from worker.client import Client
from worker.local.fleet import environment
from worker.local.process import LocalServiceError
from worker.local.services import LocalServices
from worker.settings import PROJECT

DATABASE = 5
BROKEN_GPU = """
import os
if os.environ.get("CUDA_VISIBLE_DEVICES") == "1":
    os._exit(5)
"""


@pytest.fixture
def start(services: LocalServices, tmp_path: Path) -> Iterator[Callable[[str, str], subprocess.Popen[str]]]:
    """Starts a fleet on some GPUs with a RestartPolicy; with GPU 1, a worker ends as soon as it starts."""
    (tmp_path / "sitecustomize.py").write_text(BROKEN_GPU)
    empty_database(env_of(services, DATABASE))
    env = {**os.environ, **env_of(services, DATABASE), "PYTHONPATH": f"{tmp_path}:{PROJECT}"}
    started: list[subprocess.Popen[str]] = []

    def fleet(gpus: str, policy: str) -> subprocess.Popen[str]:
        code = (
            "import os; from worker.local.fleet import RestartPolicy, serve\n"
            f"raise SystemExit(serve(os.environ, gpus={gpus}, options=[], policy=RestartPolicy({policy})))"
        )
        command = [sys.executable, "-c", code]
        process = subprocess.Popen(
            command, env=env, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        return process

    yield fleet
    for process in started:
        process.kill()  # its workers get SIGTERM
        process.communicate()


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for has no command line."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except FileNotFoundError:
        return False


def workers_of(fleet: subprocess.Popen[str]) -> dict[str, int]:
    """The workers of a fleet: GPU -> process id."""
    found = {}
    for pid in children_of(fleet.pid):
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        gpu = re.search(rb"\0CUDA_VISIBLE_DEVICES=(\d+)", environment)
        assert gpu
        found[gpu[1].decode()] = pid
    return found


def test_a_worker_that_is_killed_is_started_again_without_its_children_and_beside_the_others(
    services: LocalServices, start: Callable[[str, str], subprocess.Popen[str]]
) -> None:
    fleet = start("[0, 2]", "first_pause_s=0.2")
    lines_until(fleet, " ready.")
    lines_until(fleet, " ready.")
    before = workers_of(fleet)
    with Client(config_of(env_of(services, DATABASE))) as client:
        children = children_of(before["2"])
        for child in children:
            os.kill(child, signal.SIGSTOP)  # as one that hangs on its GPU: it would not notice the end of its parent
        os.kill(before["2"], signal.SIGKILL)
        text = "".join(lines_until(fleet, " ready."))
        assert "the worker on GPU 2 ended with exit code -9; it starts again in 0.2 s" in text
        after = workers_of(fleet)
        assert after["0"] == before["0"]
        assert after["2"] != before["2"]
        assert children
        assert not [child for child in children if is_running(child)]
        client.result(client.submit(recipe()), timeout_s=DEADLINE_S)
        answers = client.app.control.ping(timeout=DEADLINE_S, limit=2)
    assert {name.partition("@")[0] for answer in answers or () for name in answer} == {"gpu0", "gpu2"}
    fleet.send_signal(signal.SIGTERM)
    assert end_of(fleet)[0] == 0


def test_a_worker_that_keeps_ending_is_given_up_and_the_others_serve_on(
    services: LocalServices, start: Callable[[str, str], subprocess.Popen[str]]
) -> None:
    fleet = start("[0, 1]", "first_pause_s=0.1, max_early_ends=4")
    text = "".join(lines_until(fleet, "not started again"))
    assert re.findall(r"starts again in ([\d.]+) s", text) == ["0.1", "0.2", "0.4"]
    assert "the worker on GPU 1 ended with exit code 5, 4 times in a row within 60 s: it is not started again" in text
    assert set(workers_of(fleet)) == {"0"}
    with Client(config_of(env_of(services, DATABASE))) as client:
        client.result(client.submit(recipe()), timeout_s=DEADLINE_S)
    fleet.send_signal(signal.SIGTERM)
    assert end_of(fleet)[0] == 5


def test_a_signal_ends_the_wait_for_a_new_start(start: Callable[[str, str], subprocess.Popen[str]]) -> None:
    fleet = start("[1]", "first_pause_s=600, longest_pause_s=600")
    lines_until(fleet, "starts again in 600 s")
    fleet.send_signal(signal.SIGHUP)
    assert end_of(fleet)[0] == 5


@pytest.mark.parametrize(
    ("inherited", "gpu", "pinned"),
    [
        (None, 2, "2"),
        ("3,5", 1, "5"),
        ("GPU-8932f937-d72c, GPU-e1d40e4e-aa11", 1, "GPU-e1d40e4e-aa11"),
        ("MIG-GPU-8932f937/1/0", 0, "MIG-GPU-8932f937/1/0"),
    ],
)
def test_a_worker_is_pinned_to_a_gpu_of_those_that_its_parent_may_use(
    inherited: str | None, gpu: int, pinned: str
) -> None:
    env = {} if inherited is None else {"CUDA_VISIBLE_DEVICES": inherited}
    assert environment(env, gpu) == {"CUDA_VISIBLE_DEVICES": pinned, "AUTOSEQ_DEVICE": "cuda"}
    assert environment(env, None) == env


@pytest.mark.parametrize(("inherited", "count"), [("3,5", 2), ("0,1,-1,2", 2), ("", 0), ("NoDevFiles", 0)])
def test_a_gpu_that_the_parent_may_not_use_is_refused(inherited: str, count: int) -> None:
    with pytest.raises(LocalServiceError, match=f"no GPU 2: .* counts its {count} entries from 0"):
        environment({"CUDA_VISIBLE_DEVICES": inherited}, 2)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("AUTOSEQ_DEVICE", "cuda:1", "AUTOSEQ_DEVICE is cuda:1, and --gpus pins each worker"),
        ("AUTOSEQ_DEVICE", "cpu", "AUTOSEQ_DEVICE is cpu, and --gpus pins each worker"),
        ("AUTOSEQ_GPUS", "[0, 1]", "AUTOSEQ_GPUS spreads a model over the GPUs 0, 1, and --gpus"),
    ],
)
def test_settings_of_the_device_that_contradict_the_pinning_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(LocalServiceError, match=message):
        environment(os.environ, 0)


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_pinned_worker_may_name_its_only_gpu(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setenv("AUTOSEQ_DEVICE", device)
    assert environment(os.environ, 1)["AUTOSEQ_DEVICE"] == "cuda"
