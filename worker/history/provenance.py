"""The recipe that something came from: of a run, or of the run that a picture says it is from."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from recipes.canonical import fingerprint_of, to_document
from recipes.load import read
from recipes.recipe import ImageItem, Recipe
from recipes.render_yaml import render_yaml
from recipes.variables import escaped
from storage import keys
from storage.errors import InvalidNameError, ObjectNotFoundError, RunNotFoundError
from storage.journal import Journal
from worker.history.history import read_recipe
from worker.jobs.inputs import InputError, checked

RUN, STEP, VARIATION, SEED, RECIPE = (
    f"autosequence:{name}" for name in ("run", "step", "variation", "seed", "recipe-sha256")
)


class ProvenanceError(ValueError):
    """A picture does not lead to a recipe: says which, and why."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The recipe of a run, and where its images are."""

    journal: Journal
    recipe: Recipe
    """Resolved, its images as the run's own inputs."""

    @property
    def fingerprint(self) -> str:
        """What decides the run's outcome, as the release that made it saw it."""
        document = json.loads(self.journal.get(keys.RECIPE))
        return fingerprint_of(document, [item.sha256 or "" for item in self._images()])

    def to_yaml(self) -> str:
        """The recipe as a file that can be submitted from anywhere: its images are those of the run in S3."""
        return recipe_yaml(self._with_images(self.journal.address))

    def download(self, folder: Path) -> Path:
        """Write the recipe and its images into `folder`; returns the recipe's file.

        Raises InputError when an image is not the one that the recipe pins.
        """
        for item in self._images():
            file = folder / item.image
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(self._content(item))
        folder.mkdir(parents=True, exist_ok=True)
        recipe = folder / f"{self.recipe.name}.yaml"
        recipe.write_text(recipe_yaml(self.recipe))
        return recipe

    def _images(self) -> list[ImageItem]:
        return [item for item in self.recipe.context if isinstance(item, ImageItem)]

    def _with_images(self, address: Callable[[str], str]) -> Recipe:
        moved = [
            replace(item, image=address(item.image)) if isinstance(item, ImageItem) else item
            for item in self.recipe.context
        ]
        return replace(self.recipe, context=tuple(moved))

    def _content(self, item: ImageItem) -> bytes:
        address = self.journal.address(item.image)
        try:
            image = checked(address, self.journal.get(item.image))
        except ObjectNotFoundError:
            raise InputError(f"{address}: is missing") from None
        if image.sha256 != item.sha256:
            raise InputError(f"{address}: its SHA-256 is {image.sha256}, the recipe pins {item.sha256}")
        return image.data


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a picture says of itself."""

    run_id: str
    step: int
    variation: int
    seed: int
    recipe_sha256: str


def provenance_of_run(journal: Journal) -> Origin:
    """The recipe of a run. Raises RunNotFoundError, CorruptRecordError and what S3 raises."""
    return Origin(journal=journal, recipe=read_recipe(journal))


def provenance_of_picture(file: Path, journal_of: Callable[[str], Journal]) -> tuple[Origin, Claim]:
    """The recipe of the run that drew the picture in a file, and what the picture says of itself.

    Raises:
        ProvenanceError: it is no picture of a run, or its run is not in the bucket, or another one than it says.
        OSError: the file can't be read.
        CorruptRecordError, StoreUnavailableError, StoreRefusedError: as ever.
    """
    claim = read_claim(file)
    try:
        origin = provenance_of_run(journal_of(claim.run_id))
    except (RunNotFoundError, InvalidNameError) as error:
        raise ProvenanceError(
            f"{file}: says that it is from run {claim.run_id!r}, which is not in this bucket: {error}"
        ) from None
    if origin.fingerprint != claim.recipe_sha256:
        raise ProvenanceError(
            f"{file}: says that its recipe has the SHA-256 {claim.recipe_sha256}; "
            f"that of run {claim.run_id} in this bucket has {origin.fingerprint}"
        )
    return origin, claim


def read_claim(file: Path) -> Claim:
    """What the picture in a file says of itself. Raises ProvenanceError, OSError."""
    try:
        with file.open("rb") as content, Image.open(content, formats=["PNG"]) as picture:
            said = {key: text for key, text in picture.info.items() if isinstance(key, str)}
    except (UnidentifiedImageError, SyntaxError, ValueError):  # what Pillow raises of other and of damaged files
        raise ProvenanceError(f"{file}: is no PNG picture; only those that a run left name their recipe") from None
    try:
        return Claim(
            run_id=str(said[RUN]),
            step=int(said[STEP]),
            variation=int(said[VARIATION]),
            seed=int(said[SEED]),
            recipe_sha256=str(said[RECIPE]),
        )
    except (KeyError, ValueError):
        raise ProvenanceError(
            f"{file}: does not say which run drew it; only the files that a run left do, not edited or converted ones"
        ) from None


def recipe_yaml(recipe: Recipe) -> str:
    """A resolved recipe as YAML that loads as that recipe."""
    return render_yaml(read(escaped(to_document(recipe))), None)
