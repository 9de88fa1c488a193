"""`autoseq recipe from`, through real services and workers."""

import json
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from recipes.canonical import canonical_json, recipe_sha256
from storage.objects.s3 import S3Store
from tests.worker.serving import objects_of
from tests.worker.shell import Shell, one_error, said
from worker.client import Client
from worker.settings import settings


def made(store: S3Store, run_id: str, name: str) -> bytes:
    return objects_of(store, run_id)[name]


def test_a_recipe_comes_back_from_a_run_and_from_its_picture(
    serving: Shell, parent: str, s3_store: S3Store, client: Client
) -> None:
    (serving.folder / "image.png").write_bytes(made(s3_store, parent, "steps/003-image.png"))
    text = said(serving("recipe", "from", parent))
    result = serving("recipe", "from", "image.png", "--out", "again.yaml")
    assert f"image.png: step 3 of run {parent}, generated with seed" in result.stderr
    assert (serving.folder / "again.yaml").read_text() == text
    again = said(serving("submit", "again.yaml", "--watch")).strip()
    found, expected = client.result(again), client.result(parent)
    assert found["recipe_sha256"] == expected["recipe_sha256"]


def test_its_images_can_come_with_it(serving: Shell, parent: str, client: Client, s3_store: S3Store) -> None:
    branch = said(serving("branch", parent, "--at", "3", "--watch")).strip()
    assert f"s3://autosequence/served/{branch}/inputs/000.png" in said(serving("recipe", "from", branch))
    file = Path(said(serving("recipe", "from", branch, "--download", "kept")).strip())
    assert file == Path("kept/test.yaml")
    assert (serving.folder / "kept/inputs/000.png").read_bytes() == made(s3_store, branch, "inputs/000.png")
    again = said(serving("submit", str(file), "--watch")).strip()
    assert client.result(again)["recipe_sha256"] == client.result(branch)["recipe_sha256"]
    assert serving("recipe", "from", branch, "--download", "kept", "--out", "file").exit_code == 2
    image = f"served/{branch}/inputs/000.png"
    s3_store.put(image, made(s3_store, parent, "steps/006-image.png"), content_type="image/png")
    assert "its SHA-256 is" in one_error(serving("recipe", "from", branch, "--download", "kept"), code=2)
    s3_store.delete(image)
    assert "inputs/000.png: is missing" in one_error(serving("recipe", "from", branch, "--download", "kept"), code=2)


def test_a_picture_of_an_earlier_release_leads_to_its_recipe(serving: Shell, parent: str, s3_store: S3Store) -> None:
    """That release knew fewer fields, and its hash is of those."""
    written = json.loads(made(s3_store, parent, "recipe.json"))
    earlier = {name: value for name, value in written.items() if name not in ("judge", "parent")}
    s3_store.put(f"served/{parent}/recipe.json", canonical_json(earlier), content_type="application/json")
    (serving.folder / "image.png").write_bytes(made(s3_store, parent, "steps/003-image.png"))
    with_hash(serving.folder / "image.png", recipe_sha256(earlier, []))
    assert "judge:\n" in said(serving("recipe", "from", "image.png"))


def with_hash(file: Path, sha256: str) -> None:
    """Let a picture name another recipe."""
    with Image.open(file) as picture:
        chunks = PngInfo()
        for key, text in picture.info.items():
            chunks.add_text(str(key), sha256 if key == "autosequence:recipe-sha256" else text)
        picture.save(file, pnginfo=chunks)


def test_what_leads_to_no_recipe_is_named(serving: Shell, parent: str, s3_store: S3Store) -> None:
    ours = made(s3_store, parent, "steps/003-image.png")
    folder = serving.folder
    Image.new("RGB", (8, 8)).save(folder / "foreign.png")
    (folder / "text.png").write_bytes(b"not a picture")
    (folder / "elsewhere.png").write_bytes(ours)
    assert "foreign.png: does not name its run" in one_error(serving("recipe", "from", "foreign.png"), code=2)
    assert "text.png: is not a PNG image" in one_error(serving("recipe", "from", "text.png"), code=2)
    assert "gone.png: No such file" in one_error(serving("recipe", "from", "gone.png"), code=2)
    assert "run nope: there is no such run" in one_error(serving("recipe", "from", "nope"), code=2)
    (folder / "edited.png").write_bytes(ours)
    with_hash(folder / "edited.png", "0" * 64)
    error = one_error(serving("recipe", "from", "edited.png"), code=2)
    assert (
        f"edited.png: names a recipe with the SHA-256 {'0' * 64}, but the recipe of run {parent} in this bucket has"
        in error
    )
    serving.patch.setenv("AUTOSEQ_S3_PREFIX", "another")
    settings.cache_clear()
    assert f"names run '{parent}', which is not in this bucket" in one_error(
        serving("recipe", "from", "elsewhere.png"), code=2
    )
