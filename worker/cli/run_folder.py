"""A finished run in a folder of this machine: its page, its pictures, and all of them on one sheet."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from storage import keys
from storage.figures import figures, image_name
from storage.journal import Journal
from storage.objects.folder import FolderStore
from worker.cli.sheets.run_sheet import run_sheet


@dataclass(frozen=True, kw_only=True)
class Album:
    """Where to look at a run."""

    folder: Path
    page: Path | None
    """None when the recipe wanted none."""
    sheet: Path
    pictures: Mapping[str, Path]
    """Those that went on, by their names."""

    def to_data(self) -> dict[str, Any]:
        """As JSON data: absolute paths."""
        paths = {"folder": self.folder, "page": self.page, "contact_sheet": self.sheet}
        shown = {name: str(path.resolve()) if path else None for name, path in paths.items()}
        return {**shown, "images": [str(picture.resolve()) for picture in self.pictures.values()]}


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
    sheet = folder / keys.CONTACT_SHEET
    run_sheet(journal, manifest).save(sheet)
    page = folder / keys.PAGE
    return Album(
        folder=folder,
        page=page if page.exists() else None,
        sheet=sheet,
        pictures={
            image_name(image.index, path=image.path): folder / image.key
            for figure in figures(manifest.artifacts)
            for image in figure.selected
        },
    )


def print_links(console: Console, album: Album) -> None:
    """Where to look, as links."""
    console.print()
    if album.page:
        print_link(console, "page", album.page.resolve().as_uri())
    print_link(console, "contact sheet", album.sheet.resolve().as_uri())
    for name, picture in album.pictures.items():
        print_link(console, name, picture.resolve().as_uri())


def print_link(console: Console, name: str, address: str) -> None:
    """One line that no terminal's width breaks, so that it can be clicked and copied."""
    console.print(Text.assemble((f"  {name:<15}", "cyan"), address), soft_wrap=True)
