"""The events of a run: what a worker publishes, Redis stores, and clients and web pages read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

from pydantic import TypeAdapter, ValidationError

from storage.errors import CorruptRecordError
from storage.records import TOLERANT, invalid_fields
from storage.redis.state import FINAL, State

VERSION: Final = 1
"""The newest version of an event that this release reads. An event without `version` has version 1."""

_CONFIG: dict[str, Any] = {
    **TOLERANT,
    "allow_inf_nan": False,
    "use_attribute_docstrings": True,
    "defer_build": True,
}


@dataclass(frozen=True, kw_only=True)
class RunEvent:
    """The fields that every event has. `Progress.publish` sets `id`, `n` and `at`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _CONFIG

    type: str = ""
    """The type of the event."""
    id: str = ""
    """The position in the run's stream; pass it as `after` or `Last-Event-ID` to resume after this event."""
    n: int = 0
    """The number of the event in its run, from 1; 0 in an event that the reader derived from the run's state."""
    at: float = 0.0
    """When it was published, in unix seconds."""
    fraction: float = 0.0
    """How much of the run is done, from 0 to 1; it never decreases."""
    eta_s: float | None = None
    """The estimated time to the end of the run, in seconds; only in events of a step, once it is known."""

    @property
    def is_final(self) -> bool:
        """Whether the run ended with this event."""
        return self.type in FINAL

    def to_document(self) -> dict[str, Any]:
        """The event as JSON data. Fields that are None are left out, and so is an empty id."""
        return {name: value for name, value in vars(self).items() if value is not None and (name, value) != ("id", "")}

    def to_json(self) -> str:
        """The event as one line of JSON."""
        return json.dumps(self.to_document(), ensure_ascii=False)


@dataclass(frozen=True, kw_only=True)
class StepEvent(RunEvent):
    """An event of one step of the plan."""

    step: int
    """The number of the step, from 1."""


@dataclass(frozen=True, kw_only=True)
class Queued(RunEvent):
    """The run waits for a worker: after it was submitted or resumed, or after its worker stopped."""

    type: Literal["queued"] = "queued"
    name: str = ""
    """The name of the recipe."""
    model: str = ""
    """The model that the recipe asks for."""
    reason: str | None = None
    """Why a worker returned the run to the queue."""


@dataclass(frozen=True, kw_only=True)
class Loading(RunEvent):
    """A worker loads its model before it starts the run."""

    type: Literal["loading"] = "loading"
    done: int
    """Bytes of weights loaded so far."""
    total: int
    """Bytes of weights in all."""


@dataclass(frozen=True, kw_only=True)
class Started(RunEvent):
    """A worker started the run, or resumed it after its last committed step."""

    type: Literal["started"] = "started"
    name: str = ""
    """The name of the recipe."""
    model: str = ""
    """The model that runs it."""
    steps: int
    """The number of steps in the plan."""
    done: int = 0
    """The number of steps that were committed before."""


@dataclass(frozen=True, kw_only=True)
class StepStarted(StepEvent):
    """A step begins. A resumed run begins its unfinished step again."""

    type: Literal["step"] = "step"
    kind: str
    """What the step does: `read`, `write`, `draw` or `forget`."""
    role: str | None = None
    """What the step reads or makes: `initial`, `thinking`, `refinement` or `image`."""
    text: str | None = None
    """The text that a step reads from the recipe."""
    index: int | None = None
    """The number of the image in its branch, from 0."""
    variations: int | None = None
    """The number of images that the step draws."""
    attempt: int | None = None
    """0 for the first attempt at an image, then the number of the retry."""
    path: str | None = None
    """The branch of the tree, such as `0.1`."""


@dataclass(frozen=True, kw_only=True)
class TextDelta(StepEvent):
    """The next part of the text that the model writes."""

    type: Literal["text"] = "text"
    delta: str
    """The part; concatenate the parts of a step to get its text."""


@dataclass(frozen=True, kw_only=True)
class Denoised(StepEvent):
    """An image advanced by some denoising steps."""

    type: Literal["denoised"] = "denoised"
    done: int
    """Denoising steps done."""
    total: int
    """Denoising steps in all."""
    preview: str | None = None
    """A small JPEG of the image so far, as a data: URI; only in some events, and only the last one is stored."""


@dataclass(frozen=True, kw_only=True)
class Judged(StepEvent):
    """The model scored one more of the images that the step drew."""

    type: Literal["judged"] = "judged"
    question: str
    """The question that the model was asked about each image."""
    answer: str | None = None
    """The answer whose likelihood is the score; absent when the score is that of yes against no."""
    scores: tuple[float, ...]
    """The scores so far, from 0 to 1, in the order of the variations."""


@dataclass(frozen=True, kw_only=True)
class ArtifactStored(StepEvent):
    """A text or an image is stored, and its step is committed."""

    type: Literal["artifact"] = "artifact"
    role: str
    """`thinking`, `refinement` or `image`."""
    key: str
    """The key of the object in the bucket."""
    url: str
    """A link to the object."""
    size: int
    """Bytes."""
    sha256: str
    """The SHA-256 of the object's bytes, in hexadecimal."""
    index: int | None = None
    """The number of the image in its branch, from 0; absent for a text."""
    path: str | None = None
    """The branch of the tree that the image is on, such as `0.1`; empty without a tree, absent for a text."""
    variation: int | None = None
    """The number of the image among those drawn together, from 0; absent for a text."""
    attempt: int | None = None
    """0 for the first attempt at an image, then the number of the retry; absent for a text."""
    score: float | None = None
    """How well the image shows what was asked for, from 0 to 1; absent when it was not scored."""
    selected: bool | None = None
    """Whether the sequence continues with this image, unless a later attempt replaces it; absent for a text."""


@dataclass(frozen=True, kw_only=True)
class Succeeded(RunEvent):
    """The run is complete."""

    type: Literal["succeeded"] = "succeeded"
    fraction: float = 1.0
    manifest: str = ""
    """The address of the manifest."""


@dataclass(frozen=True, kw_only=True)
class Failed(RunEvent):
    """The run failed. It can be resumed."""

    type: Literal["failed"] = "failed"
    error: str = ""
    """Why it failed."""


@dataclass(frozen=True, kw_only=True)
class Cancelled(RunEvent):
    """The run was cancelled. It can be resumed."""

    type: Literal["cancelled"] = "cancelled"


@dataclass(frozen=True, kw_only=True)
class Gap(RunEvent):
    """Earlier events are no longer stored (a stream keeps about 10,000); this event has the run's state instead."""

    type: Literal["gap"] = "gap"
    state: State
    """The state of the run."""
    name: str = ""
    """The name of the recipe."""
    model: str = ""
    """The model that the recipe asks for."""
    step: int = 0
    """The current step, from 1; 0 before the first."""
    steps: int = 0
    """The number of steps in the plan; 0 before the run started."""
    error: str | None = None
    """Why the run failed."""
    manifest: str | None = None
    """The address of the manifest of a run that succeeded."""


@dataclass(frozen=True, kw_only=True)
class UnknownEvent(RunEvent):
    """An event of a type, or of a version of its type, that a later release introduced."""

    data: Mapping[str, Any] = field(default_factory=dict)
    """The event as it was read."""

    def to_document(self) -> dict[str, Any]:
        """The event as it was read."""
        return {**self.data, "id": self.id}


EVENTS: Final[tuple[type[RunEvent], ...]] = (
    *(Queued, Loading, Started),
    *(StepStarted, TextDelta, Denoised, Judged, ArtifactStored),
    *(Succeeded, Failed, Cancelled, Gap),
)
"""Every type of event, in the order in which a run has them."""

_ENVELOPE: Final = TypeAdapter(RunEvent)
_READERS: Final = {kind.type: TypeAdapter(kind) for kind in EVENTS}


def parse(event_id: str, text: str) -> RunEvent:
    """The event that the JSON `text` describes. Raises CorruptRecordError."""
    try:
        data = json.loads(text)
        document = {
            **data,
            "id": event_id,
            "n": data["n"],
            "type": data["type"],
        }  # raises KeyError without `n` or `type`
        envelope = _ENVELOPE.validate_json(json.dumps(document))
        reader = _READERS.get(envelope.type)
        if reader is None or _version(document) > VERSION:
            return UnknownEvent(**vars(envelope), data=document)
        return reader.validate_json(json.dumps(_current(document)))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        why = invalid_fields(error) if isinstance(error, ValidationError) else f"{type(error).__name__}: {error}"
        raise CorruptRecordError(f"event {event_id}: not an event of this program: {why:.300}") from error


def _version(document: Mapping[str, Any]) -> int:
    version = document.get("version", 1)
    if type(version) is not int:
        raise TypeError("version is not a whole number")
    return version


def _current(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document as this release writes it."""
    current = dict(document)
    if "chosen" in current:  # of an artifact, as 0.1.0 writes it
        current.setdefault("selected", current.pop("chosen"))
    if current.get("preview") is True:  # Redis stores the preview itself apart from the event
        current["preview"] = ""
    return current
