"""A sweep: checked as a whole, queued as a group, followed to its end, and seen on one picture."""

import base64
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from recipes.faults import RecipeError
from storage.errors import RunNotFoundError
from tests.worker.conftest import IDLE_DATABASE
from tests.worker.serving import WorkerProcess, config_of, env_of, eventually, long_recipe, picture_uri, recipe
from tests.worker.shell import Shell, end_of, lines_until, one_error, said
from worker.client import Client
from worker.client.sweeps import follow_sweep, states_of
from worker.connections import ServiceUnavailableError
from worker.jobs.inputs import InputError
from worker.local.services import LocalServices
from worker.settings import queue_of, settings

WAITING = "autoseq:" + queue_of("scripted") + "\x06\x163"
SHORT = "name: short\ncontext:\n  - text: A cat\nimage: {width: 64, height: 64, num_timesteps: 3}\n"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scripted_worker: WorkerProcess) -> Iterator[Shell]:
    """In an empty folder, with a worker that serves the scripted model."""
    shell = Shell(tmp_path, monkeypatch)
    shell.use({name: value for name, value in scripted_worker.env.items() if name.startswith("AUTOSEQ_")})
    yield shell
    monkeypatch.undo()
    settings.cache_clear()


def messages(client: Client) -> list[dict[str, Any]]:
    """The headers of what is queued, the oldest first."""
    found: Any = client.redis.lrange(WAITING, 0, -1)
    return [json.loads(message)["headers"] for message in reversed(found)]


def test_each_combination_is_a_run_of_one_celery_group(idle_client: Client) -> None:
    sweep = idle_client.sweep(recipe(), {"num_images": [1, 2], "seed": range(3)}, overrides={"think": False})
    assert sweep.sweep_id.startswith("test-")
    assert [run.values for run in sweep.runs][:4] == [
        {"num_images": 1, "seed": 0},
        {"num_images": 1, "seed": 1},
        {"num_images": 1, "seed": 2},
        {"num_images": 2, "seed": 0},
    ]
    assert [(header["id"], header["group"]) for header in messages(idle_client)] == [
        (f"{sweep.sweep_id}-{number:03d}", sweep.sweep_id) for number in range(1, 7)
    ]
    documents = [idle_client.runs.record(run_id).document for run_id in sweep.run_ids]
    assert [(one["num_images"], one["seed"], one["think"]) for one in documents if isinstance(one, dict)] == [
        (images, seed, False) for images in (1, 2) for seed in range(3)
    ]
    assert idle_client.sweeps.get(sweep.sweep_id) == sweep


def test_the_same_sweep_again_doubles_nothing(idle_client: Client) -> None:
    first = idle_client.sweep(recipe(), {"seed": [1, 2]}, sweep_id="again")
    idle_client.redis.delete(f"autoseq:run:{first.run_ids[1]}", f"autoseq:run:{first.run_ids[1]}:record")
    again = idle_client.sweep(recipe(), {"seed": [1, 2]}, sweep_id="again")
    assert again == first
    assert [header["id"] for header in messages(idle_client)] == ["again-001", "again-002", "again-002"]
    with pytest.raises(InputError, match="another sweep has this id; use another id"):
        idle_client.sweep(recipe(), {"seed": [1, 3]}, sweep_id="again")


def test_every_fault_of_every_combination_is_told_before_anything_is_queued(idle_client: Client) -> None:
    with pytest.raises(RecipeError) as raised:
        idle_client.sweep(recipe(), {"cfg_text_scale": [4, 200], "num_images": [1, 99], "seed": [1, 2]}, sweep_id="bad")
    assert str(raised.value).splitlines() == [
        "override num_images: 99 is too large (with num_images=99); allowed: whole numbers from 1 to 64",
        "override image.cfg_text_scale: 200 is too large (with cfg_text_scale=200); allowed: numbers from 0 to 100",
    ]
    with pytest.raises(RecipeError, match="unknown field 'num_imges'") as raised:
        idle_client.sweep(recipe(num_imges=3), {"seed": [1, 2]})
    assert "(with" not in str(raised.value), "it is not the sweep's"
    with pytest.raises(RecipeError, match="seed: its values are not JSON data"):
        idle_client.sweep(recipe(), {"seed": [object()]})
    assert messages(idle_client) == []
    with pytest.raises(RunNotFoundError):
        idle_client.sweeps.get("bad")


def test_images_are_checked_in_every_combination(idle_client: Client) -> None:
    good = picture_uri()
    bad = "data:image/png;base64," + base64.b64encode(b"none").decode()
    document = recipe(context=[{"image": good}, {"text": "Bigger"}])
    with pytest.raises(RecipeError, match=r"is not a readable image.*\(with context\.0\.image=data:"):
        idle_client.sweep(document, {"context.0.image": [good, bad]})
    assert messages(idle_client) == []


def test_a_queue_that_can_not_be_reached_says_how_to_go_on(idle_client: Client) -> None:
    idle_client.redis.set(WAITING, "in the way of the queue")
    with pytest.raises(
        ServiceUnavailableError, match="0 of 2 runs are queued, submit the same sweep as stuck to queue the others"
    ):
        idle_client.sweep(recipe(), {"seed": [1, 2]}, sweep_id="stuck")


def test_a_sweep_that_can_not_be_written_down_queues_nothing(services: LocalServices, idle_client: Client) -> None:
    env = env_of(services, IDLE_DATABASE, s3_endpoint="http://127.0.0.1:1")
    with (
        Client(config_of(env)) as client,
        pytest.raises(ServiceUnavailableError, match="the sweep can't be stored"),
    ):
        client.sweep(recipe(), {"seed": [1, 2]})
    assert messages(idle_client) == []


def test_a_sweep_that_is_not_followed_says_how_to_come_back(shell: Shell, client: Client) -> None:
    shell.recipe(SHORT)
    result = shell("submit", "mine.yaml", "--sweep", "seed=1..2", "--run-id", "queued-sweep")
    assert said(result) == "queued-sweep\n"
    assert result.stderr == "2 runs queued. Use `autoseq sweep queued-sweep --watch` to follow them.\n"
    *_, last = follow_sweep(client, client.sweeps.get("queued-sweep"))
    assert len(last) == 2


def test_a_sweep_is_followed_to_the_end_of_all_its_runs(client: Client) -> None:
    sweep = client.sweep(recipe(num_images=1), {"seed": [1, 2, 3]})
    *_, last = follow_sweep(client, sweep)
    assert [state.state for state in last.values() if state] == ["succeeded"] * 3
    client.redis.delete(*(f"autoseq:run:{run_id}" for run_id in sweep.run_ids))
    assert [state.state for state in states_of(client, sweep).values() if state] == ["succeeded"] * 3
    client.objects.delete(f"served/{sweep.run_ids[0]}/manifest.json")
    assert states_of(client, sweep)[sweep.run_ids[0]] is None
    assert len(list(follow_sweep(client, sweep))) == 1, "there is nothing to wait for"


def test_a_sweep_ends_with_one_picture_of_all_its_runs(shell: Shell, client: Client) -> None:
    shell.recipe(SHORT)
    sweeps = ("--sweep", "cfg_text_scale=2,4,6", "--sweep", "seed=1..2")
    result = shell("submit", "mine.yaml", *sweeps, "--run-id", "pictured", "--watch")
    lines = said(result).splitlines()
    assert lines[0] == "pictured"
    sheet = shell.folder / "out" / "pictured" / "contact-sheet.png"
    assert lines[1] == f"  contact sheet  {sheet.as_uri()}"
    assert "[6/6] cfg_text_scale=6, seed=2: succeeded in" in result.stderr
    assert "6 of 6 succeeded" in result.stderr
    with Image.open(sheet) as picture:
        assert picture.size == (20 + 170 + 2 * 276, 20 + 2 * (21 + 10) + 3 * 276)
    assert client.objects.get("served/sweeps/pictured/contact-sheet.png") == sheet.read_bytes()
    made = sheet.read_bytes()
    sheet.unlink()
    shown = said(shell("sweep", "pictured"))
    assert "pictured-006\t6\t2\tsucceeded in" in shown
    assert sheet.read_bytes() == made, "made again, the same"
    data = json.loads(said(shell("sweep", "pictured", "--json")))
    assert data["runs"][5]["values"] == {"cfg_text_scale": 6, "seed": 2}
    assert data["contact_sheet"] == str(sheet)


def test_a_cancelled_run_leaves_its_place_empty(shell: Shell, client: Client) -> None:
    shell.recipe(json.dumps(long_recipe()), "long.yaml")
    data = json.loads(said(shell("submit", "long.yaml", "--sweep", "seed=1,2", "--json")))
    assert [run["state"] for run in data["runs"]] == ["queued", "queued"] or data["runs"][0]["state"] == "running"
    for run in data["runs"]:
        client.cancel(run["run_id"])
    result = shell("sweep", data["sweep_id"], "--watch")
    assert "contact sheet" in said(result, code=4)
    assert "2 cancelled" in result.stderr


def test_ctrl_c_leaves_the_runs_running_and_says_how_to_come_back(shell: Shell, client: Client) -> None:
    shell.recipe(json.dumps(long_recipe()), "long.yaml")
    process = shell.start("submit", "long.yaml", "--sweep", "seed=1..2", "--run-id", "left", "--watch")
    lines_until(process, "[1/2] seed=1: running")
    process.send_signal(signal.SIGINT)
    code, output = end_of(process)
    assert code == 130
    assert "Use `autoseq sweep left --watch` to watch them again." in output
    eventually(lambda: client.state("left-001").state == "running", "a run that goes on")
    unfinished = said(shell("sweep", "left"))
    assert "contact sheet" not in unfinished
    for run_id in ("left-001", "left-002"):
        client.cancel(run_id)
    *_, last = follow_sweep(client, client.sweeps.get("left"))
    assert [state.state for state in last.values() if state] == ["cancelled"] * 2


def test_a_sweep_that_fails_tells_the_shell(shell: Shell, client: Client) -> None:
    sweep = client.sweep(recipe(), {"seed": [1, 2]}, sweep_id="failing")
    *_, _last = follow_sweep(client, sweep)
    client.redis.hset("autoseq:run:failing-002", mapping={"state": "failed", "error": "out of memory"})
    result = shell("sweep", "failing", "--watch", "--json")
    runs = json.loads(said(result, code=1))["runs"]
    assert [(run["state"], run["error"]) for run in runs] == [("succeeded", None), ("failed", "out of memory")]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--sweep", "seed"), "is not a sweep"),
        (("--sweep", "seed=1", "--sweep", "seed=2"), "sweep: seed is given twice"),
        (("--sweep", "seed=1..300"), "more than 256"),
        (("--sweep", "seed=1", "--run-id", "a b"), "sweep id 'a b'"),
    ],
)
def test_a_wrong_sweep_is_bad_input(options: tuple[str, ...], why: str, shell: Shell) -> None:
    shell.recipe(SHORT)
    assert why in one_error(shell("submit", "mine.yaml", *options), code=2)


def test_a_sweep_has_no_key_of_its_own(shell: Shell) -> None:
    shell.recipe(SHORT)
    result = shell("submit", "mine.yaml", "--sweep", "seed=1", "--dedupe")
    assert result.exit_code == 2
    assert "--run-id" in result.stderr


def test_a_sweep_no_one_knows_is_bad_input(shell: Shell) -> None:
    assert "sweep nope: there is none in s3://" in one_error(shell("sweep", "nope"), code=2)
