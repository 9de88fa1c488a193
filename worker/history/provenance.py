"""The provenance of a run or of an image file: the recipe that generated it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import UnidentifiedImageError

from recipes.canonical import to_document
from recipes.load import read
from recipes.recipe import ImageItem, Recipe
from recipes.render_yaml import render_yaml
from recipes.variables import escaped
from storage.errors import InvalidNameError, ObjectNotFoundError, RunNotFoundError
from storage.image_formats import NAMES, metadata_of, open_image
from storage.journal import Journal
from storage.png import PngProvenance
from worker.history.history import read_recipe
from worker.jobs.inputs import InputError, checked
from worker.jobs.stored_recipe import StoredRecipe


class ProvenanceError(ValueError):
    """The recipe of an image file can't be found. The message has the file and the reason."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """The recipe of a run, and the folder that has its images."""

    journal: Journal
    stored: StoredRecipe

    @property
    def recipe(self) -> Recipe:
        """Resolved, with its images as the run's own inputs."""
        return self.stored.recipe

    def to_yaml(self) -> str:
        """The recipe as YAML that can be submitted from anywhere: it refers to the run's images in S3."""
        context = [
            replace(item, image=self.journal.address(item.image)) if isinstance(item, ImageItem) else item
            for item in self.recipe.context
        ]
        return recipe_yaml(replace(self.recipe, context=tuple(context)))

    def download(self, folder: Path) -> Path:
        """Write the recipe and its images into `folder`. Returns the recipe's file.

        Raises InputError when an image is not the one that the recipe pins.
        """
        for item in self.stored.images:
            file = folder / item.image
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(self._content(item))
        folder.mkdir(parents=True, exist_ok=True)
        recipe = folder / f"{self.recipe.name}.yaml"
        recipe.write_text(recipe_yaml(self.recipe))
        return recipe

    def _content(self, item: ImageItem) -> bytes:
        address = self.journal.address(item.image)
        try:
            image = checked(address, self.journal.get(item.image))
        except ObjectNotFoundError:
            raise InputError(f"{address}: is missing") from None
        if image.sha256 != item.sha256:
            raise InputError(f"{address}: its SHA-256 is {image.sha256}, the recipe pins {item.sha256}")
        return image.data


def provenance_of_run(journal: Journal) -> Provenance:
    """The recipe of a run. Raises RunNotFoundError, CorruptRecordError, NewerRecordError and what S3 raises."""
    return Provenance(journal=journal, stored=read_recipe(journal))


def provenance_of_image(file: Path, journal_of: Callable[[str], Journal]) -> tuple[Provenance, PngProvenance]:
    """The recipe of the run that drew the image in a file, and the provenance in the file itself.

    Raises:
        ProvenanceError: the file is not an image of a run, or its run is not in the bucket or has another recipe.
        OSError: the file can't be read.
        CorruptRecordError, NewerRecordError, StoreUnavailableError, StoreRefusedError: the run can't be read.
    """
    image = read_png_provenance(file)
    try:
        provenance = provenance_of_run(journal_of(image.run_id))
    except (RunNotFoundError, InvalidNameError) as error:
        raise ProvenanceError(f"{file}: names run {image.run_id!r}, which is not in this bucket: {error}") from None
    if provenance.stored.sha256 != image.recipe_sha256:
        raise ProvenanceError(
            f"{file}: names a recipe with the SHA-256 {image.recipe_sha256}, but "
            f"the recipe of run {image.run_id} in this bucket has {provenance.stored.sha256}"
        )
    return provenance, image


def read_png_provenance(file: Path) -> PngProvenance:
    """The provenance in the text chunks of a PNG file. Raises ProvenanceError, OSError."""
    try:
        with open_image(file) as image:
            chunks = metadata_of(image)
    except (UnidentifiedImageError, SyntaxError, ValueError):  # Pillow raises these for other and for damaged files
        raise ProvenanceError(
            f"{file}: is not a {NAMES} image; only the image files of a run name their recipe"
        ) from None
    try:
        return PngProvenance.from_chunks(chunks)
    except ValueError:
        raise ProvenanceError(
            f"{file}: does not name its run; only the original files of a run do, not edited or converted ones"
        ) from None


def recipe_yaml(recipe: Recipe) -> str:
    """A resolved recipe as YAML that loads as that recipe."""
    return render_yaml(read(escaped(to_document(recipe))), None)
