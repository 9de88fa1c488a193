"""`extends: base.yaml`: a recipe file that contains only the differences from another one."""

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from recipes.document import MAX_FILE_BYTES, Document, in_order, kind_of, read_file
from recipes.faults import FieldPath, RecipeError, RecipeIssue, SourcePosition
from recipes.reference import FileReference, ImageReferenceError, file_reference, parse_reference
from recipes.rules import NAME

MAX_LEVELS = 8

_KEY = "extends"
_ALLOWED = "a file in this recipe's folder or below it, such as base.yaml, or the name of a shipped recipe"


def extended(document: Document, *, file: Path | None, shipped: Callable[[str], Path]) -> Document:
    """`document` merged with all recipes that it extends, as if it were one file.

    Args:
        document: a recipe that may extend another.
        file: the file it was read from; None if it is not a file and so has no folder.
        shipped: returns the file of a shipped recipe by its name; raises RecipeError.

    Each value keeps its position; that of a parent's value names the parent's file. Raises RecipeError if a parent
    can't be found or read.
    """
    if _KEY not in document.data:
        return document
    chain = [document]
    files = [file] if file else []
    while _KEY in chain[-1].data:
        parent = _parent(chain[-1], shipped)
        seen = [path.resolve() for path in files]
        files.append(parent)
        if parent.resolve() in seen:
            raise _refused(chain[-1], f"is circular: {_route(files)}")
        if len(chain) > MAX_LEVELS:
            raise _refused(chain[-1], f"has more than {MAX_LEVELS} levels: {_route(files)}")
        chain.append(_read(parent, chain[-1]))
        if sum(one.size_bytes for one in chain) > MAX_FILE_BYTES:
            most = f"at most {MAX_FILE_BYTES // 1024} KiB for a recipe and all recipes that it extends"
            raise _refused(chain[-2], f"{parent} is too large; allowed: {most}")
    merged = _with_source(chain[-1])
    for parent_document in reversed(chain[1:-1]):
        merged = _merged(_with_source(parent_document), merged)
    merged = _merged(document, merged)
    context = next((one for one in chain if "context" in one.data), document)
    return replace(merged, images_from=None if context is document else context.folder)


def without_parent(document: Document) -> Document:
    """`document`, which came as data, perhaps over a network.

    Raises RecipeError if it extends another recipe.
    """
    if _KEY in document.data:
        raise _refused(document, "is not supported in a recipe given as data; allowed: the complete recipe")
    return document


def placed(data: dict[str, Any], document: Document) -> tuple[dict[str, Any], list[RecipeIssue]]:
    """`data` with its image paths relative to the recipe's folder, and an issue for each image outside of it.

    `data` is that of `document` with variables replaced; there, image paths are relative to the file with the context.
    """
    context = data.get("context")
    if document.images_from is None or not isinstance(context, list):
        return data, []
    beside = _below(document.images_from, document.folder)
    items, issues = [], []
    for index, item in enumerate(context):
        image = item.get("image") if isinstance(item, dict) else None
        if not isinstance(image, str) or not _is_file(image):
            items.append(item)
            continue
        items.append({**item, "image": None if beside is None else posixpath.normpath(posixpath.join(beside, image))})
        if beside is None:
            why = f"{image[:80]!r} is in the folder of the extended recipe, outside this recipe's folder"
            message = f"{why}; allowed: a context in this recipe, with images in its folder"
            issues.append(RecipeIssue(path=("context", index, "image"), message=message))
    return {**data, "context": items}, issues


def _parent(child: Document, shipped: Callable[[str], Path]) -> Path:
    """The file that a recipe extends.

    Raises RecipeError.
    """
    wanted = child.data[_KEY]
    if not isinstance(wanted, str):
        raise _refused(child, f"is {kind_of(wanted)}; allowed: {_ALLOWED}")
    if re.fullmatch(NAME, wanted):
        try:
            return shipped(wanted)
        except RecipeError as error:
            raise _refused(child, error.faults[0].message) from None
    if child.folder is None:
        why = f"{wanted[:80]!r} is not a shipped recipe, and this recipe was not read from a file"
        raise _refused(child, f"{why}; allowed: the name of a shipped recipe")
    try:
        path = child.folder / posixpath.normpath(file_reference(wanted).path)
        outside = not path.resolve().is_relative_to(child.folder.resolve())
    except (ImageReferenceError, OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise _refused(child, f"{wanted[:80]!r}: {error}; allowed: {_ALLOWED}") from None
    if outside:
        raise _refused(child, f"{wanted[:80]!r}: the path leaves the recipe's folder; allowed: {_ALLOWED}")
    return path


def _read(path: Path, child: Document) -> Document:
    """The document that `child` extends.

    Raises RecipeError, at the position of `extends` if the file can't be opened.
    """
    try:
        return read_file(path)
    except RecipeError as error:
        if any(fault.position for fault in error.faults):
            raise
        raise _refused(child, f"{path}: {error.faults[0].message}") from None


def _refused(child: Document, message: str) -> RecipeError:
    """The error for a parent, together with the other issues known of the file that extends it."""
    refused = {issue.path for issue in child.issues}
    own = [] if (_KEY,) in refused else [RecipeIssue(path=(_KEY,), message=message)]
    issues = in_order((*child.issues, *own), child.data, lambda issue: child.fault(issue).position)
    return RecipeError(map(child.fault, issues))


def _route(files: Sequence[Path]) -> str:
    return " -> ".join(path.name for path in files)


def _with_source(document: Document) -> Document:
    """`document` with its file named in all its positions."""

    def here(position: SourcePosition) -> SourcePosition:
        return replace(position, source=document.source)

    located = [(issue, document.fault(issue).position) for issue in document.issues]
    return replace(
        document,
        positions={path: here(position) for path, position in document.positions.items()},
        key_positions={path: here(position) for path, position in document.key_positions.items()},
        issues=tuple(replace(issue, position=here(position) if position else None) for issue, position in located),
    )


def _merged(child: Document, parent: Document) -> Document:
    """Both documents as one; the child's values take precedence."""
    replaced: set[FieldPath] = {(_KEY,)}
    data = _merge(child.data, parent.data, (), replaced)
    del data[_KEY]
    return replace(
        child,
        data=data,
        issues=(*child.issues, *parent.issues),
        positions={**_kept(parent.positions, replaced), **child.positions},
        key_positions={**_kept(parent.key_positions, replaced), **child.key_positions},
    )


def _merge(
    child: Mapping[str, Any], parent: Mapping[str, Any], path: FieldPath, replaced: set[FieldPath]
) -> dict[str, Any]:
    """Merge mappings key by key and replace other values; adds the paths of replaced values to `replaced`."""
    merged = dict(parent)
    for key, value in child.items():
        own, inherited = (*path, key), parent.get(key)
        if isinstance(value, dict) and isinstance(inherited, dict):
            merged[key] = _merge(value, inherited, own, replaced)
        else:
            merged[key] = value
            replaced.add(own)
    return merged


def _kept(positions: Mapping[FieldPath, SourcePosition], replaced: set[FieldPath]) -> dict[FieldPath, SourcePosition]:
    """The positions of the parent's values that were not replaced."""
    return {
        path: position
        for path, position in positions.items()
        if not any(path[:depth] in replaced for depth in range(1, len(path) + 1))
    }


def _is_file(image: str) -> bool:
    try:
        return isinstance(parse_reference(image), FileReference)
    except ImageReferenceError:
        return False  # the rules report why


def _below(folder: Path, top: Path | None) -> str | None:
    """`folder` relative to `top`; None if it is not in `top`."""
    if top is None or not folder.resolve().is_relative_to(top.resolve()):
        return None
    return folder.resolve().relative_to(top.resolve()).as_posix()
