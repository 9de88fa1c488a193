"""The exceptions of storage: one family, with one class for each reaction of a caller."""


class StorageError(Exception):
    """Storage failed. The base of all exceptions of this package."""


class InvalidNameError(StorageError, ValueError):
    """A run id, a prefix or a key has characters that are not allowed."""


class ObjectNotFoundError(StorageError):
    """The object does not exist."""


class ObjectExistsError(StorageError):
    """The object exists already, and the put was to create it."""


class StoreUnavailableError(StorageError):
    """The store can't be reached or is busy; the same call may succeed later."""


class StoreRefusedError(StorageError):
    """The store rejects the call and would reject it again: no access, too large."""


class StoreAccessError(StoreRefusedError):
    """The store refuses access to the bucket: wrong or expired credentials, no permission, no bucket."""


class CommitConflictError(StorageError):
    """Another worker committed this run differently; this worker must stop."""


class RunNotFoundError(StorageError):
    """The run does not exist."""


class CorruptRecordError(StorageError):
    """A record of a run in S3 or Redis was not written by any release of this program."""


class NewerRecordError(StorageError):
    """A record of a run in S3 or Redis requires a newer release; leave the run to it."""
