"""The formats of the images of runs, by their names in `output.format`; a format's name is its files' extension."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

from PIL import Image

from storage import png


@dataclass(frozen=True, kw_only=True)
class ImageFormat:
    """How an image and what it says of itself become a file, and are read from it. Lossless, as exact resume needs."""

    content_type: str
    encode: Callable[[Image.Image, Mapping[str, str]], bytes]
    """The file of an image with this metadata; the same arguments give the same bytes."""
    metadata: Callable[[Image.Image], dict[str, str]]
    """The metadata of an image that was opened from such a file."""


FORMATS: Final[Mapping[str, ImageFormat]] = {
    "png": ImageFormat(content_type=png.CONTENT_TYPE, encode=png.encode_png, metadata=png.text_chunks),
}
NAMES: Final = " or ".join(name.upper() for name in FORMATS)
"""The formats, for error messages."""


def open_image(file: Path | BytesIO) -> Image.Image:
    """An image of a run, not decoded yet. Raises what Pillow raises of other and of damaged files."""
    return Image.open(file, formats=[name.upper() for name in FORMATS])


def metadata_of(image: Image.Image) -> dict[str, str]:
    """What an image of `open_image` says of itself."""
    return FORMATS[(image.format or "").lower()].metadata(image)
