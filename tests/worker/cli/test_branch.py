"""`autoseq branch`, through real services and workers."""

import json

import pytest

from recipes.load import load
from storage.events import ArtifactStored
from storage.objects.s3 import S3Store
from tests.worker.serving import DEADLINE_S, env_of, objects_of, recipe
from tests.worker.shell import Shell, one_error, said
from worker.client import Client
from worker.history.history import PlaceError
from worker.history.verify import verify
from worker.local.services import LocalServices
from worker.settings import settings


def made(store: S3Store, run_id: str, name: str) -> bytes:
    return objects_of(store, run_id)[name]


def test_a_branch_goes_on_with_another_setting(serving: Shell, parent: str, client: Client, s3_store: S3Store) -> None:
    result = serving("branch", parent, "--at", "3", "--set", "seed=9", "--set", "num_timesteps=6", "--watch", "--json")
    first = json.loads(said(result).splitlines()[0])
    assert first["parent"] == f"{parent}@3"
    found = client.result(first["run_id"], timeout_s=DEADLINE_S)
    assert [one["role"] for one in found["artifacts"]] == ["refinement", "thinking", "image"]
    stored = json.loads(made(s3_store, first["run_id"], "recipe.json"))
    assert (stored["seed"], stored["image"]["num_timesteps"], stored["num_images"]) == (9, 6, 1)
    assert stored["context"][0] == {"text": "A cat", "thought": False}
    assert verify(client.journal(first["run_id"])).whole


def test_a_branch_can_be_a_file_for_later(serving: Shell, parent: str, client: Client) -> None:
    before = len(client.list(1000))
    printed = said(serving("branch", parent, "--at", "4", "--no-submit"))
    result = serving("branch", parent, "--at", "4", "--no-submit", "--out", "later.yaml")
    assert (said(result), result.stderr) == ("", "Recipe written to later.yaml.\n")
    assert (serving.folder / "later.yaml").read_text() == printed
    assert load(serving.folder / "later.yaml").parent == f"{parent}@4"
    assert len(client.list(1000)) == before
    run_id = said(serving("submit", "later.yaml", "--watch")).strip()
    assert client.result(run_id)["state"] == "succeeded"


def test_a_branch_is_queued_as_anything_is(serving: Shell, parent: str) -> None:
    first = said(serving("branch", parent, "--at", "3", "--dedupe", "--out", "kept.yaml", "--run-id", f"{parent}-b"))
    assert first == f"{parent}-b\n"
    assert said(serving("branch", parent, "--at", "3", "--dedupe")) == first
    assert serving("branch", parent, "--at", "3", "--dedupe", "--idempotency-key", "k").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--at", "7"], "step 7: does not exist; allowed: 1 to 6"),
        (["--at", "3", "--variation", "1"], "step 3: has no variation 1; allowed: 0"),
        (["--at", "6"], "step 6: all 2 images are complete; set how many more to draw: num_images=1 or more"),
        (["--at", "3", "--set", "num_images=0"], "num_images: 0 is too small"),
    ],
)
def test_a_branch_that_can_not_be_is_refused_in_one_line(
    serving: Shell, parent: str, arguments: list[str], message: str
) -> None:
    assert message in one_error(serving("branch", parent, *arguments), code=2)
    assert message in one_error(serving("branch", parent, *arguments, "--no-submit"), code=2)


def test_only_runs_can_be_branched_off(serving: Shell) -> None:
    assert "there is no such run" in one_error(serving("branch", "nope", "--at", "1"), code=2)
    assert "run id 'a b'" in one_error(serving("branch", "a b", "--at", "1"), code=2)


def test_without_s3_it_is_said_that_s3_is_not_there(serving: Shell, parent: str) -> None:
    serving.patch.setenv("AUTOSEQ_S3_ENDPOINT", "http://127.0.0.1:1")
    settings.cache_clear()
    assert f"run {parent} can't be read: " in one_error(serving("branch", parent, "--at", "3"), code=3)


def test_without_a_worker_a_branch_waits(
    serving: Shell, services: LocalServices, idle_client: Client, parent: str
) -> None:
    assert idle_client.list() == []
    serving.use(env_of(services, 1))
    result = serving("branch", parent, "--at", "3")
    assert "No worker is running" in result.stderr


def test_python_branches_a_run_under_way(client: Client) -> None:
    run_id = client.submit(recipe(num_images=8, image={"num_timesteps": 1000}))
    for event in client.watch(run_id, timeout_s=DEADLINE_S):
        if isinstance(event, ArtifactStored) and event.role == "thinking":
            break
    with pytest.raises(PlaceError, match="is not complete yet"):
        client.branch(run_id, at=24)
    branch = client.branch(run_id, at=2, overrides={"num_timesteps": 4, "num_images": 1}, priority="high")
    client.cancel(run_id)
    assert [one["role"] for one in client.result(branch, timeout_s=DEADLINE_S)["artifacts"]] == ["image"]
