"""The result of a run: its manifest, and what the task returns and clients read."""

from collections.abc import Sequence
from typing import Any

from recipes.recipe import Recipe
from storage import keys
from storage.journal import Commit, Journal, Manifest, selected_images


def manifest_of(
    run_id: str, recipe: Recipe, recipe_sha256: str, commits: Sequence[Commit], *, model_sha256: str | None
) -> Manifest:
    """The manifest of a run whose steps are all committed."""
    artifacts = tuple(artifact for commit in commits for artifact in commit.artifacts)
    return Manifest(
        run_id=run_id,
        name=recipe.name,
        recipe_sha256=recipe_sha256,
        model=recipe.model or "",
        seed=recipe.seed,
        steps=len(commits),
        parent=recipe.parent,
        artifacts=artifacts,
        images=selected_images(artifacts),
        model_sha256=model_sha256,
    )


def result_of(manifest: Manifest, journal: Journal) -> dict[str, Any]:
    """As JSON data: the addresses of the manifest and the page, and each artifact with its key and URL."""
    artifacts = [
        {**one.to_data(), "key": journal.folder + one.key, "url": journal.url(one.key)} for one in manifest.artifacts
    ]
    return {
        "run_id": manifest.run_id,
        "state": manifest.state,
        "name": manifest.name,
        "model": manifest.model,
        "recipe_sha256": manifest.recipe_sha256,
        "manifest": journal.address(keys.MANIFEST),
        "manifest_url": journal.url(keys.MANIFEST),
        "page_url": journal.url(keys.PAGE),
        "artifacts": artifacts,
    }
