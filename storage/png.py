"""Lossless PNG files of images, with their provenance in text chunks."""

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

from PIL.Image import Image
from PIL.PngImagePlugin import PngInfo

CONTENT_TYPE = "image/png"
CHUNKS = {
    "run_id": "autosequence:run",
    "step": "autosequence:step",
    "variation": "autosequence:variation",
    "seed": "autosequence:seed",
    "recipe_sha256": "autosequence:recipe-sha256",
    "model_sha256": "autosequence:model-sha256",
}
"""The name of the text chunk of each field of PngProvenance, in the order of the file."""
# A third of the default level's time, for a sixth more bytes.
COMPRESS_LEVEL = 1


@dataclass(frozen=True, kw_only=True)
class PngProvenance:
    """The provenance of an image of a run, in its text chunks."""

    run_id: str
    step: int
    variation: int
    seed: int
    recipe_sha256: str
    model_sha256: str | None = None
    """The fingerprint of the model that drew it; None when it is unknown, as in images of release 0.1.0."""

    def to_chunks(self) -> dict[str, str]:
        """The text chunks, by name; unknown fields are left out."""
        return {chunk: str(value) for field, chunk in CHUNKS.items() if (value := getattr(self, field)) is not None}

    @staticmethod
    def from_chunks(chunks: Mapping[str, str]) -> "PngProvenance":
        """The provenance in the text chunks of an image. Raises ValueError when a chunk is absent or wrong."""
        found = {field: chunks[chunk] for field, chunk in CHUNKS.items() if chunk in chunks}
        try:
            return PngProvenance(
                run_id=found["run_id"],
                step=int(found["step"]),
                variation=int(found["variation"]),
                seed=int(found["seed"]),
                recipe_sha256=found["recipe_sha256"],
                model_sha256=found.get("model_sha256"),
            )
        except KeyError as error:
            raise ValueError(f"the text chunk {CHUNKS[error.args[0]]} is missing") from None


def text_chunks(image: Image) -> dict[str, str]:
    """The text chunks of an image that was opened from a PNG file."""
    return {key: text for key, text in image.info.items() if isinstance(key, str) and isinstance(text, str)}


def encode_png(image: Image, metadata: Mapping[str, str]) -> bytes:
    """`image` as PNG, `metadata` as its text chunks in their order; the same arguments give the same bytes."""
    chunks = PngInfo()
    for key, text in metadata.items():
        chunks.add_text(key, text)
    file = BytesIO()
    image.save(file, "PNG", compress_level=COMPRESS_LEVEL, pnginfo=chunks)
    return file.getvalue()
