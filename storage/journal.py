"""The durable records of a run in the bucket: a commit for each step, then the manifest.

A step is complete once its record exists, and a record can be created only once. This keeps two workers of one run
apart. Records have no times, hosts or presigned URLs, so a repeated step gives the same bytes, and an existing record
with the same bytes counts as written.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, TypeVar

from pydantic import Field, TypeAdapter

from storage import keys
from storage.errors import (
    CommitConflictError,
    CorruptRecordError,
    ObjectExistsError,
    ObjectNotFoundError,
    StoreUnavailableError,
)
from storage.objects import PARALLEL_READS, ObjectStore
from storage.records import TOLERANT, read_record, record_json

Role: TypeAlias = Literal["thinking", "refinement", "image"]
T = TypeVar("T")
A = TypeVar("A")

JSON = "application/json"


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A text or image of the sequence, as stored."""

    __pydantic_config__: ClassVar[dict[str, Any]] = TOLERANT

    kind: Literal["text", "image"]
    role: Role
    step: int
    key: str
    """Relative to the run's folder, such as steps/004-image.png."""
    content_type: str
    size: int = 0
    """Bytes."""
    sha256: str = ""
    path: str = ""
    """The branch of a tree, such as 0.1; for an image, it ends with the image's own variation. Empty without a tree."""
    index: int | None = None
    """The position of an image among the images of its branch, from 0; None for a text."""
    variation: int = 0
    """The number of an image among those that its step drew from one context, from 0."""
    attempt: int = 0
    """0 for the first attempt at an image, then the number of the retry."""
    score: float | None = None
    """The model's score of an image, from 0 to 1; None when the image was not scored."""
    selected: Annotated[bool, Field(validation_alias="chosen")] = True
    """Whether the sequence continued from it; a later attempt may have replaced it (see Manifest.images)."""
    given: bool = False
    """Whether the text comes from the recipe, not from the model."""
    seed: int | None = None
    """The seed of an image's noise."""
    width: int | None = None
    height: int | None = None

    def to_data(self) -> dict[str, Any]:
        """The artifact as JSON data, with `selected` under the name that release 0.1.0 reads, `chosen`."""
        return {"chosen" if name == "selected" else name: value for name, value in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class Commit:
    """The record that a step is done and its objects are stored."""

    __pydantic_config__: ClassVar[dict[str, Any]] = TOLERANT

    run_id: str
    step: int
    kind: str
    """That of the step in the plan, or `skip` for an attempt at an image in which none was drawn again."""
    artifacts: tuple[Artifact, ...] = ()
    recipe_sha256: str

    def to_json(self) -> bytes:
        """The record as stored."""
        document = {**vars(self), "artifacts": [artifact.to_data() for artifact in self.artifacts]}
        return record_json(document, sort_keys=True)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The record that a run is complete, with all its artifacts."""

    __pydantic_config__: ClassVar[dict[str, Any]] = TOLERANT

    run_id: str
    name: str
    recipe_sha256: str
    model: str
    seed: int
    steps: int
    state: Literal["succeeded"] = "succeeded"
    parent: str | None = None
    """The run and step from which this run was branched, as RUN@STEP."""
    artifacts: tuple[Artifact, ...]
    """In the order of their steps."""
    images: tuple[str, ...] = ()
    """The keys of the selected images, in order; the others are other variations and replaced attempts."""
    model_sha256: str | None = None
    """The fingerprint of the model; None when it is unknown, as in runs that release 0.1.0 started."""

    def to_json(self) -> bytes:
        """The record as stored: without `model_sha256` when it is unknown, as release 0.1.0 writes it."""
        document = {**vars(self), "artifacts": [artifact.to_data() for artifact in self.artifacts]}
        if self.model_sha256 is None:
            del document["model_sha256"]
        return record_json(document, sort_keys=True)


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """The model with which a run was started."""

    __pydantic_config__: ClassVar[dict[str, Any]] = TOLERANT

    name: str
    sha256: str
    """The fingerprint of its files."""

    def to_json(self) -> bytes:
        """The record as stored."""
        return record_json(vars(self), sort_keys=True)


_COMMIT, _MANIFEST, _MODEL = TypeAdapter(Commit), TypeAdapter(Manifest), TypeAdapter(ModelRecord)


class Journal:
    """The folder of one run in the store."""

    def __init__(self, store: ObjectStore, prefix: str, run_id: str) -> None:
        self.store = store
        self.run_id = run_id
        self.folder = keys.run_folder(prefix, run_id)

    def commits(self) -> tuple[Commit, ...]:
        """The records of the committed steps, in order. Raises CorruptRecordError, NewerRecordError."""
        return tuple(in_parallel(self.read_own_commit, range(1, self.count_commits() + 1)))

    def count_commits(self) -> int:
        """The number of committed steps, without reading their records. Raises CorruptRecordError for a gap."""
        found = list(self.store.list(self.folder + keys.COMMITS))
        expected = [self.folder + keys.commit(step) for step in range(1, len(found) + 1)]
        if sorted(found) != sorted(expected):
            unexpected = sorted(set(found) ^ set(expected))
            raise CorruptRecordError(
                f"{self.store.address(unexpected[0])}: commit records must run from 1 without a gap"
            )
        return len(found)

    def read_commit(self, step: int) -> Commit:
        """The record of one step. Raises ObjectNotFoundError, CorruptRecordError, NewerRecordError."""
        return self._read(keys.commit(step), _COMMIT)

    def read_own_commit(self, step: int) -> Commit:
        """As `read_commit`. Raises CorruptRecordError also when the record is of another run or step."""
        commit = self.read_commit(step)
        if (commit.run_id, commit.step) != (self.run_id, step):
            what = f"is of step {commit.step} of the run {commit.run_id}"
            raise CorruptRecordError(f"{self.address(keys.commit(step))}: {what}")
        return commit

    def commit(self, commit: Commit) -> None:
        """Commit a step whose objects are stored. Raises CommitConflictError when another worker committed it."""
        self.put_once(keys.commit(commit.step), commit.to_json(), content_type=JSON)

    def manifest(self) -> Manifest | None:
        """The manifest, once the run is complete. Raises CorruptRecordError, NewerRecordError."""
        try:
            return self._read(keys.MANIFEST, _MANIFEST)
        except ObjectNotFoundError:
            return None

    def write_manifest(self, manifest: Manifest) -> None:
        """Complete the run. Raises CommitConflictError when another worker wrote the manifest differently.

        A worker of release 0.1.0 may have written the same manifest without `model_sha256`; it is kept.
        """
        try:
            self.put_once(keys.MANIFEST, manifest.to_json(), content_type=JSON)
        except CommitConflictError:
            if self.manifest() != replace(manifest, model_sha256=None):
                raise

    def model(self) -> ModelRecord | None:
        """The model with which the run was started; None without a record, as in runs that release 0.1.0 started.

        Raises CorruptRecordError, NewerRecordError.
        """
        try:
            return self._read(keys.MODEL, _MODEL)
        except ObjectNotFoundError:
            return None

    def write_model(self, name: str, sha256: str) -> None:
        """Record the model of a run that is about to begin, before its recipe is stored.

        The record of a worker that stopped before it stored the recipe is replaced. Raises CommitConflictError when
        the run has a recipe and another model.
        """
        record = ModelRecord(name=name, sha256=sha256).to_json()
        if self._create(keys.MODEL, record, JSON):
            return
        if self.store.exists(self.folder + keys.RECIPE):
            raise CommitConflictError(f"{self.address(keys.MODEL)}: another worker began this run with another model")
        self.put(keys.MODEL, record, content_type=JSON)

    def put_once(self, name: str, data: bytes, *, content_type: str) -> None:
        """Create the object `name` of this run. Raises CommitConflictError when it exists with other bytes."""
        if not self._create(name, data, content_type):
            raise CommitConflictError(f"{self.address(name)}: another worker wrote this differently")

    def put_of_step(self, step: int, name: str, data: bytes, *, content_type: str) -> None:
        """Store an object of an uncommitted step. Raises CommitConflictError when another worker committed it.

        An object of an interrupted worker is replaced. A committed object is not, even if this machine computes other
        bytes than the machine that committed it.
        """
        if self._create(name, data, content_type):
            return
        if self.store.exists(self.folder + keys.commit(step)):
            raise CommitConflictError(
                f"{self.address(keys.commit(step))}: another worker committed this step differently"
            )
        self.put(name, data, content_type=content_type)

    def put(self, name: str, data: bytes, *, content_type: str) -> None:
        """Store the object `name` of this run, replacing an earlier one."""
        self.store.put(self.folder + name, data, content_type=content_type)

    def get(self, name: str) -> bytes:
        """The object `name` of this run. Raises ObjectNotFoundError."""
        return self.store.get(self.folder + name)

    def read_artifact(self, artifact: Artifact) -> bytes:
        """The bytes of a committed artifact. Raises CorruptRecordError when they are missing or have changed."""
        try:
            data = self.get(artifact.key)
        except ObjectNotFoundError:
            raise CorruptRecordError(
                f"{self.address(artifact.key)}: is missing, and step {artifact.step} is committed"
            ) from None
        if hashlib.sha256(data).hexdigest() != artifact.sha256:
            raise CorruptRecordError(f"{self.address(artifact.key)}: is not what step {artifact.step} committed")
        return data

    def address(self, name: str) -> str:
        """The address of the object `name` of this run, s3://bucket/key."""
        return self.store.address(self.folder + name)

    def url(self, name: str) -> str:
        """The URL of the object `name` of this run for browsers."""
        return self.store.url(self.folder + name)

    def _create(self, name: str, data: bytes, content_type: str) -> bool:
        """Create an object. Returns whether it has these bytes now; an earlier put whose response was lost counts."""
        try:
            self.store.put(self.folder + name, data, content_type=content_type, only_if_absent=True)
        except ObjectExistsError:
            try:
                return self.store.get(self.folder + name) == data
            except ObjectNotFoundError as error:
                raise StoreUnavailableError(
                    f"{self.address(name)}: a put conflicted with one that was undone"
                ) from error
        return True

    def _read(self, name: str, reader: TypeAdapter[T]) -> T:
        return read_record(self.get(name), reader, self.address(name))


def in_parallel(call: Callable[[A], T], items: Iterable[A]) -> Sequence[T]:
    """`call` of each item, in order. After an error no further call begins; it is raised when those made have ended."""
    with ThreadPoolExecutor(PARALLEL_READS, thread_name_prefix="journal") as threads:
        return list(threads.map(call, items))


def selected_images(artifacts: Iterable[Artifact]) -> tuple[str, ...]:
    """The keys of the selected images, in order: for each place of each branch, the one that was selected last."""
    places = {(one.path, one.index): one.key for one in artifacts if one.kind == "image" and one.selected}
    return tuple(places.values())
