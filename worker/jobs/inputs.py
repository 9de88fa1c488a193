"""The images of a recipe: fetched from the sources that recipes may refer to, checked, and decoded."""

import hashlib
import io
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

MAX_BYTES = 32 * 2**20
MAX_PIXELS = 64_000_000
EXTENSIONS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}
CONTENT_TYPES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, LookupError, TypeError, OverflowError)
"""Exceptions that Pillow's decoders and its EXIF reader raise for damaged files."""


class InputError(ValueError):
    """An image of the recipe can't be used. The message has its position, the problem and what is allowed."""


@dataclass(frozen=True, kw_only=True)
class InputImage:
    """One image of the initial context, with its original bytes."""

    data: bytes
    extension: str
    sha256: str

    @property
    def content_type(self) -> str:
        return CONTENT_TYPES[self.extension]

    def decode(self) -> Image.Image:
        """The image, rotated upright, with its alpha channel if it has one."""
        with warnings.catch_warnings():
            # Pillow warns about large images, which MAX_PIXELS limits, and about partly readable EXIF data.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(self.data), formats=tuple(EXTENSIONS)) as image:
                image.load()
                return ImageOps.exif_transpose(image)


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The sources that images may come from. Each image is fetched once per instance."""

    folder: Path | None = None
    """The folder of the recipe file; None when the recipe did not come from a file."""
    store: ObjectStore | None = None
    """The store for s3:// references; None if there is none."""
    buckets: Sequence[str] = ()
    """The buckets that s3:// references may name."""
    _fetched: dict[ImageItem, InputImage] = field(default_factory=dict, init=False, repr=False, compare=False)

    def fetch(self, recipe: Recipe) -> tuple[InputImage, ...]:
        """The images of the recipe's context, in order. Raises InputError for the first that can't be used."""
        return tuple(
            self._fetch_once(f"context[{position}].image", item)
            for position, item in enumerate(recipe.context)
            if isinstance(item, ImageItem)
        )

    def _fetch_once(self, place: str, item: ImageItem) -> InputImage:
        if item not in self._fetched:
            self._fetched[item] = self._fetch(place, item)
        return self._fetched[item]

    def _fetch(self, place: str, item: ImageItem) -> InputImage:
        try:
            reference = parse_reference(item.image)
        except ImageReferenceError as error:
            raise InputError(f"{place}: {error}; allowed: {ALLOWED}") from error
        match reference:
            case DataReference(content=data):
                pass
            case S3Reference(bucket=bucket):
                data = self._object(place, item.image, bucket)
            case FileReference(path=name):
                data = self._file(place, name)
        image = checked(place, data)
        if item.sha256 is not None and item.sha256.lower() != image.sha256:
            raise InputError(f"{place}: its SHA-256 is {image.sha256}, the recipe pins {item.sha256}")
        return image

    def _object(self, place: str, address: str, bucket: str) -> bytes:
        if self.store is None:
            raise InputError(f"{place}: {address} can't be read here: no S3 store is configured")
        if bucket not in self.buckets:
            raise InputError(f"{place}: bucket {bucket!r} is not allowed; allowed: {', '.join(self.buckets)}")
        try:
            return self.store.get_address(address, max_bytes=MAX_BYTES)
        except (ObjectNotFoundError, StoreRefusedError) as error:
            raise InputError(f"{place}: {address} can't be read: {error}") from error

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
        image = InputImage(data=data, extension=_extension(place, data), sha256=hashlib.sha256(data).hexdigest())
        image.decode()
    except UnidentifiedImageError:
        raise InputError(f"{place}: is not a readable image; allowed: PNG, JPEG, WebP") from None
    except Image.DecompressionBombError:
        raise InputError(f"{place}: is too large; at most {MAX_PIXELS:,} pixels are allowed") from None
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(f"{place}: is a damaged image: {error}") from error
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
