"""The contact sheet of a run: the initial context, and the images in order, in rows of variations, or as a tree."""

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
"""The minimum number of given items in a row; more where the images below are wider."""
TREE_SIDES_PX = ((4, 192), (64, 128))
"""Side of an image of a tree by the largest number of rows."""
ENDS_ACROSS = 8
"""Images in a row of those that end one branch."""
THOUGHT_TAGS = re.compile(r"</?think>")


def run_sheet(journal: Journal, manifest: Manifest) -> Image.Image:
    """The contact sheet of a complete run."""
    sheet = _images_sheet(journal, manifest)
    given = _given_tiles(journal, max(GIVEN_ACROSS, sheet.width // (GIVEN_SIDE_PX + MARGIN_PX)))
    return stacked([tiled_sheet(given, side_px=GIVEN_SIDE_PX, title="Given"), sheet]) if given else sheet


def _given_tiles(journal: Journal, across: int) -> list[Tile]:
    """The items of the initial context; none if it is a single text, which is in the captions of the images."""
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
    """The texts that each step's images follow, by step: the last instruction, and the thinking after it."""
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
    """An image of a run, decoded."""
    image = Image.open(io.BytesIO(journal.get(key)))
    image.load()
    return image


def _read(journal: Journal, artifact: Artifact) -> str:
    return _plain(journal.get(artifact.key).decode())


def _plain(text: str) -> str:
    """`text` on one line, without the tags of a thought."""
    return " ".join(THOUGHT_TAGS.sub("", text).split())


def _score(image: Artifact) -> str:
    return "" if image.score is None else f"score {score_text(image.score)}"


def _choices(journal: Journal, shown: Sequence[Figure], words: Mapping[int, str]) -> Image.Image:
    """A row for each image: its variations side by side, the selected one framed."""
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
    """The selected images of each branch, each to the right of the one that it continues."""

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
        """Lay out `figure` and everything that continues it from `row` on. Returns the number of rows."""
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
