"""The runs of release 0.1.0 are read, checked, branched, compared and finished as that release would."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from core.plan import plan
from core.scripted import SPEC
from storage import keys
from storage.journal import Journal
from storage.objects.memory import MemoryStore
from storage.sweeps import Sweeps
from tests.releases.old_worker import OldRelease
from tests.releases.restore import BUCKET, PREFIX, REDIS, restore_bucket
from tests.worker.serving import make_run, objects_of
from worker.history.branch import branched
from worker.history.diff import compare
from worker.history.history import PlaceError, read_history
from worker.history.lineage import read_lineage
from worker.history.provenance import provenance_of_image, provenance_of_run
from worker.history.verify import verify
from worker.jobs.exact_numbers import exact_numbers
from worker.jobs.inputs import Sources
from worker.jobs.job import resolve, restore
from worker.jobs.request import RunRequest
from worker.jobs.result import result_of
from worker.jobs.stored_recipe import read_stored_recipe
from worker.settings import PROJECT

RELEASE = Path(__file__).parent / "0.1.0"
READER = Path(__file__).parent / "read_0_1_0.py"
ROOT = RELEASE / BUCKET / PREFIX
RUNS = sorted(folder.name for folder in ROOT.iterdir() if folder.name != keys.SWEEPS)
FINISHED = [run_id for run_id in RUNS if (ROOT / run_id / keys.MANIFEST).exists()]
EXPECTED: Mapping[str, Mapping[str, str]] = json.loads((RELEASE / "expected.json").read_text())
NOT_SCRIPTED = ("inflight-tiny",)
"""Its bytes hold only on the kind of machine that made them."""
STARTED = sorted(set(EXPECTED).intersection(RUNS).difference(NOT_SCRIPTED))
WAITING = sorted(set(EXPECTED).difference(RUNS))
PAIRS = (
    ("done", "done-branch"),
    ("done", "inflight-branch"),
    ("done", "failed"),
    ("done", "windowed"),
    ("done-tiny", "inflight-tiny"),
    ("edited", "inflight-input"),
    ("grid-001", "grid-002"),
    ("judged", "inflight"),
    ("tree", "judged"),
)
RENAMED = {"parting": "first_divergence", "goes_on": "selected"}
"""Names in the JSON of a difference."""
DEDUPED = {
    "edited": "recipe-fba0ec5210ca9e6ccb07c4e7cc49e126e5334d9af517ba6e64bfbe832f4dd339",
    "deduped": "recipe-dceab0284e498c752da139a764e513460db15f0d23a71ce6be2eff0e1ca849b8",
}


def restored() -> MemoryStore:
    store = MemoryStore()
    restore_bucket(RELEASE, store)
    return store


SNAPSHOT: Final = restored()
"""Nothing writes to it."""


def journal_of(run_id: str) -> Journal:
    """A run of the snapshot."""
    return Journal(SNAPSHOT, PREFIX, run_id)


def submitted(run_id: str) -> RunRequest:
    """What was asked for, as the snapshot of Redis has it."""
    entries = json.loads((RELEASE / REDIS).read_text())
    (text,) = [entry["value"] for entry in entries if entry["key"] == keys.run_record(run_id)]
    record = json.loads(text)
    return RunRequest(
        run_id=run_id,
        recipe=record["document"],
        overrides=record["overrides"],
        variables=record.get("variables", {}),
    )


def hashes_of(store: MemoryStore, run_id: str) -> dict[str, str]:
    """What a run left, but for its page, which each release draws as it likes."""
    left = objects_of(store, run_id, prefix=PREFIX)
    return {name: hashlib.sha256(data).hexdigest() for name, data in left.items() if name != keys.PAGE}


def expected_of(run_id: str) -> dict[str, str]:
    return {name: sha256 for name, sha256 in EXPECTED[run_id].items() if name != keys.PAGE}


def branch_of(journal: Journal, at: int, variation: int | None) -> dict[str, Any] | None:
    try:
        return branched(journal, at=at, variation=variation, overrides={"num_images": 1})
    except PlaceError:
        return None


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What release 0.1.0 itself finds in the bucket."""
    release = OldRelease.unpack(RELEASE, tmp_path_factory.mktemp("0.1.0") / "code")
    command = [sys.executable, str(READER), str(RELEASE / BUCKET), json.dumps(PAIRS)]
    done = subprocess.run(command, env=release.env({}), cwd=release.code, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    assert sorted(found["runs"]) == RUNS
    return found


def as_json(data: object) -> Any:
    return json.loads(json.dumps(data))


@pytest.mark.parametrize("run_id", RUNS)
def test_records_are_read_and_written_to_the_byte(run_id: str) -> None:
    journal = journal_of(run_id)
    commits = journal.commits()
    assert len(commits) == journal.count_commits() > 0
    for commit in commits:
        assert commit.to_json() == journal.get(keys.commit(commit.step))
    manifest = journal.manifest()
    assert (manifest is not None) == (run_id in FINISHED)
    if manifest is not None:
        assert manifest.to_json() == journal.get(keys.MANIFEST)
    assert journal.model() is None


@pytest.mark.parametrize("sweep_id", ["grid", "open"])
def test_sweeps_are_read_and_written_to_the_byte(sweep_id: str) -> None:
    store = restored()
    sweep = Sweeps(store, PREFIX).get(sweep_id)
    assert len(sweep.runs) > 2
    Sweeps(store, PREFIX).create(sweep)  # raises when the bytes are others


@pytest.mark.parametrize("run_id", RUNS)
def test_a_run_is_identified_restored_and_shown_as_before(run_id: str, old: Mapping[str, Any]) -> None:
    journal = journal_of(run_id)
    job = restore(run_id, journal)
    assert job is not None
    assert job.recipe_sha256 == read_stored_recipe(journal).sha256 == old["runs"][run_id]["recipe_sha256"]
    assert {commit.recipe_sha256 for commit in journal.commits()} == {job.recipe_sha256}
    assert provenance_of_run(journal).to_yaml() == old["runs"][run_id]["yaml"]
    manifest = journal.manifest()
    assert as_json(manifest and result_of(manifest, journal)) == exact_numbers(old["runs"][run_id]["result"])


@pytest.mark.parametrize("run_id", RUNS)
def test_verify_finds_what_it_found(run_id: str, old: Mapping[str, Any]) -> None:
    found, before = verify(journal_of(run_id)), old["runs"][run_id]["verify"]
    assert found.whole == before["whole"] == (run_id in FINISHED)
    assert (found.steps, found.objects) == (before["steps"], before["objects"])
    assert [flaw.name for flaw in found.flaws] == [flaw["name"] for flaw in before["flaws"]]


@pytest.mark.parametrize("run_id", RUNS)
def test_branches_are_the_same_at_every_step(run_id: str, old: Mapping[str, Any]) -> None:
    journal = journal_of(run_id)
    for number, before in enumerate(old["runs"][run_id]["branches"], 1):
        assert [branch_of(journal, number, variation) for variation in (None, 0, 1, 2)] == before
    assert any(one for step in old["runs"][run_id]["branches"] for one in step)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_differences_are_the_same(pair: tuple[str, str], old: Mapping[str, Any]) -> None:
    before = json.dumps(old["differences"][" ".join(pair)])
    for earlier, name in RENAMED.items():
        before = before.replace(f'"{earlier}":', f'"{name}":')
    assert as_json(compare(*pair, journal_of).to_data()) == json.loads(before)


def test_a_branch_goes_back_to_where_it_branched_off() -> None:
    lineage = read_lineage(read_history(journal_of("done-branch")), journal_of)
    assert lineage.fork_point is not None
    assert (lineage.fork_point.history.run_id, lineage.fork_point.step.number) == ("done", 6)


@pytest.mark.parametrize("run_id", FINISHED)
def test_every_image_leads_to_its_recipe(run_id: str) -> None:
    manifest = journal_of(run_id).manifest()
    assert manifest is not None
    for key in manifest.images:
        provenance, picture = provenance_of_image(ROOT / run_id / key, journal_of)
        assert (provenance.journal.run_id, picture.model_sha256) == (run_id, None)


@pytest.mark.parametrize("run_id", STARTED)
def test_a_started_run_ends_in_the_expected_bytes(run_id: str) -> None:
    store = restored()
    before = hashes_of(store, run_id)
    job = restore(run_id, Journal(store, PREFIX, run_id))
    assert job is not None
    make_run(submitted(run_id), store, prefix=PREFIX, job=job)
    assert hashes_of(store, run_id) == expected_of(run_id)
    assert len(before) < len(expected_of(run_id))
    assert verify(Journal(store, PREFIX, run_id)).whole


@pytest.mark.parametrize("run_id", WAITING)
def test_a_waiting_run_ends_in_the_expected_bytes(run_id: str) -> None:
    store = MemoryStore()
    asked = submitted(run_id)
    unidentified = resolve(asked, SPEC, recipes=PROJECT / "recipes", sources=Sources())  # 0.1.0 knew no fingerprints
    make_run(asked, store, prefix=PREFIX, job=unidentified)
    assert hashes_of(store, run_id) == expected_of(run_id)


@pytest.mark.parametrize("run_id", ["failed", "cancelled"])
def test_a_run_that_failed_or_was_cancelled_can_be_resumed(run_id: str) -> None:
    store = restored()
    journal = Journal(store, PREFIX, run_id)
    job = restore(run_id, journal)
    assert job is not None
    assert journal.count_commits() < len(plan(job.recipe))
    make_run(submitted(run_id), store, prefix=PREFIX, job=job)
    assert verify(journal).whole


def test_the_keys_that_dedupe_makes_stay() -> None:
    assert f"recipe-{read_stored_recipe(journal_of('edited')).sha256}" == DEDUPED["edited"]
    job = resolve(submitted("deduped"), SPEC, recipes=PROJECT / "recipes", sources=Sources())
    assert f"recipe-{job.recipe_sha256}" == DEDUPED["deduped"]
