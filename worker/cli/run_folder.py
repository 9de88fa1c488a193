"""A complete run in a local folder: its page, its images, and a contact sheet of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from recipes.recipe import TextItem
from storage import keys
from storage.figures import figures, image_name
from storage.journal import Journal, Manifest
from storage.objects.folder import FolderStore
from storage.text_layout import missing_glyphs
from worker.cli.boundary import print_note
from worker.cli.sheets.run_sheet import run_sheet
from worker.cli.views.console import print_link
from worker.history.history import read_recipe, read_text


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """The paths of a run's files."""

    folder: Path
    page: Path | None
    """None if the recipe turns it off."""
    sheet: Path
    images: Mapping[str, Path]
    """The selected images, by their names."""
    missing_glyphs: str = ""
    """The characters of its texts that no font on this machine has; the sheet shows placeholders."""

    def to_data(self) -> dict[str, Any]:
        """As JSON data: absolute paths."""
        paths = {"folder": self.folder, "page": self.page, "contact_sheet": self.sheet}
        shown = {name: str(path.resolve()) if path else None for name, path in paths.items()}
        return {
            **shown,
            "missing_glyphs": self.missing_glyphs,
            "images": [str(image.resolve()) for image in self.images.values()],
        }


def download(journal: Journal, folder: Path) -> Journal:
    """Copy every object of a run into `folder`, with the layout of the bucket."""
    copy = Journal(FolderStore(folder.parent), "", folder.name)
    for key in journal.store.list(journal.folder):
        name = key.removeprefix(journal.folder)
        copy.put(name, journal.get(name), content_type="")
    return copy


def complete_folder(journal: Journal, folder: Path) -> RunFolder:
    """Add the contact sheet to the complete run of `journal` in `folder`."""
    manifest = journal.manifest()
    if manifest is None:
        raise ValueError(f"{folder}: the run is not complete")
    sheet = folder / keys.CONTACT_SHEET
    run_sheet(journal, manifest).save(sheet)
    page = folder / keys.PAGE
    return RunFolder(
        folder=folder,
        page=page if page.exists() else None,
        sheet=sheet,
        images={
            image_name(image.index, path=image.path): folder / image.key
            for figure in figures(manifest.artifacts)
            for image in figure.selected
        },
        missing_glyphs=missing_glyphs("".join(_texts(journal, manifest))),
    )


def _texts(journal: Journal, manifest: Manifest) -> Iterator[str]:
    yield from (item.text for item in read_recipe(journal).recipe.context if isinstance(item, TextItem))
    yield from (read_text(journal, artifact) for artifact in manifest.artifacts if artifact.kind == "text")


def print_links(console: Console, run: RunFolder) -> None:
    """Print links to a run's files."""
    console.print()
    if run.page:
        print_link(console, "page", run.page.resolve().as_uri())
    print_link(console, "contact sheet", run.sheet.resolve().as_uri())
    for name, image in run.images.items():
        print_link(console, name, image.resolve().as_uri())
    if run.missing_glyphs:
        packages = "install fonts that have them, such as fonts-noto-cjk and fonts-noto-color-emoji"
        print_note(f"The contact sheet lacks the characters {run.missing_glyphs}: {packages}.")
