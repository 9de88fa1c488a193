"""A run that another release began is resumed, checked and branched as it was stored, or left to a newer release."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from core.events import Event
from recipes.canonical import VERSION, canonical_json, recipe_sha256
from recipes.faults import RecipeError
from storage import keys
from storage.errors import CorruptRecordError, NewerRecordError
from storage.journal import Journal
from storage.objects.memory import MemoryStore
from storage.png import CHUNKS
from tests.worker.serving import PREFIX, make_run, objects_of, recipe, request
from worker.history.branch import branched
from worker.history.history import read_history
from worker.history.provenance import provenance_of_run
from worker.history.verify import verify
from worker.jobs.job import Job, restore, store
from worker.serve.engine import SCRIPTED_SHA256

RUN = "run-1"
SHA256 = "0123456789abcdef" * 4


def journal_with(document: dict[str, Any]) -> Journal:
    """A run that was begun with a stored document."""
    journal = Journal(MemoryStore(), PREFIX, RUN)
    journal.put(keys.RECIPE, canonical_json(document), content_type="application/json")
    return journal


def document_of(**fields: object) -> dict[str, Any]:
    """The document that this release stores, with further fields."""
    objects = MemoryStore()
    make_run(request(RUN), objects)
    stored: dict[str, Any] = json.loads(objects.get(f"{PREFIX}/{RUN}/{keys.RECIPE}"))
    return {**stored, **fields}


def restored(journal: Journal) -> Job:
    job = restore(RUN, journal)
    assert job is not None
    return job


class Killed(Exception):  # noqa: N818 - what happens to a worker
    pass


def test_a_run_with_fields_of_a_newer_release_keeps_its_hash_and_is_resumed() -> None:
    document = document_of(sampler="euler")
    document["image"]["sampler_steps"] = {"first": [1, 2]}
    whole, broken = journal_with(document), journal_with(document)
    sha256 = recipe_sha256(document, [])
    make_run(request(RUN), whole.store, job=restored(whole))

    def kill(event: Event | None = None) -> None:
        if event is not None and event.step.number == 5:
            raise Killed

    with pytest.raises(Killed):
        make_run(request(RUN), broken.store, job=restored(broken), checkpoint=kill)
    assert 0 < broken.count_commits() < whole.count_commits()
    make_run(request(RUN), broken.store, job=restored(broken))
    assert objects_of(broken.store, RUN) == objects_of(whole.store, RUN)
    assert {commit.recipe_sha256 for commit in whole.commits()} == {sha256}
    assert json.loads(whole.get(keys.RECIPE)) == document
    assert verify(whole).flaws == ()
    assert provenance_of_run(whole).stored.sha256 == sha256
    assert "sampler" not in branched(whole, at=4)


def test_a_job_is_stored_again_as_it_was() -> None:
    journal = journal_with(document_of(sampler="euler"))
    store(restored(journal), journal)  # raises when the bytes are others


@pytest.mark.parametrize(
    "read",
    [lambda journal: restore(RUN, journal), verify, read_history, provenance_of_run, lambda one: branched(one, at=1)],
    ids=["restore", "verify", "history", "provenance", "branch"],
)
def test_a_recipe_of_a_newer_version_is_left_to_a_newer_release(read: Callable[[Journal], object]) -> None:
    journal = journal_with(document_of(version=VERSION + 1, context="of another form"))
    newer = rf"recipe\.json: has version {VERSION + 1}, written by a newer release; this release"
    with pytest.raises(NewerRecordError, match=newer):
        read(journal)


@pytest.mark.parametrize("version", ["2", 0, None, True, 2.0])
def test_a_version_that_is_none_is_told(version: object) -> None:
    with pytest.raises(CorruptRecordError, match="version: must be a whole number from 1"):
        restore(RUN, journal_with(document_of(version=version)))


def run_of_model(sha256: str | None) -> Journal:
    """A complete run of a model with a fingerprint."""
    journal = Journal(MemoryStore(), PREFIX, RUN)
    make_run(request(RUN), journal.store)
    job = restored(journal)
    journal = Journal(MemoryStore(), PREFIX, RUN)
    make_run(request(RUN), journal.store, job=replace(job, model_sha256=sha256))
    return journal


def test_the_model_is_recorded_when_a_run_begins_and_named_in_all_that_it_leaves() -> None:
    journal, plain = run_of_model(SHA256), run_of_model(None)
    model, manifest = journal.model(), journal.manifest()
    assert model is not None
    assert manifest is not None
    assert (model.name, model.sha256, manifest.model_sha256) == ("scripted", SHA256, SHA256)
    assert restored(journal).model_sha256 == SHA256
    assert SHA256.encode() in journal.get("steps/003-image.png")
    assert verify(journal).flaws == ()
    assert plain.model() is None
    assert b"model_sha256" not in plain.get(keys.MANIFEST)
    assert CHUNKS["model_sha256"].encode() not in plain.get("steps/003-image.png")
    assert verify(plain).flaws == ()


def test_images_and_a_manifest_of_a_worker_that_does_not_name_its_model_are_whole() -> None:
    """Release 0.1.0 continued a run that this one had begun."""
    journal, plain = run_of_model(SHA256), run_of_model(None)
    for name in ("steps/006-image.png", "commits/006.json"):
        journal.put(name, plain.get(name), content_type="")
    mixed = json.loads(journal.get(keys.MANIFEST))
    mixed["artifacts"][-1] = json.loads(plain.get(keys.MANIFEST))["artifacts"][-1]
    for left_out in ((), ("model_sha256",)):
        manifest = {name: value for name, value in mixed.items() if name not in left_out}
        journal.put(keys.MANIFEST, json.dumps(manifest).encode(), content_type="")
        assert verify(journal).flaws == ()


def test_another_model_than_the_recorded_one_is_a_flaw() -> None:
    journal = run_of_model(SHA256)
    journal.put(keys.MODEL, json.dumps({"name": "scripted", "sha256": "0" * 64}).encode(), content_type="")
    chunk = CHUNKS["model_sha256"]
    assert [str(flaw) for flaw in verify(journal).flaws] == [
        f"steps/003-image.png: its text chunk {chunk} is {SHA256!r}, expected {'0' * 64!r}",
        f"steps/006-image.png: its text chunk {chunk} is {SHA256!r}, expected {'0' * 64!r}",
        f"manifest.json: does not match the commits: model_sha256 is {SHA256!r}, expected {'0' * 64!r}",
    ]
    journal.put(keys.MODEL, json.dumps({"name": "other", "sha256": SHA256}).encode(), content_type="")
    assert [str(flaw) for flaw in verify(journal).flaws] == ["model.json: has the model other, the recipe has scripted"]


def test_a_recipe_that_pins_its_model_says_so_in_the_bucket() -> None:
    objects = MemoryStore()
    make_run(request(RUN, recipe(model_sha256=SCRIPTED_SHA256)), objects)
    journal = Journal(objects, PREFIX, RUN)
    assert restored(journal).recipe.model_sha256 == SCRIPTED_SHA256
    journal.put(keys.MODEL, json.dumps({"name": "scripted", "sha256": "0" * 64}).encode(), content_type="")
    assert f"model.json: has the fingerprint {'0' * 64}, the recipe has {SCRIPTED_SHA256}" in map(
        str, verify(journal).flaws
    )


def test_a_recipe_that_pins_another_model_is_refused() -> None:
    objects = MemoryStore()
    with pytest.raises(RecipeError, match=f"model_sha256: pins {SHA256}, .*'scripted' is {SCRIPTED_SHA256}; allowed"):
        make_run(request(RUN, recipe(model_sha256=SHA256)), objects)
    assert objects_of(objects, RUN) == {}
