"""The result of a run, as the task returns it and clients read it."""

from dataclasses import asdict
from typing import Any

from storage import keys
from storage.journal import Journal, Manifest


def result_of(manifest: Manifest, journal: Journal) -> dict[str, Any]:
    """JSON data: the manifest's address, and each artifact with where it is."""
    artifacts = [
        {**asdict(made), "key": journal.folder + made.key, "url": journal.url(made.key)} for made in manifest.artifacts
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
