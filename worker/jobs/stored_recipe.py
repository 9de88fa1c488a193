"""The stored recipe of a run: a document that may come from another release, and this release's reading of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from recipes.canonical import VERSION, recipe_sha256
from recipes.load import load_resolved
from recipes.recipe import ImageItem, Recipe
from storage import keys
from storage.errors import CorruptRecordError
from storage.journal import Journal
from storage.records import check_version


@dataclass(frozen=True, kw_only=True)
class StoredRecipe:
    """The recipe.json of a run."""

    document: Mapping[str, Any]
    """As stored, with any fields that this release does not know; the run's hash is computed from it."""
    recipe: Recipe
    """Resolved: every default filled in, its images as the run's own inputs, pinned to their hashes."""

    @property
    def images(self) -> list[ImageItem]:
        """The images of the initial context."""
        return [item for item in self.recipe.context if isinstance(item, ImageItem)]

    @cached_property
    def sha256(self) -> str:
        """The hash that identifies the run by everything that determines its outcome."""
        return recipe_sha256(self.document, [item.sha256 or "" for item in self.images])


def read_stored_recipe(journal: Journal) -> StoredRecipe:
    """The stored recipe of a run.

    Raises ObjectNotFoundError when no worker has started the run, NewerRecordError, CorruptRecordError.
    """
    return parse_stored_recipe(journal.get(keys.RECIPE), journal.address(keys.RECIPE))


def parse_stored_recipe(data: bytes, address: str) -> StoredRecipe:
    """The recipe in `data`, which is at `address`. Raises NewerRecordError, CorruptRecordError."""
    try:
        document = json.loads(data)
        if isinstance(document, dict):
            check_version(document.get("version", 1), address, known=VERSION)
        return StoredRecipe(document=document, recipe=load_resolved(document))
    except (ValueError, RecursionError) as error:  # a RecipeError among them
        raise CorruptRecordError(f"{address}: is not a readable recipe: {error}") from error
