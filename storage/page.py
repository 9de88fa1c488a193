"""The static page of a run: everything it made, in order, readable from the store or from a folder on disk."""

import json
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from storage.journal import Manifest

if TYPE_CHECKING:
    from jinja2 import Template

CONTENT_TYPE = "text/html; charset=utf-8"


def render_page(manifest: Manifest, document: Mapping[str, Any], texts: Mapping[str, str]) -> bytes:
    """The page, UTF-8; the same arguments give the same bytes.

    Pictures are linked by their place beside the page (steps/004-image.png), so the run's folder can be served or
    copied anywhere; there are no scripts and nothing is fetched from elsewhere.

    Args:
        manifest: the run.
        document: its resolved recipe as JSON data.
        texts: the words of each text artifact, by its key.
    """
    html = _template().render(
        run=manifest,
        images=[artifact for artifact in manifest.artifacts if artifact.kind == "image"],
        context=[_item(item) for item in document["context"]],
        recipe=json.dumps(document, ensure_ascii=False, indent=2),
        texts=texts,
    )
    return html.encode()


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
    return environment.get_template("run.html.j2")
