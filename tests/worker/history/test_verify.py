"""A run is whole or it is said what is wrong with it, from the bucket alone."""

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from storage.errors import RunNotFoundError
from storage.journal import Journal
from storage.objects.memory import MemoryStore
from storage.objects.s3 import S3Store
from tests.worker.serving import PREFIX, env_of, make_run, picture_uri, recipe, request
from tests.worker.shell import Shell, said
from worker.history.verify import verify
from worker.local.services import LocalServices
from worker.settings import settings

RUN = "run-1"
Damage = Callable[["Folder"], object]


class Folder:
    """A complete run in memory, open to damage."""

    def __init__(self, document: dict[str, Any] | None = None) -> None:
        self.journal = Journal(MemoryStore(), PREFIX, RUN)
        make_run(request(RUN, document or recipe()), self.journal.store)

    def put(self, name: str, data: bytes) -> None:
        self.journal.put(name, data, content_type="")

    def delete(self, name: str) -> None:
        self.journal.store.delete(self.journal.folder + name)

    def change(self, name: str, /, **fields: object) -> None:
        """Set fields of a JSON object."""
        told = json.loads(self.journal.get(name))
        self.put(name, json.dumps(told | fields, ensure_ascii=False).encode())

    def change_artifact(self, step: int, **fields: object) -> None:
        (artifact,) = json.loads(self.journal.get(f"commits/{step:03d}.json"))["artifacts"]
        self.change(f"commits/{step:03d}.json", artifacts=[artifact | fields])

    def copy(self, source: str, target: str) -> None:
        self.put(target, self.journal.get(source))

    def flaws(self) -> list[str]:
        return [str(flaw) for flaw in verify(self.journal).flaws]


@pytest.mark.parametrize(
    "document",
    [
        recipe(),
        recipe(num_images=4, max_context_items=3, pin="none"),
        recipe(refinement_prompts=["Make it red"], think=False),
        recipe(context=[{"image": picture_uri()}, {"text": "In winter"}]),
        recipe(output={"page": False}),
        recipe(variations_per_image=2, select="judge", retry={"below": 0.8, "times": 2}),
        recipe(variations_per_image=2, select="tree", retry={"below": 0.5, "times": 1}),
    ],
    ids=["plain", "forgetful", "given refinement", "edit", "no page", "judged", "tree"],
)
def test_what_a_worker_leaves_is_whole(document: dict[str, Any]) -> None:
    folder = Folder(document)
    found = verify(folder.journal)
    assert (found.whole, found.flaws) == (True, ())
    assert found.objects == len(list(folder.journal.store.list("")))
    assert found.steps == json.loads(folder.journal.get("manifest.json"))["steps"]


def unreadable(folder: Folder) -> None:
    """The bytes of the commit and of the image agree, but no one can see the image."""
    folder.put("steps/003-image.png", b"no png")
    folder.change_artifact(3, size=6, sha256=hashlib.sha256(b"no png").hexdigest())


def unlabelled(folder: Folder) -> None:
    """The bytes of the commit and of the image agree, but the image is another run's."""
    data = io.BytesIO()
    with Image.open(io.BytesIO(folder.journal.get("steps/003-image.png"))) as image:
        image.save(data, "PNG")
    folder.put("steps/003-image.png", data.getvalue())
    folder.change_artifact(3, size=len(data.getvalue()), sha256=hashlib.sha256(data.getvalue()).hexdigest())


DAMAGES: list[tuple[Damage, str]] = [
    (lambda folder: folder.delete("recipe.json"), "recipe.json: is missing"),
    (lambda folder: folder.put("recipe.json", b"{"), "recipe.json: is not a readable recipe"),
    (lambda folder: folder.change("recipe.json", num_images=-1), "recipe.json: is not a readable recipe"),
    (lambda folder: folder.change("recipe.json", seed=5), "recipe.json: has missing or changed fields"),
    (lambda folder: folder.change("recipe.json", seed=6), "commits/001.json: is of another recipe"),
    (lambda folder: folder.delete("commits/004.json"), "commits/004.json: is missing"),
    (lambda folder: folder.delete("commits/006.json"), "commits/006.json: is missing"),
    (lambda folder: folder.copy("commits/006.json", "commits/007.json"), "commits/007.json: does not belong"),
    (lambda folder: folder.copy("commits/002.json", "commits/003.json"), "commits/003.json: is of step 2 of run run-1"),
    (lambda folder: folder.put("commits/003.json", b"[]"), "commits/003.json: "),
    (lambda folder: folder.change("commits/003.json", run_id="run-2"), "commits/003.json: is of step 3 of run run-2"),
    (lambda folder: folder.change("commits/003.json", kind="write"), "kind is 'write', expected 'draw'"),
    (lambda folder: folder.change("commits/003.json", artifacts=[]), "commits/003.json: does not match the plan"),
    (lambda folder: folder.change("commits/003.json", recipe_sha256="0"), "commits/003.json: is of another recipe"),
    (lambda folder: folder.change_artifact(3, seed=1), "artifacts[0].seed is 1, expected "),
    (lambda folder: folder.change_artifact(3, variation=[1]), "artifacts.0.variation: "),
    (lambda folder: folder.change_artifact(3, attempt=1), "artifacts[0].attempt is 1, expected 0"),
    (lambda folder: folder.change_artifact(2, role="refinement"), "commits/002.json: does not match the plan"),
    (lambda folder: folder.change_artifact(3, width=8), "steps/003-image.png: is (64, 64) pixels"),
    (lambda folder: folder.change_artifact(3, size="many"), "artifacts.0.size: "),
    (lambda folder: folder.change_artifact(3, key=["a"]), "artifacts.0.key: "),
    (lambda folder: folder.delete("steps/003-image.png"), "steps/003-image.png: is missing"),
    (lambda folder: folder.put("steps/002-thinking.txt", b"a"), "steps/002-thinking.txt: has 1 bytes"),
    (lambda folder: folder.copy("steps/003-image.png", "steps/006-image.png"), "steps/006-image.png: has the SHA-256"),
    (unlabelled, "steps/003-image.png: its text chunk autosequence:run is None, expected 'run-1'"),
    (unreadable, "steps/003-image.png: is not a readable PNG image"),
    (lambda folder: folder.delete("manifest.json"), "manifest.json: is missing: the run is not complete"),
    (lambda folder: folder.put("manifest.json", b"null"), "manifest.json: "),
    (lambda folder: folder.change("manifest.json", artifacts=[]), "manifest.json: does not match the commits"),
    (lambda folder: folder.change("manifest.json", name="x"), "name is 'x', expected 'test'"),
    (lambda folder: folder.delete("index.html"), "index.html: is missing"),
    (lambda folder: folder.put("index.html", b"<html>"), "index.html: does not show steps/003-image.png"),
    (lambda folder: folder.put("steps/004-image.png", b""), "steps/004-image.png: does not belong to this run"),
    (lambda folder: folder.put("notes.txt", b""), "notes.txt: does not belong to this run"),
]


@pytest.mark.parametrize(("damage", "said_so"), DAMAGES, ids=[words for _, words in DAMAGES])
def test_damage_is_found(damage: Damage, said_so: str) -> None:
    folder = Folder()
    damage(folder)
    assert any(said_so in flaw for flaw in folder.flaws()), folder.flaws()


def test_an_input_must_be_the_one_that_was_pinned() -> None:
    folder = Folder(recipe(context=[{"image": picture_uri()}, {"text": "In winter"}]))
    folder.put("inputs/000.png", b"another")
    assert any(flaw.startswith("inputs/000.png: has the SHA-256 ") for flaw in folder.flaws())
    folder.delete("inputs/000.png")
    assert folder.flaws() == ["inputs/000.png: is missing"]


def test_everything_that_is_wrong_is_said_at_once() -> None:
    folder = Folder()
    folder.put("notes.txt", b"")
    folder.delete("steps/003-image.png")
    folder.delete("index.html")
    assert folder.flaws() == [
        "steps/003-image.png: is missing",
        "index.html: is missing",
        "notes.txt: does not belong to this run",
    ]


def test_an_empty_folder_is_no_run() -> None:
    with pytest.raises(RunNotFoundError, match=r"s3://memory/served/run-1/ is empty"):
        verify(Journal(MemoryStore(), PREFIX, RUN))


@pytest.fixture
def shell(services: LocalServices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """With the bucket, and a Redis that is not there."""
    opened = Shell(tmp_path, monkeypatch)
    opened.use(env_of(services, 0) | {"AUTOSEQ_REDIS_URL": "redis://127.0.0.1:1/0"})
    yield opened
    monkeypatch.undo()
    settings.cache_clear()


def test_the_command_reads_the_bucket_alone_and_tells_the_shell(shell: Shell, s3_store: S3Store, run_id: str) -> None:
    make_run(request(run_id), s3_store)
    assert said(shell("verify", run_id)) == f"OK: 6 steps, 15 objects in s3://autosequence/served/{run_id}/\n"
    assert json.loads(said(shell("verify", run_id, "--json")))["whole"] is True
    s3_store.put(f"{PREFIX}/{run_id}/steps/003-image.png", b"damaged", content_type="image/png")
    result = shell("verify", run_id)
    assert said(result, code=1) == ""
    assert "error: steps/003-image.png: has 7 bytes" in result.stderr
    flaws = json.loads(said(shell("verify", run_id, "--json"), code=1))["flaws"]
    assert {flaw["name"] for flaw in flaws} == {"steps/003-image.png"}
    assert "no-such-run/ is empty" in shell("verify", "no-such-run").stderr
