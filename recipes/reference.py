"""References to images of a recipe: a file in its folder, an object in S3, or a data: URI."""

import base64
import binascii
import posixpath
import re
import unicodedata
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import unquote

ALLOWED = (
    "a path relative to the recipe file (without leaving its folder), s3://bucket/key, "
    "or a data: URI of image/png, image/jpeg or image/webp in base64"
)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_S3 = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(?P<key>.+)", re.DOTALL)
_DATA = re.compile(r"data:(?P<media_type>image/(?:png|jpeg|webp));base64,(?P<content>.+)", re.DOTALL)
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\]")
_MAX_KEY_BYTES = 1024


class ImageReferenceError(ValueError):
    """A reference has none of the allowed forms."""


@dataclass(frozen=True, kw_only=True)
class FileReference:
    """A file, relative to the recipe file."""

    path: str


@dataclass(frozen=True, kw_only=True)
class S3Reference:
    """An object in S3."""

    bucket: str
    key: str

    @property
    def address(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True, kw_only=True)
class DataReference:
    """An image in the recipe itself."""

    media_type: str
    content: bytes


Reference: TypeAlias = FileReference | S3Reference | DataReference


def parse_reference(text: str) -> Reference:
    """Parse an image reference of a recipe.

    Raises ImageReferenceError.
    """
    scheme = _SCHEME.match(text)
    match scheme.group().lower() if scheme else None:
        case None:
            return file_reference(text)
        case "s3:":
            return _s3(text)
        case "data:":
            return _data(text)
        case other:
            raise ImageReferenceError(f"{other} URIs are not supported")


def file_reference(text: str) -> FileReference:
    """The file at a relative path.

    Raises ImageReferenceError if the path may leave the folder.
    """
    if "\0" in text:
        raise ImageReferenceError("the path contains a NUL character")
    if text.startswith("/"):
        raise ImageReferenceError("the path is absolute")
    if posixpath.normpath(text).split("/")[0] == "..":
        raise ImageReferenceError("the path leaves the recipe's folder")
    if text.endswith("/") or posixpath.normpath(text) == ".":
        raise ImageReferenceError("the path is a folder")
    return FileReference(path=text)


def _s3(text: str) -> S3Reference:
    found = _S3.fullmatch(text)
    if not found or len(found["key"].encode("utf-8", "replace")) > _MAX_KEY_BYTES:
        raise ImageReferenceError("not of the form s3://bucket/key")
    if not _is_plain(found["key"]):
        raise ImageReferenceError("the key has an empty, '.' or '..' part, a backslash or a control character")
    return S3Reference(bucket=found["bucket"], key=found["key"])


def _is_plain(key: str) -> bool:
    """Whether no server or proxy, whatever it decodes and normalizes, reads `key` as that of another object."""
    while (decoded := unquote(key)) != key:
        key = decoded
    parts = unicodedata.normalize("NFKC", key).split("/")
    return not {"", ".", ".."} & set(parts) and not _UNSAFE.search(key)


def _data(text: str) -> DataReference:
    found = _DATA.fullmatch(text)
    if not found:
        raise ImageReferenceError("the data: URI is not a PNG, JPEG or WebP image in base64")
    try:
        content = base64.b64decode(found["content"], validate=True)
    except (binascii.Error, ValueError):
        raise ImageReferenceError("the data: URI is not valid base64") from None
    return DataReference(media_type=found["media_type"], content=content)
