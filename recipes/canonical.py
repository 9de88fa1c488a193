"""The canonical document of a resolved recipe, and its hash, which is the recipe's identity."""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from recipes.recipe import Recipe

VERSION: Final = 1
"""The newest version of the document that this release reads. A document without `version` has version 1."""

LATER_FIELDS: Final[Mapping[str, Any]] = {"model_sha256": None, "image.step_cache": None}
"""The fields that release 0.1.0 does not have, by dotted path, with the value that their absence means.

A document has such a field only with another value. So release 0.1.0 can read every document that uses no later field,
and no hash changes. A reader fills an absent field with its default, so the value must equal the default.
"""


def to_document(recipe: Recipe) -> dict[str, Any]:
    """`recipe` as JSON data with every field in it, so that loading it gives the same recipe for any model.

    Only LATER_FIELDS are left out, where they have the meaning of their absence.
    """
    document: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    for path, absence in LATER_FIELDS.items():
        *groups, name = path.split(".")
        holder: Any = document
        for group in groups:
            holder = holder and holder[group]
        if holder and holder[name] == absence:
            del holder[name]
    return document


def canonical_json(document: object) -> bytes:
    """`document` as JSON in UTF-8, with sorted keys and no spaces. Raises ValueError for what JSON can't represent."""
    text = json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode()


def to_json(recipe: Recipe) -> bytes:
    """`recipe` in the canonical form."""
    return canonical_json(to_document(recipe))


def recipe_sha256(document: Mapping[str, Any], image_hashes: Sequence[str]) -> str:
    """The SHA-256 (hexadecimal) of a recipe's document as stored, regardless of the release that wrote it.

    Each image reference is replaced by the hash of its content, and `parent` is left out. So the same images give the
    same hash wherever they are stored, and from wherever the recipe was branched. `image_hashes` are in the order of
    the context's images; raises ValueError when there are more or fewer of them.
    """
    document = copy.deepcopy({name: value for name, value in document.items() if name != "parent"})
    items = [item for item in document["context"] if "image" in item]
    for item, content_hash in zip(items, image_hashes, strict=True):
        item.clear()
        item["image"] = content_hash
    return hashlib.sha256(canonical_json(document)).hexdigest()
