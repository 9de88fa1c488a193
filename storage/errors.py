"""The exceptions of storage: one family, one class for each thing that a caller can do."""


class StorageError(Exception):
    """Storage failed.

    StorageError
    ├── InvalidNameError        a run id or key has characters that are not allowed (also a ValueError)
    ├── ObjectNotFoundError     the object does not exist
    ├── ObjectExistsError       a put that only creates found an object there
    ├── StoreUnavailableError   the store can't be reached or is busy: the same call may succeed later
    ├── StoreRefusedError       the store refuses and will refuse again: credentials, bucket, size
    ├── CommitConflictError     another worker committed this run differently: stop, nothing of ours counts
    ├── CorruptRecordError      what S3 or Redis holds of a run is not what a release of this program writes
    ├── NewerRecordError        what S3 or Redis holds of a run is for a newer release to read: leave the run to it
    └── RunNotFoundError        there is no such run
    """


class InvalidNameError(StorageError, ValueError):
    """A name can't become part of a key."""


class ObjectNotFoundError(StorageError):
    """The object does not exist."""


class ObjectExistsError(StorageError):
    """A put that only creates found an object there."""


class StoreUnavailableError(StorageError):
    """The store can't be reached or is busy: the same call may succeed later."""


class StoreRefusedError(StorageError):
    """The store refuses and will refuse again: credentials, bucket, size."""


class CommitConflictError(StorageError):
    """Another worker committed this run differently: stop, nothing of ours counts."""


class RunNotFoundError(StorageError):
    """There is no such run."""


class CorruptRecordError(StorageError):
    """What S3 or Redis holds of a run is not what a release of this program writes."""


class NewerRecordError(StorageError):
    """What S3 or Redis holds of a run is for a newer release to read: leave the run to it."""
