"""The contact sheet of a run: what was given, and its images in order, its variations in rows, or its tree."""

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from PIL import Image, ImageOps

from storage import keys
from storage.figures import Figure, branch_of, figures, image_name, score_text
from storage.journal import Artifact, Journal, Manifest
from storage.sheet import MARGIN_PX, Tile, contact_sheet, stacked, tiled_sheet

SIDE_PX = 256
GIVEN_SIDE_PX = 192
GIVEN_ACROSS = 4
"""The fewest given items that stand side by side; more where the images below are wider."""
TREE_SIDES_PX = ((4, 192), (64, 128))
"""How large the pictures of a tree are, by how many rows it has at most."""
ENDS_ACROSS = 8
"""How many of the images that end one branch stand side by side."""
_TAGS = re.compile(r"</?think>")


def run_sheet(journal: Journal, manifest: Manifest) -> Image.Image:
    """All of a complete run on one picture."""
    sheet = _images_sheet(journal, manifest)
    given = _given_tiles(journal, max(GIVEN_ACROSS, sheet.width // (GIVEN_SIDE_PX + MARGIN_PX)))
    return stacked([tiled_sheet(given, side_px=GIVEN_SIDE_PX, title="Given"), sheet]) if given else sheet


def _given_tiles(journal: Journal, across: int) -> list[Tile]:
    """The items of the initial context; none where it is one text, which the captions of the images have."""
    items = json.loads(journal.get(keys.RECIPE))["context"]
    if len(items) == 1 and "text" in items[0]:
        return []
    tiles = []
    for number, item in enumerate(items):
        image = None if "text" in item else ImageOps.exif_transpose(read_image(journal, item["image"]))
        caption = _plain(item["text"]) if "text" in item else ""
        tiles.append(Tile(image=image, caption=caption, row=number // across, column=number % across))
    return tiles


def _images_sheet(journal: Journal, manifest: Manifest) -> Image.Image:
    shown = figures(manifest.artifacts)
    words = words_of(journal, manifest)
    if shown[0].forks:
        return _Tree(journal, shown, words).sheet()
    if any(figure.others for figure in shown):
        return _choices(journal, shown, words)
    images = [figure.selected[0] for figure in shown]
    captions = [
        " · ".join(filter(None, (words[figure.step], _score(image))))
        for figure, image in zip(shown, images, strict=True)
    ]
    return contact_sheet([read_image(journal, image.key) for image in images], captions, side_px=SIDE_PX)


def words_of(journal: Journal, manifest: Manifest) -> dict[int, str]:
    """The words that led to the images of each step: the plan for them, else what was last asked for."""
    texts = [item for item in json.loads(journal.get(keys.RECIPE))["context"] if "text" in item]
    asked = {"": next((item["text"] for item in reversed(texts) if not item.get("thought")), "")}
    planned = {"": _plain(texts[-1]["text"]) if texts and texts[-1].get("thought") else ""}
    found: dict[int, str] = {}
    for artifact in manifest.artifacts:
        branch = branch_of(artifact)
        if artifact.kind == "image":
            found[artifact.step] = " · ".join(filter(None, (asked.get(branch), planned.get(branch))))
        elif artifact.role == "thinking":
            planned[branch] = _read(journal, artifact)
        else:
            asked[branch], planned[branch] = _read(journal, artifact), ""
    return found


def read_image(journal: Journal, key: str) -> Image.Image:
    """One image of a run, decoded."""
    image = Image.open(io.BytesIO(journal.get(key)))
    image.load()
    return image


def _read(journal: Journal, artifact: Artifact) -> str:
    return _plain(journal.get(artifact.key).decode())


def _plain(text: str) -> str:
    """Words without the marks of a thought, in one line."""
    return " ".join(_TAGS.sub("", text).split())


def _score(image: Artifact) -> str:
    return "" if image.score is None else f"score {score_text(image.score)}"


def _choices(journal: Journal, shown: Sequence[Figure], words: Mapping[int, str]) -> Image.Image:
    """A row for each image: its variations side by side, the one that went on framed."""
    tiles, labels = [], []
    for row, figure in enumerate(shown):
        labels.append(f"{image_name(figure.index)}: {words[figure.step]}")
        together = sorted((*figure.selected, *figure.others), key=lambda image: image.variation)
        tiles += [
            Tile(
                image=read_image(journal, image.key),
                caption=_score(image),
                row=row,
                column=column,
                framed=image in figure.selected,
            )
            for column, image in enumerate(together)
        ]
    return tiled_sheet(
        tiles, side_px=SIDE_PX if len(shown[0].others) < ENDS_ACROSS else SIDE_PX // 2, row_labels=labels
    )


class _Tree:
    """The images that went on in each branch, each to the right of the one that it came from."""

    def __init__(self, journal: Journal, shown: Sequence[Figure], words: Mapping[int, str]) -> None:
        self.journal = journal
        self.shown = shown
        self.words = words
        self.tiles: list[Tile] = []

    def sheet(self) -> Image.Image:
        rows = self._grow(self.shown[0], row=0, parent=None)
        side_px = next(side_px for most, side_px in TREE_SIDES_PX if rows <= most)
        depth = 1 + max(figure.index for figure in self.shown)
        return tiled_sheet(
            self.tiles,
            side_px=side_px,
            title=self.words[self.shown[0].step],
            column_labels=[image_name(index) for index in range(depth)],
        )

    def _grow(self, figure: Figure, *, row: int, parent: int | None) -> int:
        """Lay out `figure` and all that came of it from `row` on; how many rows that takes."""
        further = {image.path: one for one in self.shown if (image := figure.continued_by(one))}
        if not further:
            return self._end(figure, row, parent)
        taken = 0
        for image in figure.selected:
            asked = self.words[further[image.path].step]
            number = len(self.tiles)
            self.tiles.append(self._tile(image, row + taken, image.index or 0, parent, asked))
            rows = self._grow(further[image.path], row=row + taken, parent=number)
            self.tiles[number] = replace(self.tiles[number], rows=rows)
            taken += rows
        return taken

    def _end(self, figure: Figure, row: int, parent: int | None) -> int:
        """The images at the end of a branch, side by side."""
        for place, image in enumerate(figure.selected):
            down, across = divmod(place, ENDS_ACROSS)
            comes_from = parent if not across else None
            self.tiles.append(self._tile(image, row + down, figure.index + across, comes_from, ""))
        return -(-len(figure.selected) // ENDS_ACROSS)

    def _tile(self, image: Artifact, row: int, column: int, parent: int | None, asked: str) -> Tile:
        caption = "\n".join((" · ".join(filter(None, (image.path, _score(image)))), asked))
        return Tile(image=read_image(self.journal, image.key), caption=caption, row=row, column=column, parent=parent)
