"""The images of a recipe: fetched from the sources that recipes may refer to, checked, and decoded."""

import hashlib
import io
import logging
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from recipes.recipe import ContextItem, ImageItem, Recipe
from recipes.reference import ALLOWED, DataReference, FileReference, ImageReferenceError, S3Reference, parse_reference
from storage.errors import ObjectNotFoundError, StoreRefusedError
from storage.objects import ObjectStore
from worker.jobs.input_rule import InputRule

log = logging.getLogger(__name__)

MAX_BYTES = 32 * 2**20
MAX_PIXELS = 64_000_000
MAX_TOTAL_BYTES = 256 * 2**20
"""Of all image files of a recipe. Each reference counts, since the run stores an object for it."""
MAX_TOTAL_PIXELS = 512_000_000
"""Of all images of a recipe, as for bytes. Pixels are not kept: this bounds the time to decode them, within a lease."""
MAX_HELD_BYTES = 512 * 2**20
"""Of the different images of all recipes of one `Sources`, such as those of a sweep."""
EXTENSIONS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}
CONTENT_TYPES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, LookupError, TypeError, OverflowError)
"""Exceptions that Pillow's decoders and its EXIF reader raise for damaged files."""


class InputError(ValueError):
    """An image of the recipe can't be used. The message has its position, the problem and what is allowed."""


@dataclass(frozen=True, kw_only=True)
class InputImage:
    """One image of the initial context, with its original bytes. Equal images of a run are one object."""

    data: bytes
    extension: str
    sha256: str
    size: tuple[int, int]
    """Width and height in pixels, rotated upright."""

    @property
    def content_type(self) -> str:
        return CONTENT_TYPES[self.extension]

    def decode(self) -> Image.Image:
        """The image, rotated upright, with its alpha channel if it has one. Decoded anew each time, and not kept."""
        return _decoded(self.data)


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The sources that images may come from. Each image is fetched once per instance, and equal bytes are kept once."""

    folder: Path | None = None
    """The folder of the recipe file; None when the recipe did not come from a file."""
    store: ObjectStore | None = None
    """The store for s3:// references; None if there is none."""
    rule: InputRule | None = None
    """Which s3:// addresses may be used; None allows none."""
    _by_reference: dict[str, InputImage] = field(default_factory=dict, init=False, repr=False, compare=False)
    _by_sha256: dict[str, InputImage] = field(default_factory=dict, init=False, repr=False, compare=False)

    def fetch(self, recipe: Recipe) -> tuple[InputImage, ...]:
        """The images of the recipe's context, in order. Raises InputError for the first that can't be used."""
        images: list[InputImage] = []
        for position, item in enumerate(recipe.context):
            if isinstance(item, ImageItem):
                place = f"context[{position}].image"
                images.append(self._fetch_once(place, item))
                _check_totals(place, images)
        return tuple(images)

    def _fetch_once(self, place: str, item: ImageItem) -> InputImage:
        image = self._by_reference.get(item.image)
        if image is None:
            image = self._kept(place, self._read(place, item))
            self._by_reference[item.image] = image
        if item.sha256 is not None and item.sha256.lower() != image.sha256:
            raise InputError(f"{place}: its SHA-256 is {image.sha256}, the recipe pins {item.sha256}")
        return image

    def _kept(self, place: str, data: bytes) -> InputImage:
        """The image in `data`, which is checked and kept unless an image with the same bytes is."""
        known = self._by_sha256.get(hashlib.sha256(data).hexdigest())
        if known is None:
            known = checked(place, data)
            self._by_sha256[known.sha256] = known
            held = sum(len(image.data) for image in self._by_sha256.values())
            if held > MAX_HELD_BYTES:
                raise InputError(f"{place}: all images have {held:,} bytes; at most {MAX_HELD_BYTES:,} are allowed")
        return known

    def _read(self, place: str, item: ImageItem) -> bytes:
        try:
            reference = parse_reference(item.image)
        except ImageReferenceError as error:
            raise InputError(f"{place}: {error}; allowed: {ALLOWED}") from error
        match reference:
            case DataReference(content=data):
                return data
            case S3Reference():
                known = self._by_sha256.get((item.sha256 or "").lower())  # uploaded more than once, such as by a client
                return known.data if known and self._allows(reference) else self._object(place, reference)
            case FileReference(path=name):
                return self._file(place, name)

    def _allows(self, reference: S3Reference) -> bool:
        return self.rule is not None and self.rule.allows(reference)

    def _object(self, place: str, reference: S3Reference) -> bytes:
        address = reference.address
        if self.store is None or self.rule is None:
            raise InputError(f"{place}: {address} can't be read here: no S3 store is configured")
        try:
            if self.rule.allows(reference):
                return self.store.get_address(address, max_bytes=MAX_BYTES)
            log.info("%s: the recipe may not read %s", place, address)
        except ObjectNotFoundError as error:
            log.info("%s: %s", place, error)
        except StoreRefusedError as error:
            raise InputError(f"{place}: {address} can't be read: {error}") from error
        # One message for both, so that it does not reveal which objects exist.
        raise InputError(
            f"{place}: {address} can't be read: it does not exist, or recipes may not use it; allowed: {self.rule}"
        )

    def _file(self, place: str, name: str) -> bytes:
        if self.folder is None:
            raise InputError(f"{place}: {name!r} is a file, and this recipe has no folder; use s3://… or a data: URI")
        try:
            root = self.folder.resolve()
            path = (root / name).resolve()
        except (OSError, RuntimeError, ValueError) as error:  # circular links, an unreadable folder
            raise InputError(f"{place}: {name[:80]!r} can't be resolved: {error}") from error
        if not path.is_relative_to(root):
            raise InputError(f"{place}: {name!r} is outside the recipe's folder")
        try:
            size_bytes = path.stat().st_size
            if not path.is_file():
                raise InputError(f"{place}: {path} is not a regular file")
            if size_bytes > MAX_BYTES:
                raise InputError(f"{place}: {path} has {size_bytes:,} bytes; at most {MAX_BYTES:,} are allowed")
            return path.read_bytes()
        except OSError as error:
            raise InputError(f"{place}: {path} can't be read: {error.strerror or error}") from error


def with_references(recipe: Recipe, images: Sequence[InputImage], references: Sequence[str]) -> Recipe:
    """The recipe with each image replaced by the reference in `references` and pinned to its hash, in order."""
    found = iter(zip(images, references, strict=True))
    context: list[ContextItem] = []
    for item in recipe.context:
        if isinstance(item, ImageItem):
            image, reference = next(found)
            context.append(ImageItem(image=reference, sha256=image.sha256))
        else:
            context.append(item)
    return replace(recipe, context=tuple(context))


def checked(place: str, data: bytes) -> InputImage:
    """The image in `data`, which is decoded once to check it. Raises InputError."""
    if len(data) > MAX_BYTES:
        raise InputError(f"{place}: has {len(data):,} bytes; at most {MAX_BYTES:,} are allowed")
    try:
        extension, size = _extension(place, data), _decoded(data).size
    except UnidentifiedImageError:
        raise InputError(f"{place}: is not a readable image; allowed: PNG, JPEG, WebP") from None
    except Image.DecompressionBombError:
        raise InputError(f"{place}: is too large; at most {MAX_PIXELS:,} pixels are allowed") from None
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(f"{place}: is a damaged image: {error}") from error
    return InputImage(data=data, extension=extension, sha256=hashlib.sha256(data).hexdigest(), size=size)


def _check_totals(place: str, images: Sequence[InputImage]) -> None:
    """Raises InputError when `images`, of which the last is at `place`, exceed the limits of a recipe."""
    size_bytes = sum(len(image.data) for image in images)
    pixels = sum(image.size[0] * image.size[1] for image in images)
    for found, limit, what in ((size_bytes, MAX_TOTAL_BYTES, "bytes"), (pixels, MAX_TOTAL_PIXELS, "pixels")):
        if found > limit:
            raise InputError(
                f"{place}: the images up to it have {found:,} {what} in all; at most {limit:,} are allowed"
            )


def _decoded(data: bytes) -> Image.Image:
    """The image in a file, rotated upright. Raises Pillow's exceptions."""
    with warnings.catch_warnings():
        # Pillow warns about large images, which MAX_PIXELS limits, and about partly readable EXIF data.
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data), formats=tuple(EXTENSIONS)) as image:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)  # a copy would need as much memory again
            return image


def _extension(place: str, data: bytes) -> str:
    """The file extension of an image, by its header. Raises InputError if it is too large, and Pillow's exceptions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data), formats=tuple(EXTENSIONS)) as image:
            if image.width * image.height > MAX_PIXELS:
                size = f"{image.width} x {image.height}"
                raise InputError(f"{place}: is {size} pixels; at most {MAX_PIXELS:,} in all are allowed")
            return EXTENSIONS[image.format or ""]
