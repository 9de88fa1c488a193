"""Branches, differences and recipes of what was made, through real servers and workers, as the shell has them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from recipes.canonical import canonical_json, fingerprint_of
from recipes.load import load
from storage.events import ArtifactStored
from storage.objects.s3 import S3Store
from tests.worker.serving import DEADLINE_S, WorkerProcess, env_of, objects_of, recipe
from tests.worker.shell import Shell, one_error, said
from worker.client import Client
from worker.history.history import PlaceError
from worker.history.verify import verify
from worker.local.services import LocalServices
from worker.settings import settings


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scripted_worker: WorkerProcess) -> Iterator[Shell]:
    """With a worker that serves the scripted model."""
    opened = Shell(tmp_path, monkeypatch)
    opened.use({name: value for name, value in scripted_worker.env.items() if name.startswith("AUTOSEQ_")})
    yield opened
    monkeypatch.undo()
    settings.cache_clear()


@pytest.fixture
def parent(client: Client) -> str:
    """A run of two images with thoughts, complete."""
    run_id = client.submit(recipe())
    client.result(run_id, timeout_s=DEADLINE_S)
    return run_id


def made(store: S3Store, run_id: str, name: str) -> bytes:
    return objects_of(store, run_id)[name]


# branch


def test_a_branch_goes_on_with_another_setting(shell: Shell, parent: str, client: Client, s3_store: S3Store) -> None:
    result = shell("branch", parent, "--at", "3", "--set", "seed=9", "--set", "num_timesteps=6", "--watch", "--json")
    first = json.loads(said(result).splitlines()[0])
    assert first["parent"] == f"{parent}@3"
    found = client.result(first["run_id"], timeout_s=DEADLINE_S)
    assert [one["role"] for one in found["artifacts"]] == ["refinement", "thinking", "image"]
    stored = json.loads(made(s3_store, first["run_id"], "recipe.json"))
    assert (stored["seed"], stored["image"]["num_timesteps"], stored["num_images"]) == (9, 6, 1)
    assert stored["context"][0] == {"text": "A cat", "thought": False}
    assert verify(client.journal(first["run_id"])).whole


def test_a_branch_can_be_a_file_for_later(shell: Shell, parent: str, client: Client) -> None:
    before = len(client.recent(1000))
    printed = said(shell("branch", parent, "--at", "4", "--no-submit"))
    result = shell("branch", parent, "--at", "4", "--no-submit", "--out", "later.yaml")
    assert (said(result), result.stderr) == ("", "written: later.yaml\n")
    assert (shell.folder / "later.yaml").read_text() == printed
    assert load(shell.folder / "later.yaml").parent == f"{parent}@4"
    assert len(client.recent(1000)) == before
    run_id = said(shell("submit", "later.yaml", "--watch")).strip()
    assert client.result(run_id)["state"] == "succeeded"


def test_a_branch_is_queued_as_anything_is(shell: Shell, parent: str) -> None:
    first = said(shell("branch", parent, "--at", "3", "--dedupe", "--out", "kept.yaml", "--run-id", f"{parent}-b"))
    assert first == f"{parent}-b\n"
    assert said(shell("branch", parent, "--at", "3", "--dedupe")) == first
    assert shell("branch", parent, "--at", "3", "--dedupe", "--idempotency-key", "k").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--at", "7"], "step 7: there is none; allowed: 1 to 6"),
        (["--at", "3", "--variation", "1"], "step 3: has no variation 1; allowed: 0"),
        (["--at", "6"], "step 6: all 2 images are there; say how many more are wanted: num_images=1 or more"),
        (["--at", "3", "--set", "num_images=0"], "num_images: 0 is too small"),
    ],
)
def test_a_branch_that_can_not_be_is_refused_in_one_line(
    shell: Shell, parent: str, arguments: list[str], message: str
) -> None:
    assert message in one_error(shell("branch", parent, *arguments), code=2)
    assert message in one_error(shell("branch", parent, *arguments, "--no-submit"), code=2)


def test_only_runs_can_be_branched_off(shell: Shell) -> None:
    assert "there is no s3://" in one_error(shell("branch", "nope", "--at", "1"), code=2)
    assert "run id 'a b'" in one_error(shell("branch", "a b", "--at", "1"), code=2)


def test_without_s3_it_is_said_that_s3_is_not_there(shell: Shell, parent: str) -> None:
    shell.patch.setenv("AUTOSEQ_S3_ENDPOINT", "http://127.0.0.1:1")
    settings.cache_clear()
    assert f"run {parent} can't be read: " in one_error(shell("branch", parent, "--at", "3"), code=3)


def test_without_a_worker_a_branch_waits(
    shell: Shell, services: LocalServices, idle_client: Client, parent: str
) -> None:
    assert idle_client.recent() == []
    shell.use(env_of(services, 1))
    result = shell("branch", parent, "--at", "3")
    assert "none has announced itself yet" in result.stderr


def test_python_branches_a_run_under_way(client: Client) -> None:
    run_id = client.submit(recipe(num_images=8, image={"num_timesteps": 1000}))
    for event in client.watch(run_id, timeout_s=DEADLINE_S):
        if isinstance(event, ArtifactStored) and event.role == "thinking":
            break
    with pytest.raises(PlaceError, match="is not done yet"):
        client.branch(run_id, at=24)
    branch = client.branch(run_id, at=2, overrides={"num_timesteps": 4, "num_images": 1}, priority="high")
    client.cancel(run_id)
    assert [one["role"] for one in client.result(branch, timeout_s=DEADLINE_S)["artifacts"]] == ["image"]


# diff


def test_a_branch_differs_from_its_parent_where_it_was_changed(shell: Shell, parent: str) -> None:
    branch = said(shell("branch", parent, "--at", "4", "--set", "seed=9", "--watch")).strip()
    result = shell("diff", parent, branch)
    lines = said(result).splitlines()
    assert lines[:3] == [
        f"A  {parent}",
        f"B  {branch}, branched off A at step 4",
        "They part at thinking before image 2: step 5 of A, step 5 of B.",
    ]
    words = [line.split() for line in lines]
    assert words[4:6] == [["recipe", "A", "B"], ["seed", "5", "9"]]
    assert " ".join(words[11]) == "refinement before image 2 step 4 step 4 of B's parent the same"
    assert words[12][:8] == ["thinking", "before", "image", "2", "step", "5", "step", "5"]
    assert "{+" in lines[12]
    assert "mean absolute difference" in lines[13]
    with Image.open(shell.folder / f"diff-{parent}-{branch}.png") as sheet:
        assert sheet.width > 2 * 256


def test_the_difference_comes_as_json(shell: Shell, parent: str) -> None:
    branch = said(shell("branch", parent, "--at", "4", "--set", "seed=9", "--watch")).strip()
    found = json.loads(said(shell("diff", parent, branch, "--json", "--out", "sheet.png")))
    assert (found["same"], found["first_divergence"]) == (False, "thinking before image 2")
    assert found["recipe"] == [{"field": "seed", "values": [5, 9]}]
    assert found["sheet"] == str(shell.folder / "sheet.png")
    assert [place["same"] for place in found["places"]] == [True, True, True, True, False, False]
    assert found["places"][-1]["mean_absolute_difference"] > 0


def test_runs_of_one_recipe_are_the_same(shell: Shell, parent: str, client: Client) -> None:
    other = client.submit(recipe())
    client.result(other, timeout_s=DEADLINE_S)
    result = shell("diff", parent, other)
    assert said(result) == f"A  {parent}\nB  {other}\nA and B are the same, byte for byte.\n\n"
    assert "there is no sheet" in result.stderr
    assert list(shell.folder.iterdir()) == []


def test_a_run_that_is_not_there_differs_from_nothing(shell: Shell, parent: str) -> None:
    assert "run nope: there is no s3://" in one_error(shell("diff", parent, "nope"), code=2)


# recipe from


def test_a_recipe_comes_back_from_a_run_and_from_its_picture(
    shell: Shell, parent: str, s3_store: S3Store, client: Client
) -> None:
    (shell.folder / "image.png").write_bytes(made(s3_store, parent, "steps/003-image.png"))
    text = said(shell("recipe", "from", parent))
    result = shell("recipe", "from", "image.png", "--out", "again.yaml")
    assert f"image.png: step 3 of run {parent}, drawn from seed" in result.stderr
    assert (shell.folder / "again.yaml").read_text() == text
    again = said(shell("submit", "again.yaml", "--watch")).strip()
    found, expected = client.result(again), client.result(parent)
    assert found["recipe_sha256"] == expected["recipe_sha256"]


def test_its_images_can_come_with_it(shell: Shell, parent: str, client: Client, s3_store: S3Store) -> None:
    branch = said(shell("branch", parent, "--at", "3", "--watch")).strip()
    assert f"s3://autosequence/served/{branch}/inputs/000.png" in said(shell("recipe", "from", branch))
    file = Path(said(shell("recipe", "from", branch, "--download", "kept")).strip())
    assert file == Path("kept/test.yaml")
    assert (shell.folder / "kept/inputs/000.png").read_bytes() == made(s3_store, branch, "inputs/000.png")
    again = said(shell("submit", str(file), "--watch")).strip()
    assert client.result(again)["recipe_sha256"] == client.result(branch)["recipe_sha256"]
    assert shell("recipe", "from", branch, "--download", "kept", "--out", "file").exit_code == 2
    image = f"served/{branch}/inputs/000.png"
    s3_store.put(image, made(s3_store, parent, "steps/006-image.png"), content_type="image/png")
    assert "its SHA-256 is" in one_error(shell("recipe", "from", branch, "--download", "kept"), code=2)
    s3_store.delete(image)
    assert "inputs/000.png: is missing" in one_error(shell("recipe", "from", branch, "--download", "kept"), code=2)


def test_a_picture_of_an_earlier_release_leads_to_its_recipe(shell: Shell, parent: str, s3_store: S3Store) -> None:
    """That release knew fewer fields, and its hash is of those."""
    written = json.loads(made(s3_store, parent, "recipe.json"))
    earlier = {name: value for name, value in written.items() if name not in ("judge", "parent")}
    s3_store.put(f"served/{parent}/recipe.json", canonical_json(earlier), content_type="application/json")
    (shell.folder / "image.png").write_bytes(made(s3_store, parent, "steps/003-image.png"))
    with_hash(shell.folder / "image.png", fingerprint_of(earlier, []))
    assert "judge:\n" in said(shell("recipe", "from", "image.png"))


def with_hash(file: Path, sha256: str) -> None:
    """Let a picture name another recipe."""
    with Image.open(file) as picture:
        chunks = PngInfo()
        for key, text in picture.info.items():
            chunks.add_text(str(key), sha256 if key == "autosequence:recipe-sha256" else text)
        picture.save(file, pnginfo=chunks)


def test_what_leads_to_no_recipe_is_named(shell: Shell, parent: str, s3_store: S3Store) -> None:
    ours = made(s3_store, parent, "steps/003-image.png")
    folder = shell.folder
    Image.new("RGB", (8, 8)).save(folder / "foreign.png")
    (folder / "text.png").write_bytes(b"not a picture")
    (folder / "elsewhere.png").write_bytes(ours)
    assert "foreign.png: does not say which run drew it" in one_error(shell("recipe", "from", "foreign.png"), code=2)
    assert "text.png: is no PNG picture" in one_error(shell("recipe", "from", "text.png"), code=2)
    assert "gone.png: No such file" in one_error(shell("recipe", "from", "gone.png"), code=2)
    assert "run nope: there is no s3://" in one_error(shell("recipe", "from", "nope"), code=2)
    (folder / "edited.png").write_bytes(ours)
    with_hash(folder / "edited.png", "0" * 64)
    error = one_error(shell("recipe", "from", "edited.png"), code=2)
    assert (
        f"edited.png: says that its recipe has the SHA-256 {'0' * 64}; that of run {parent} in this bucket has" in error
    )
    shell.patch.setenv("AUTOSEQ_S3_PREFIX", "another")
    settings.cache_clear()
    assert f"from run '{parent}', which is not in this bucket" in one_error(
        shell("recipe", "from", "elsewhere.png"), code=2
    )
