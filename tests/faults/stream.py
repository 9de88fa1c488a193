"""What holds of the events of one run whatever happened to it, checked event by event."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from storage.redis.state import FINAL

Kind: TypeAlias = Literal["lost", "doubled", "differing"]


@dataclass(frozen=True, kw_only=True)
class StreamFault:
    """What is wrong with one event."""

    kind: Kind
    words: str


class StreamCheck:
    """Events are counted, fractions never fall, and each artifact comes once and in order.

    Each start says how many steps were done before; the steps follow one by one from there. A start may repeat the step
    that was under way, or those whose uploads were, and never reports fewer done than a start before.
    """

    def __init__(self, artifacts: Sequence[tuple[int, str]], steps: int) -> None:
        self.artifacts = artifacts
        """Step and SHA-256 of each artifact that the run leaves, in order."""
        self._steps = steps
        self._events = self._artifacts_seen = 0
        self._fraction = 0.0
        self._due = self._done = 0
        self._last = ""

    @property
    def has_all_artifacts(self) -> bool:
        return self._artifacts_seen == len(self.artifacts)

    def follow(self, event: Mapping[str, Any]) -> Iterator[StreamFault]:
        """What is wrong with the next event."""
        where = f"event {event['n']}, {event['type']}"
        if event["n"] != self._events + 1:
            kind: Kind = "lost" if event["n"] > self._events else "doubled"
            yield StreamFault(kind=kind, words=f"{where}: is number {self._events + 1}")
        if event["fraction"] < self._fraction:
            yield StreamFault(kind="differing", words=f"{where}: the fraction falls")
        if self._last in FINAL and event["type"] != "queued":
            yield StreamFault(kind="doubled", words=f"{where}: after the end")
        self._events, self._fraction, self._last = event["n"], event["fraction"], event["type"]
        match event["type"]:
            case "started":
                if event["done"] < self._done:
                    words = f"{where}: {event['done']} done, {self._done} were before"
                    yield StreamFault(kind="differing", words=words)
                self._due, self._done = event["done"] + 1, event["done"]
            case "step":
                if event["step"] != self._due:
                    yield StreamFault(kind="differing", words=f"{where}: is step {event['step']}, {self._due} is due")
                self._due = event["step"] + 1
            case "artifact":
                yield from self._follow_artifact(where, (event["step"], event["sha256"]))

    def _follow_artifact(self, where: str, artifact: tuple[int, str]) -> Iterator[StreamFault]:
        seen, due = self.artifacts[: self._artifacts_seen], self.artifacts[self._artifacts_seen :]
        if artifact in due[:1]:
            self._artifacts_seen += 1
        elif artifact in due:
            self._artifacts_seen += due.index(artifact) + 1
            yield StreamFault(kind="lost", words=f"{where}: is {artifact}, due is {due[0]}")
        else:
            kind: Kind = "doubled" if artifact in seen else "differing"
            yield StreamFault(kind=kind, words=f"{where}: is {artifact}, due is {[*due[:1]]}")

    def at_end(self) -> Iterator[StreamFault]:
        """What is wrong with the events of a run that succeeded, once all were followed."""
        if self._last != "succeeded":
            yield StreamFault(kind="lost", words=f"the last event is {self._last}")
        if not self.has_all_artifacts:
            missing = [step for step, _ in self.artifacts[self._artifacts_seen :]]
            yield StreamFault(kind="lost", words=f"no artifacts of steps {missing}")
        if self._due != self._steps + 1:
            yield StreamFault(kind="differing", words=f"the last step is {self._due - 1} of {self._steps}")
