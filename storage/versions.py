"""Versions of the records in S3 and Redis: a record without `version` has version 1."""

from collections.abc import Mapping
from typing import Any

from storage.errors import NewerRecordError


def check_version(what: str, document: Mapping[str, Any], *, newest: int) -> None:
    """Check that this release reads the version of a record.

    Args:
        what: the record, for the error.
        document: the record as JSON data.
        newest: the newest version that this release reads.

    Raises:
        NewerRecordError: the record has a newer version.
        ValueError: its version is no positive integer.
    """
    version = document.get("version", 1)
    if type(version) is not int or version < 1:
        raise ValueError(f"version is {version!a:.80}")
    if version > newest:
        raise NewerRecordError(
            f"{what} has version {version}, written by a newer release; this release reads up to {newest}"
        )
