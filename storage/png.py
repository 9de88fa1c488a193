"""Images as files: PNG, lossless, with where it comes from written inside."""

from collections.abc import Mapping
from io import BytesIO

from PIL.Image import Image
from PIL.PngImagePlugin import PngInfo

CONTENT_TYPE = "image/png"
# Level 1 takes a third of the default level's time for a sixth more bytes.
COMPRESS_LEVEL = 1


def encode_png(image: Image, metadata: Mapping[str, str]) -> bytes:
    """`image` as PNG, `metadata` as its text chunks in their order; the same arguments give the same bytes."""
    chunks = PngInfo()
    for key, text in metadata.items():
        chunks.add_text(key, text)
    file = BytesIO()
    image.save(file, "PNG", compress_level=COMPRESS_LEVEL, pnginfo=chunks)
    return file.getvalue()
