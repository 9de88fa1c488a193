"""Reads and writes records: versioned JSON objects that other releases read and write, too.

docs/architecture.md has the rules of their versions.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from storage.errors import CorruptRecordError, NewerRecordError

T = TypeVar("T")

VERSION: Final = 1
"""The newest version of a record that this release reads."""
TOLERANT: Final[dict[str, Any]] = {"extra": "ignore", "strict": True}
"""The pydantic configuration of a record."""


@dataclass(frozen=True, kw_only=True)
class _Versioned:
    """The fields of all records."""

    __pydantic_config__: ClassVar[dict[str, Any]] = TOLERANT

    version: Any = 1


_VERSIONED = TypeAdapter(_Versioned)


def read_record(data: bytes, reader: TypeAdapter[T], address: str) -> T:
    """The record in `data`, which is at `address`. Raises NewerRecordError, CorruptRecordError."""
    try:
        check_version(_VERSIONED.validate_json(data).version, address)
        return reader.validate_json(data)
    except ValidationError as error:
        raise CorruptRecordError(f"{address}: not a record of this program: {invalid_fields(error)}") from error


def invalid_fields(error: ValidationError) -> str:
    """The first errors of a record, each with its field."""
    faults = [(".".join(map(str, one["loc"])), one["msg"]) for one in error.errors(include_url=False)[:3]]
    return "; ".join(f"{field or 'as a whole'}: {message}" for field, message in faults)


def check_version(version: object, address: str, *, known: int = VERSION) -> None:
    """Raises NewerRecordError for a version above `known`, and CorruptRecordError for an invalid one."""
    if type(version) is not int or version < 1:
        raise CorruptRecordError(f"{address}: not a record of this program: version: must be a whole number from 1")
    if version > known:
        raise NewerRecordError(
            f"{address}: has version {version}, written by a newer release; this release reads up to {known}"
        )


def record_json(document: Mapping[str, Any], *, sort_keys: bool) -> bytes:
    """The bytes of a record; equal documents give equal bytes."""
    return (json.dumps(document, ensure_ascii=False, indent=2, sort_keys=sort_keys) + "\n").encode()
