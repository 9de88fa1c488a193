"""What a run has done, for good: a commit record for each step, then the manifest.

The put that creates a record is the moment it counts, and the fence between two workers. Nothing here depends on when
or where a run is done (no times, hosts or signed addresses): a step done again gives the same bytes, so a record that
is there already, byte for byte, is as good as one's own.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

from pydantic import TypeAdapter, ValidationError

from storage import keys
from storage.errors import (
    CommitConflictError,
    CorruptRecordError,
    ObjectExistsError,
    ObjectNotFoundError,
    StoreUnavailableError,
)
from storage.objects import ObjectStore

Role: TypeAlias = Literal["thinking", "refinement", "image"]
StepKind: TypeAlias = Literal["read", "write", "draw", "skip", "forget"]
T = TypeVar("T")

JSON = "application/json"
STRICT: dict[str, Any] = {"extra": "forbid", "strict": True}


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A text or image of the sequence, as it lies in the store."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

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
    """The branch of a tree that it is on, an image's own variation included, such as 0.1; empty without a tree."""
    index: int | None = None
    """Which of the images of its branch this is, from 0; None for a text."""
    variation: int = 0
    """Which of the images that were drawn together."""
    attempt: int = 0
    """0 for the first try, then which further one."""
    score: float | None = None
    """How well the model finds that an image shows what it is to show, from 0 to 1; None when it was not asked."""
    chosen: bool = True
    """Whether it went on; a better one of a later try may have taken its place (see Manifest.images)."""
    given: bool = False
    """Whether the recipe gave this text, rather than the model."""
    seed: int | None = None
    """What an image's noise was drawn from."""
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True, kw_only=True)
class Commit:
    """A step happened, and its objects are stored."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    run_id: str
    step: int
    kind: StepKind
    artifacts: tuple[Artifact, ...] = ()
    recipe_sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A run is complete: what it was and all it made, in order."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    run_id: str
    name: str
    recipe_sha256: str
    model: str
    seed: int
    steps: int
    state: Literal["succeeded"] = "succeeded"
    parent: str | None = None
    """The run and the step that this one branched off, RUN@STEP."""
    artifacts: tuple[Artifact, ...]
    """All that was made, in order."""
    images: tuple[str, ...] = ()
    """The keys of the images that went on, in order; others are variations that were not chosen, and dropped tries."""


_COMMIT, _MANIFEST = TypeAdapter(Commit), TypeAdapter(Manifest)


class Journal:
    """The folder of one run in the store."""

    def __init__(self, store: ObjectStore, prefix: str, run_id: str) -> None:
        self.store = store
        self.run_id = run_id
        self.folder = keys.run_folder(prefix, run_id)

    def commits(self) -> tuple[Commit, ...]:
        """The steps that happened, from 1 without a gap. Raises CorruptRecordError."""
        found = list(self.store.list(self.folder + keys.COMMITS))
        expected = [self.folder + keys.commit(step) for step in range(1, len(found) + 1)]
        if sorted(found) != sorted(expected):
            strange = sorted(set(found) ^ set(expected))
            raise CorruptRecordError(f"{self.store.address(strange[0])}: commit records must run from 1 without a gap")
        commits = tuple(self.read_commit(step) for step in range(1, len(found) + 1))
        for step, commit in enumerate(commits, 1):
            if (commit.run_id, commit.step) != (self.run_id, step):
                what = f"is of step {commit.step} of the run {commit.run_id}"
                raise CorruptRecordError(f"{self.address(keys.commit(step))}: {what}")
        return commits

    def read_commit(self, step: int) -> Commit:
        """The record of one step. Raises ObjectNotFoundError, CorruptRecordError."""
        return self._read(keys.commit(step), _COMMIT)

    def commit(self, commit: Commit) -> None:
        """Commit a step whose objects are stored. Raises CommitConflictError when another worker committed it."""
        self.put_once(keys.commit(commit.step), _json(commit), content_type=JSON)

    def manifest(self) -> Manifest | None:
        """The manifest, once the run is complete. Raises CorruptRecordError."""
        try:
            return self._read(keys.MANIFEST, _MANIFEST)
        except ObjectNotFoundError:
            return None

    def write_manifest(self, manifest: Manifest) -> None:
        """Complete the run; its last write. Raises CommitConflictError when another worker wrote it differently."""
        self.put_once(keys.MANIFEST, _json(manifest), content_type=JSON)

    def put_once(self, name: str, data: bytes, *, content_type: str) -> None:
        """Create the object `name` of this run. Raises CommitConflictError when it exists with other bytes."""
        if not self._create(name, data, content_type):
            raise CommitConflictError(f"{self.address(name)}: another worker wrote this differently")

    def put_of_step(self, step: int, name: str, data: bytes, *, content_type: str) -> None:
        """Store an object of an uncommitted step. Raises CommitConflictError when another worker committed it.

        What an interrupted worker left is replaced; what is committed is not, even where this machine computes other
        bytes than the one that committed.
        """
        if self._create(name, data, content_type):
            return
        if self.store.exists(self.folder + keys.commit(step)):
            raise CommitConflictError(
                f"{self.address(keys.commit(step))}: another worker committed this step differently"
            )
        self.put(name, data, content_type=content_type)

    def put(self, name: str, data: bytes, *, content_type: str) -> None:
        """Store the object `name` of this run, over what may be there."""
        self.store.put(self.folder + name, data, content_type=content_type)

    def get(self, name: str) -> bytes:
        """The object `name` of this run. Raises ObjectNotFoundError."""
        return self.store.get(self.folder + name)

    def made(self, artifact: Artifact) -> bytes:
        """The bytes of a committed artifact. Raises CorruptRecordError when they are gone, or others by now."""
        try:
            data = self.get(artifact.key)
        except ObjectNotFoundError:
            raise CorruptRecordError(
                f"{self.address(artifact.key)}: is gone, and step {artifact.step} has it"
            ) from None
        if hashlib.sha256(data).hexdigest() != artifact.sha256:
            raise CorruptRecordError(f"{self.address(artifact.key)}: is not what step {artifact.step} committed")
        return data

    def address(self, name: str) -> str:
        """The lasting name of the object `name` of this run, s3://bucket/key."""
        return self.store.address(self.folder + name)

    def url(self, name: str) -> str:
        """Where a browser gets the object `name` of this run."""
        return self.store.url(self.folder + name)

    def _create(self, name: str, data: bytes, content_type: str) -> bool:
        """Create an object; whether these bytes are there now. It may be there from our own put, its answer lost."""
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
        data = self.get(name)
        try:
            return reader.validate_json(data)
        except ValidationError as error:
            faults = [(".".join(map(str, one["loc"])), one["msg"]) for one in error.errors(include_url=False)[:3]]
            why = "; ".join(f"{place or 'as a whole'}: {message}" for place, message in faults)
            raise CorruptRecordError(f"{self.address(name)}: not a record of this program: {why}") from error


def selected_images(artifacts: Iterable[Artifact]) -> tuple[str, ...]:
    """The keys of the images that went on, in order: at each place of each branch the one that was chosen last."""
    places = {(one.path, one.index): one.key for one in artifacts if one.kind == "image" and one.chosen}
    return tuple(places.values())


def _json(record: Commit | Manifest) -> bytes:
    """The one way to write `record`, to the byte."""
    return (json.dumps(asdict(record), ensure_ascii=False, indent=2, sort_keys=True) + "\n").encode()
