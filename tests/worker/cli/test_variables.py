"""Recipes made from others, and their variables, on their way to a worker and through it."""

import json
from pathlib import Path

import pytest

from recipes.faults import RecipeError
from storage.objects.s3 import S3Store
from tests.worker.serving import DEADLINE_S, WorkerProcess, celery_call, celery_result, objects_of, recipe
from worker.client import Client
from worker.errors import RunFailed
from worker.history.verify import verify


@pytest.fixture
def child(tmp_path: Path) -> Path:
    """A recipe that is told in two files, for any animal."""
    (tmp_path / "base.yaml").write_text("name: base\ncontext:\n  - text: A ${animal}, $${animal}\nseed: 3\n")
    (tmp_path / "child.yaml").write_text("extends: base.yaml\nname: ${animal}-story\nvars: {animal: cat}\n")
    return tmp_path / "child.yaml"


def test_what_is_queued_is_whole(idle_client: Client, child: Path) -> None:
    run_id = idle_client.submit(child, variables={"animal": "fox"})
    assert idle_client.runs.record(run_id).document == {
        "name": "fox-story",
        "context": [{"text": "A fox, $${animal}"}],
        "seed": 3,
        "model": "scripted",
    }


def test_a_variable_that_is_not_there_is_refused_before_anything_is_queued(idle_client: Client, child: Path) -> None:
    with pytest.raises(RecipeError, match="variable animl: the recipe does not use it; did you mean 'animal'"):
        idle_client.submit(child, variables={"animl": "fox"})
    assert idle_client.list() == []


def test_what_a_worker_stores_is_what_the_model_reads(client: Client, s3_store: S3Store, child: Path) -> None:
    run_id = client.submit(child, variables={"animal": "fox"})
    client.result(run_id, timeout_s=DEADLINE_S)
    stored = json.loads(objects_of(s3_store, run_id)["recipe.json"])
    assert stored["context"] == [{"text": "A fox, ${animal}", "thought": False}]
    assert not {"extends", "vars"} & stored.keys()
    assert verify(client.journal(run_id)).whole


def test_a_celery_call_takes_variables(scripted_worker: WorkerProcess, s3_store: S3Store) -> None:
    run_id = celery_call(scripted_worker.env, recipe="any-place", variables={"place": "A lake", "images": 1})
    assert celery_result(scripted_worker, run_id).state == "SUCCESS"
    stored = json.loads(objects_of(s3_store, run_id)["recipe.json"])
    assert (stored["context"], stored["num_images"], stored["think"]) == (
        [{"text": "A lake", "thought": False}],
        1,
        True,
    )


def test_what_comes_over_the_network_extends_nothing(scripted_worker: WorkerProcess, client: Client) -> None:
    run_id = celery_call(scripted_worker.env, recipe=recipe(extends="magical-forest"))
    with pytest.raises(RunFailed, match="extends: is not supported in a recipe given as data"):
        client.result(run_id, timeout_s=DEADLINE_S)
