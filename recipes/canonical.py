"""The one way to write down a resolved recipe, and the hash that is its identity."""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from recipes.recipe import Recipe


def to_document(recipe: Recipe) -> dict[str, Any]:
    """`recipe` as JSON data with every field in it, so that loading it again gives the same recipe for any model."""
    document: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    return document


def canonical_json(document: object) -> bytes:
    """The one JSON text of `document`: UTF-8, keys sorted, no spaces. Raises ValueError for what JSON can't hold."""
    text = json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode()


def to_json(recipe: Recipe) -> bytes:
    """`recipe` in the canonical form."""
    return canonical_json(to_document(recipe))


def fingerprint(recipe: Recipe, image_hashes: Sequence[str]) -> str:
    """The SHA-256 (hexadecimal) of the canonical recipe, each image reference replaced by its content's hash.

    So the same pictures give the same fingerprint wherever they are kept, and wherever the recipe came from: its
    parent does not count. `image_hashes` are in the order of the context's images; raises ValueError when there are
    more or fewer of them.
    """
    return fingerprint_of(to_document(recipe), image_hashes)


def fingerprint_of(document: Mapping[str, Any], image_hashes: Sequence[str]) -> str:
    """`fingerprint` of a recipe that was written down, by whatever release: the fields that it knew count."""
    document = copy.deepcopy({name: value for name, value in document.items() if name != "parent"})
    items = [item for item in document["context"] if "image" in item]
    for item, content_hash in zip(items, image_hashes, strict=True):
        item.clear()
        item["image"] = content_hash
    return hashlib.sha256(canonical_json(document)).hexdigest()
