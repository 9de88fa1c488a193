"""The static page of a run: everything it made, in order, readable from the store or from a folder on disk."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from storage.figures import Figure, branch_of, figures, line_of, score_text
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
    line: tuple[Artifact, ...]
    """The images that led here, from the first on."""
    parts: tuple[_Part, ...]


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """A place in the overview of a tree."""

    images: tuple[Artifact, ...]
    rows: int
    lines: str
    """Which lines lead to it from the left, as CSS classes: none to the first image, from above, from below."""


_Rows: TypeAlias = list[list[_Cell]]


def render_page(
    manifest: Manifest,
    document: Mapping[str, Any],
    texts: Mapping[str, str],
    thumbnails: Mapping[str, bytes] = MappingProxyType({}),
) -> bytes:
    """The page, UTF-8; the same arguments give the same bytes.

    Images are linked by their place beside the page (steps/004-image.png), so the run's folder can be served or
    copied anywhere; there are no scripts and nothing is fetched from elsewhere. Thumbnails are part of the page, so it
    also shows something where its links lead nowhere: behind a presigned link, or saved on its own.

    Args:
        manifest: the run.
        document: its resolved recipe as JSON data.
        texts: the words of each text artifact, by its key.
        thumbnails: those of `storage.thumbnails.thumbnail`, by the key of the artifact or of the given image
            (inputs/000.png); of many, smaller ones are shown. An image without one is shown by its link.
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
    for made in artifacts:
        part = _Part(text=made) if made.kind == "text" else _Part(figure=at_step.get(made.step))
        if part.text or part.figure:  # a further try is shown with the first
            parts.setdefault(branch_of(made), {})[made.step] = part
    return [
        _Section(branch=branch, line=tuple(images[path] for path in line_of(branch)), parts=tuple(found.values()))
        for branch, found in parts.items()
    ]


def _overview(figure: Figure, shown: Sequence[Figure]) -> _Rows:
    """A tree from left to right, from `figure` on. The ends of one branch lie side by side, so that it stays short."""
    rows: _Rows = []
    come = "" if figure is shown[0] else "from"
    for image in figure.selected:
        further = next((one for one in shown if figure.leads_to(one) == image), None)
        if further is None:
            return [[_Cell(images=figure.selected, rows=1, lines=come)]]
        first, *others = _overview(further, shown)
        above = " above" if come and image != figure.selected[0] else ""
        below = " below" if come and image != figure.selected[-1] else ""
        cell = _Cell(images=(image,), rows=1 + len(others), lines=come + above + below)
        rows += [[cell, *first], *others]
    return rows


def _item(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item of the initial context; its image is shown when it lies in the run's folder."""
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
