"""The static page of a run: all its texts and images in order, to read from the store or from a folder on disk."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from storage.figures import Figure, branch_of, branches_to, figures, score_text
from storage.journal import Artifact, Manifest
from storage.printable import printable, printable_json
from storage.thumbnails import bounded, data_uri

if TYPE_CHECKING:
    from jinja2 import Template

CONTENT_TYPE = "text/html; charset=utf-8"


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A text, or a figure."""

    text: Artifact | None = None
    figure: Figure | None = None


@dataclass(frozen=True, kw_only=True)
class _Section:
    """A branch of a tree, or a whole run without one."""

    branch: str
    ancestors: tuple[Artifact, ...]
    """The images that lead to the branch, from the first on."""
    parts: tuple[_Part, ...]


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """A place in the overview of a tree."""

    images: tuple[Artifact, ...]
    rows: int
    lines: str
    """CSS classes for the lines that lead to the cell from the left; empty for the first image."""


_Rows: TypeAlias = list[list[_Cell]]


def render_page(
    manifest: Manifest,
    document: Mapping[str, Any],
    texts: Mapping[str, str],
    thumbnails: Mapping[str, bytes] = MappingProxyType({}),
) -> bytes:
    """The page, UTF-8; the same arguments give the same bytes.

    Images are linked relative to the page (steps/004-image.png), so the run's folder can be served from or copied to
    any place. The page has no scripts and loads nothing from elsewhere. It embeds thumbnails, so it shows images even
    if its links do not resolve: behind a presigned URL, or saved on its own.

    Args:
        manifest: the run.
        document: its resolved recipe as JSON data.
        texts: the content of each text artifact, by its key.
        thumbnails: the results of `storage.thumbnails.thumbnail`, by the key of the artifact or of the given image
            (inputs/000.png); they are reduced if there are many. An image without one is only linked.
    """
    shown = figures(manifest.artifacts)
    has_tree = bool(shown and shown[0].forks)
    in_tree = tuple(image for figure in shown for image in figure.selected) if has_tree else ()
    small = bounded(thumbnails, len(thumbnails) + len(in_tree))
    sections = _sections(manifest.artifacts, shown)
    html = _template().render(
        run=manifest,
        drawn=sum(artifact.kind == "image" for artifact in manifest.artifacts),
        selected=sum(len(figure.selected) for figure in shown),
        overview=_overview(shown[0], shown) if has_tree else (),
        in_tree=in_tree,
        sections=sections,
        branches={section.branch for section in sections},
        score_text=score_text,
        context=[_item(item) for item in document["context"]],
        recipe=printable_json(json.dumps(document, ensure_ascii=False, indent=2, sort_keys=True)),
        texts=texts,
        thumbnails={key: data_uri(data) for key, data in small.items()},
    )
    return html.encode()


def _sections(artifacts: Sequence[Artifact], shown: Sequence[Figure]) -> list[_Section]:
    """The run branch by branch, each in the order of its steps."""
    at_step = {figure.step: figure for figure in shown}
    images = {image.path: image for figure in shown for image in figure.selected if figure.forks}
    parts: dict[str, dict[int, _Part]] = {}
    for artifact in artifacts:
        is_text = artifact.kind == "text"
        part = _Part(text=artifact) if is_text else _Part(figure=at_step.get(artifact.step))
        if part.text or part.figure:  # a further attempt is shown with the first
            parts.setdefault(branch_of(artifact), {})[artifact.step] = part
    return [
        _Section(
            branch=branch,
            ancestors=tuple(images[path] for path in branches_to(branch)),
            parts=tuple(found.values()),
        )
        for branch, found in parts.items()
    ]


def _overview(figure: Figure, shown: Sequence[Figure]) -> _Rows:
    """The tree from `figure` on, from left to right. The last images of a branch share a cell, to save rows."""
    rows: _Rows = []
    edge = "" if figure is shown[0] else "from"
    for image in figure.selected:
        further = next((one for one in shown if figure.continued_by(one) == image), None)
        if further is None:
            return [[_Cell(images=figure.selected, rows=1, lines=edge)]]
        first, *others = _overview(further, shown)
        above = " above" if edge and image != figure.selected[0] else ""
        below = " below" if edge and image != figure.selected[-1] else ""
        cell = _Cell(images=(image,), rows=1 + len(others), lines=edge + above + below)
        rows += [[cell, *first], *others]
    return rows


def _item(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item of the initial context; its image is shown if it is in the run's folder."""
    return {**item, "shown": str(item.get("image", "")).startswith("inputs/")}


@cache
def _template() -> "Template":
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - most importers render nothing

    environment = Environment(
        loader=PackageLoader("storage"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["printable"] = printable
    return environment.get_template("run.html.j2")
