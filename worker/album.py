"""A finished run in a folder of this machine: its page, its pictures, and all of them on one sheet."""

import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.text import Text

from storage import keys
from storage.folder import FolderStore
from storage.journal import Artifact, Journal, Manifest
from storage.sheet import contact_sheet

SHEET = "contact-sheet.png"
SIDE_PX = 256
_TAGS = re.compile(r"</?think>")


@dataclass(frozen=True, kw_only=True)
class Album:
    """Where to look at a run."""

    folder: Path
    page: Path | None
    """None when the recipe wanted none."""
    sheet: Path
    pictures: tuple[Path, ...]

    def to_data(self) -> dict[str, Any]:
        """As JSON data: absolute paths."""
        paths = {"folder": self.folder, "page": self.page, "contact_sheet": self.sheet}
        shown = {name: str(path.resolve()) if path else None for name, path in paths.items()}
        return {**shown, "images": [str(picture.resolve()) for picture in self.pictures]}


def download(journal: Journal, folder: Path) -> Journal:
    """Copy every object of a run into `folder`, the same layout as in the bucket."""
    copy = Journal(FolderStore(folder.parent), "", folder.name)
    for key in journal.store.list(journal.folder):
        name = key.removeprefix(journal.folder)
        copy.put(name, journal.get(name), content_type="")
    return copy


def make_album(journal: Journal, folder: Path) -> Album:
    """Put the contact sheet beside what the complete run of `journal` left in `folder`."""
    manifest = journal.manifest()
    if manifest is None:
        raise ValueError(f"{folder}: the run is not complete")
    pictures = [artifact for artifact in manifest.artifacts if artifact.kind == "image"]
    images = [Image.open(io.BytesIO(journal.get(artifact.key))) for artifact in pictures]
    sheet = folder / SHEET
    contact_sheet(images, captions(journal, manifest), side_px=SIDE_PX).save(sheet)
    page = folder / keys.PAGE
    return Album(
        folder=folder,
        page=page if page.exists() else None,
        sheet=sheet,
        pictures=tuple(folder / artifact.key for artifact in pictures),
    )


def captions(journal: Journal, manifest: Manifest) -> list[str]:
    """The words that led to each picture: the plan for it, else what was last asked for."""
    texts = [item for item in json.loads(journal.get(keys.RECIPE))["context"] if "text" in item]
    asked = next((item["text"] for item in reversed(texts) if not item.get("thought")), "")
    plan = _TAGS.sub("", texts[-1]["text"]).strip() if texts and texts[-1].get("thought") else ""
    found: list[str] = []
    for artifact in manifest.artifacts:
        if artifact.kind == "image":
            found.append(" · ".join(part for part in (asked, plan) if part))
            plan = ""
        elif artifact.role == "thinking":
            plan = _read(journal, artifact)
        else:
            asked = _read(journal, artifact)
    return found


def _read(journal: Journal, artifact: Artifact) -> str:
    return _TAGS.sub("", journal.get(artifact.key).decode()).strip()


def print_links(console: Console, album: Album) -> None:
    """Where to look, as links."""
    console.print()
    if album.page:
        print_link(console, "page", album.page.resolve().as_uri())
    print_link(console, "contact sheet", album.sheet.resolve().as_uri())
    for number, picture in enumerate(album.pictures, 1):
        print_link(console, f"image {number}", picture.resolve().as_uri())


def print_link(console: Console, name: str, address: str) -> None:
    """One line that no terminal's width breaks, so that it can be clicked and copied."""
    console.print(Text.assemble((f"  {name:<15}", "cyan"), address), soft_wrap=True)
