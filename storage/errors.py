"""What can go wrong in storage: one family, told apart by what the caller should do."""

# ruff: noqa: N818 - the names say what happened; "Error" would add nothing


class StorageError(Exception):
    """Storage failed.

    StorageError
    ├── InvalidName        a run id or key holds characters that keys may not (also a ValueError)
    ├── ObjectMissing      there is no such object
    ├── ObjectExists       a put that was only to create found the object there
    ├── StoreUnavailable   the store can't be reached or is busy: the same call may succeed later
    ├── StoreRefused       the store says no, and will again: credentials, bucket, size
    ├── RunTaken           another worker committed this run differently: stop, nothing of ours counts
    ├── JournalBroken      what S3 or Redis holds of a run is not what this program leaves there
    └── RunUnknown         Redis holds nothing of this run
    """


class InvalidName(StorageError, ValueError):
    """A name that would become part of a key can't."""


class ObjectMissing(StorageError):
    """There is no such object."""


class ObjectExists(StorageError):
    """A put that was only to create found the object there."""


class StoreUnavailable(StorageError):
    """The store can't be reached or is busy: the same call may succeed later."""


class StoreRefused(StorageError):
    """The store says no, and will again: credentials, bucket, size."""


class RunTaken(StorageError):
    """Another worker committed this run differently: stop, nothing of ours counts."""


class RunUnknown(StorageError):
    """Redis holds nothing of this run."""


class JournalBroken(StorageError):
    """What S3 or Redis holds of a run is not what this program leaves there."""
