"""Thumbnails of a run's images, for its page."""

import base64
import io
from collections.abc import Mapping

from PIL import Image

SIDE_PX = 256
SIDES_PX = (SIDE_PX, 192, 128, 96, 64, 48, 32)
LOSSLESS_PX = 128
"""Images up to this size are shown enlarged, where lossy compression would be seen."""
QUALITY = 78
LARGEST_BYTES = 40_000
TOTAL_BYTES = 1_200_000
"""Maximum size of all thumbnails on a page, before base64 adds a third."""
CONTENT_TYPE = "image/webp"


def thumbnail(image: Image.Image, *, limit_bytes: int = LARGEST_BYTES) -> bytes:
    """`image` as a WebP of at most SIDE_PX and `limit_bytes`; the same pixels give the same bytes.

    Empty if even the smallest is larger.
    """
    picture = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if max(picture.size) <= LOSSLESS_PX and len(data := _webp(picture, lossless=True)) <= limit_bytes:
        return data
    for side_px in SIDES_PX:
        if side_px < max(picture.size) or side_px == SIDE_PX:
            scale = min(1.0, side_px / max(picture.size))
            size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
            data = _webp(picture if size == picture.size else picture.resize(size, Image.Resampling.LANCZOS))
            if len(data) <= limit_bytes:
                return data
    return b""


def data_uri(data: bytes) -> str:
    """A thumbnail as a data: URI."""
    return f"data:{CONTENT_TYPE};base64,{base64.b64encode(data).decode()}"


def bounded(thumbnails: Mapping[str, bytes], copies: int) -> dict[str, bytes]:
    """`thumbnails`, reduced so that `copies` of them have at most TOTAL_BYTES.

    A thumbnail that can't be made small enough is left out.
    """
    limit_bytes = TOTAL_BYTES // max(1, copies)
    fitting = {
        key: data if len(data) <= limit_bytes else _smaller(data, limit_bytes) for key, data in thumbnails.items()
    }
    return {key: data for key, data in fitting.items() if data}


def _smaller(data: bytes, limit_bytes: int) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        return thumbnail(image, limit_bytes=limit_bytes)


def _webp(image: Image.Image, *, lossless: bool = False) -> bytes:
    data = io.BytesIO()
    image.save(data, "WEBP", quality=QUALITY, method=4, lossless=lossless)
    return data.getvalue()
