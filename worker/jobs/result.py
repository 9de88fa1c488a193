"""The result of a run: its manifest, and the data that the task returns and clients read."""

from collections.abc import Iterable, Sequence
from typing import Any

from recipes.recipe import Recipe
from storage import keys
from storage.journal import Artifact, Commit, Journal, Manifest, selected_images
from worker.jobs.exact_numbers import exact_numbers


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


def artifact_data(artifacts: Iterable[Artifact], journal: Journal) -> list[dict[str, Any]]:
    """The artifacts of a run as JSON data, each with its key in the bucket and its URL."""
    return [{**one.to_data(), "key": journal.folder + one.key, "url": journal.url(one.key)} for one in artifacts]


def result_of(manifest: Manifest, journal: Journal) -> dict[str, Any]:
    """The result of a complete run as JSON data."""
    return {
        "run_id": manifest.run_id,
        "state": manifest.state,
        "name": manifest.name,
        "model": manifest.model,
        "recipe_sha256": manifest.recipe_sha256,
        "manifest": journal.address(keys.MANIFEST),
        "manifest_url": journal.url(keys.MANIFEST),
        "page_url": journal.url(keys.PAGE),
        "artifacts": exact_numbers(artifact_data(manifest.artifacts, journal)),
    }
