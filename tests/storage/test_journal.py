"""A step counts once, whoever commits it, and a run's records are the same bytes wherever it is done."""

import hashlib
import json
from dataclasses import asdict, replace

import pytest

from storage import keys
from storage.errors import (
    CommitConflictError,
    CorruptRecordError,
    NewerRecordError,
    ObjectExistsError,
    ObjectNotFoundError,
    StoreUnavailableError,
)
from storage.journal import Artifact, Commit, Journal, Manifest, ModelRecord
from storage.objects import ObjectStore
from storage.objects.memory import MemoryStore

PICTURE = Artifact(
    kind="image",
    role="image",
    step=2,
    key="steps/002-image.png",
    content_type="image/png",
    size=3,
    sha256="aa",
    index=0,
    seed=2**63 - 1,
    width=96,
    height=64,
)


def commit_of(step: int, run_id: str = "r1", *artifacts: Artifact) -> Commit:
    return Commit(run_id=run_id, step=step, kind="draw", artifacts=artifacts, recipe_sha256="cafe")


def manifest_of(run_id: str = "r1") -> Manifest:
    return Manifest(
        run_id=run_id, name="küste", recipe_sha256="cafe", model="tiny", seed=7, steps=2, artifacts=(PICTURE,)
    )


@pytest.fixture
def journal(store: ObjectStore, prefix: str) -> Journal:
    return Journal(store, prefix, "r1")


def test_a_new_run_has_done_nothing(journal: Journal) -> None:
    assert journal.commits() == ()
    assert journal.manifest() is None


def test_what_is_committed_is_read_back(journal: Journal) -> None:
    done = (commit_of(1), commit_of(2, "r1", PICTURE), *map(commit_of, range(3, 13)))
    for commit in done:
        journal.commit(commit)
    assert journal.commits() == done


def test_a_commit_whose_answer_was_lost_is_done_again_without_harm(journal: Journal) -> None:
    journal.commit(commit_of(1))
    journal.commit(commit_of(1))
    assert journal.commits() == (commit_of(1),)


def test_a_step_that_another_worker_committed_differently_is_not_ours(journal: Journal) -> None:
    journal.commit(commit_of(1))
    with pytest.raises(CommitConflictError, match=r"commits/001\.json: another worker wrote this differently"):
        journal.commit(replace(commit_of(1), kind="write"))
    assert journal.commits() == (commit_of(1),)


def test_the_manifest_is_written_once(journal: Journal) -> None:
    journal.write_manifest(manifest_of())
    journal.write_manifest(manifest_of())
    with pytest.raises(CommitConflictError, match=r"manifest\.json"):
        journal.write_manifest(replace(manifest_of(), seed=8))
    assert journal.manifest() == manifest_of()


def test_records_are_the_same_bytes_in_any_store(prefix: str, store: ObjectStore) -> None:
    first, second = Journal(store, prefix, "r1"), Journal(MemoryStore("elsewhere"), "other", "r1")
    for journal in (first, second):
        journal.commit(commit_of(1, "r1", PICTURE))
        journal.write_manifest(manifest_of())
    assert first.get("commits/001.json") == second.get("commits/001.json")
    assert first.get("manifest.json") == second.get("manifest.json")


def test_a_gap_in_the_records_is_told(journal: Journal) -> None:
    journal.commit(commit_of(1))
    journal.commit(commit_of(3))
    with pytest.raises(CorruptRecordError, match="without a gap"):
        journal.commits()


@pytest.mark.parametrize("record", [b"", b"[]", b"{}", b'{"artifacts": [{"size": 1}]}', b"\xff"])
def test_a_foreign_record_is_told(journal: Journal, record: bytes) -> None:
    journal.put("commits/001.json", record, content_type="application/json")
    with pytest.raises(CorruptRecordError, match=r"commits/001\.json: not a record of this program"):
        journal.commits()


def rewrite(journal: Journal, name: str, /, **fields: object) -> None:
    """Set fields of a record, as another release would write it."""
    record = {**json.loads(journal.get(name)), **fields}
    journal.put(name, json.dumps(record).encode(), content_type="application/json")


def test_fields_of_a_newer_release_are_ignored(journal: Journal) -> None:
    journal.commit(commit_of(1, "r1", PICTURE))
    journal.write_manifest(manifest_of())
    journal.write_model("tiny", "cafe")
    (artifact,) = json.loads(journal.get(keys.commit(1)))["artifacts"]
    for name in (keys.commit(1), keys.MANIFEST):
        rewrite(journal, name, artifacts=[{**artifact, "frames": [1]}], duration_s=1.5)
    rewrite(journal, keys.MODEL, version=1, quantized=True)
    assert journal.commits() == (commit_of(1, "r1", PICTURE),)
    assert journal.manifest() == manifest_of()
    assert journal.model() == ModelRecord(name="tiny", sha256="cafe")


def test_a_record_of_a_newer_version_is_left_to_a_newer_release(journal: Journal) -> None:
    journal.commit(commit_of(1))
    journal.write_manifest(manifest_of())
    journal.write_model("tiny", "cafe")
    for name in (keys.commit(1), keys.MANIFEST, keys.MODEL):
        rewrite(journal, name, version=2, run_id=None, name=None)
    for read in (journal.commits, journal.manifest, journal.model):
        with pytest.raises(NewerRecordError, match=r"\.json: has version 2, written by a newer release; this release"):
            read()


@pytest.mark.parametrize("version", ["2", 0, -1, None, True, 1.5])
def test_a_version_that_is_none_is_told(journal: Journal, version: object) -> None:
    journal.commit(commit_of(1))
    rewrite(journal, keys.commit(1), version=version)
    with pytest.raises(CorruptRecordError, match=r"001\.json: not a record of this program: version: "):
        journal.commits()


def test_commits_are_counted_without_being_read(journal: Journal) -> None:
    assert journal.count_commits() == 0
    journal.commit(commit_of(1))
    journal.put(keys.commit(2), b"unreadable", content_type="application/json")
    assert journal.count_commits() == 2


def test_the_model_of_a_run_is_recorded_once(journal: Journal) -> None:
    assert journal.model() is None
    journal.write_model("tiny", "cafe")
    journal.write_model("tiny", "cafe")
    journal.put_once(keys.RECIPE, b"{}", content_type="application/json")
    with pytest.raises(CommitConflictError, match=r"model\.json"):
        journal.write_model("tiny", "beef")


def test_the_model_of_a_worker_that_stopped_before_the_run_began_is_replaced(journal: Journal) -> None:
    journal.write_model("tiny", "cafe")
    journal.write_model("tiny", "beef")
    record = journal.model()
    assert record is not None
    assert record.sha256 == "beef"


def test_a_manifest_that_lacks_only_the_model_is_the_same(journal: Journal) -> None:
    """A worker of release 0.1.0 wrote it and stopped before it could report the end."""
    journal.write_manifest(manifest_of())
    journal.write_manifest(replace(manifest_of(), model_sha256="cafe"))
    assert journal.manifest() == manifest_of()
    with pytest.raises(CommitConflictError, match=r"manifest\.json"):
        journal.write_manifest(replace(manifest_of(), model_sha256="cafe", seed=8))


def test_records_have_the_names_and_fields_of_release_0_1_0(journal: Journal) -> None:
    journal.commit(commit_of(1, "r1", replace(PICTURE, selected=False)))
    journal.write_manifest(manifest_of())
    commit, manifest = json.loads(journal.get(keys.commit(1))), json.loads(journal.get(keys.MANIFEST))
    assert list(commit) == ["artifacts", "kind", "recipe_sha256", "run_id", "step"]
    assert " ".join(commit["artifacts"][0]) == (
        "attempt chosen content_type given height index key kind path role score seed sha256 size step variation width"
    )
    assert commit["artifacts"][0]["chosen"] is False
    assert " ".join(manifest) == "artifacts images model name parent recipe_sha256 run_id seed state steps"


def test_an_interrupted_workers_object_is_replaced(journal: Journal) -> None:
    journal.put("steps/001-image.png", b"of a worker that died", content_type="image/png")
    journal.put_of_step(1, "steps/001-image.png", b"of this one", content_type="image/png")
    assert journal.get("steps/001-image.png") == b"of this one"


def test_a_committed_object_is_never_replaced(journal: Journal) -> None:
    journal.put_of_step(1, "steps/001-image.png", b"committed", content_type="image/png")
    journal.commit(commit_of(1))
    journal.put_of_step(1, "steps/001-image.png", b"committed", content_type="image/png")
    with pytest.raises(CommitConflictError, match="committed this step differently"):
        journal.put_of_step(1, "steps/001-image.png", b"of another machine", content_type="image/png")
    assert journal.get("steps/001-image.png") == b"committed"


def test_objects_are_named_by_their_place_in_the_run(journal: Journal, store: ObjectStore, prefix: str) -> None:
    journal.put("index.html", b"page", content_type="text/html")
    assert journal.address("index.html") == store.address(f"{prefix}/r1/index.html")
    assert f"{prefix}/r1/index.html" in journal.url("index.html")
    with pytest.raises(ObjectNotFoundError):
        journal.get("recipe.json")


class FlickeringStore(MemoryStore):
    """Says an object exists that is then not there: a conflict with a put that was undone."""

    def put(self, key: str, data: bytes, *, content_type: str, only_if_absent: bool = False) -> None:
        del data, content_type, only_if_absent
        raise ObjectExistsError(key)


def test_a_conflict_over_nothing_is_worth_another_try() -> None:
    with pytest.raises(StoreUnavailableError, match="undone"):
        Journal(FlickeringStore(), "", "r1").commit(commit_of(1))


@pytest.mark.parametrize("other", [replace(commit_of(1), run_id="r2"), replace(commit_of(1), step=2)])
def test_a_record_of_another_run_or_step_is_told(journal: Journal, other: Commit) -> None:
    journal.put_once(keys.commit(1), json.dumps(asdict(other)).encode(), content_type="application/json")
    with pytest.raises(CorruptRecordError, match=f"is of step {other.step} of the run {other.run_id}"):
        journal.commits()


def test_a_field_of_the_wrong_type_is_named(journal: Journal) -> None:
    fields = {**asdict(commit_of(1, "r1", PICTURE)), "step": "one"}
    journal.put_once(keys.commit(1), json.dumps(fields).encode(), content_type="application/json")
    with pytest.raises(CorruptRecordError, match=r"001\.json: not a record of this program: step: "):
        journal.commits()


def test_what_was_committed_is_gone_or_changed(journal: Journal) -> None:
    with pytest.raises(CorruptRecordError, match=r"002-image\.png: is missing, and step 2 is committed"):
        journal.read_artifact(PICTURE)
    journal.put(PICTURE.key, b"abc", content_type="image/png")
    with pytest.raises(CorruptRecordError, match="is not what step 2 committed"):
        journal.read_artifact(PICTURE)
    assert journal.read_artifact(replace(PICTURE, sha256=hashlib.sha256(b"abc").hexdigest())) == b"abc"
