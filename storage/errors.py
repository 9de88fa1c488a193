"""What can go wrong in storage: one family, told apart by what the caller should do."""


class StorageError(Exception):
    """Storage failed.

    StorageError
    ├── InvalidNameError        a run id or key holds characters that keys may not (also a ValueError)
    ├── ObjectNotFoundError      there is no such object
    ├── ObjectExistsError       a put that was only to create found the object there
    ├── StoreUnavailableError   the store can't be reached or is busy: the same call may succeed later
    ├── StoreRefusedError       the store says no, and will again: credentials, bucket, size
    ├── CommitConflictError           another worker committed this run differently: stop, nothing of ours counts
    ├── CorruptRecordError      what S3 or Redis holds of a run is not what this program leaves there
    ├── NewerRecordError        what S3 or Redis holds of a run was written by a newer release
    └── RunNotFoundError         Redis holds nothing of this run
    """


class InvalidNameError(StorageError, ValueError):
    """A name that would become part of a key can't."""


class ObjectNotFoundError(StorageError):
    """There is no such object."""


class ObjectExistsError(StorageError):
    """A put that was only to create found the object there."""


class StoreUnavailableError(StorageError):
    """The store can't be reached or is busy: the same call may succeed later."""


class StoreRefusedError(StorageError):
    """The store says no, and will again: credentials, bucket, size."""


class CommitConflictError(StorageError):
    """Another worker committed this run differently: stop, nothing of ours counts."""


class RunNotFoundError(StorageError):
    """Redis holds nothing of this run."""


class CorruptRecordError(StorageError):
    """What S3 or Redis holds of a run is not what this program leaves there."""


class NewerRecordError(StorageError):
    """What S3 or Redis holds of a run was written by a newer release, which can continue it."""
