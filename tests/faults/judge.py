"""Checks what a campaign left in S3 and Redis, and lists everything that is wrong."""

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from redis import Redis

from storage import keys
from storage.journal import Journal, Manifest
from storage.objects import ObjectStore
from storage.objects.memory import MemoryStore
from storage.redis.runs import Runs
from storage.redis.state import FINAL
from tests.faults.stream import StreamCheck

LASTING: Final = ("autoseq:runs", "autoseq:lines", "autoseq:started", "autoseq:_kombu.binding")
"""What may stay in Redis without a time to live: of a bounded size, however many runs there were."""
SETTLE_S = 30.0
"""How long the last leases and messages may take to go."""


@dataclass
class Verdict:
    """What is wrong, by kind; each as one line."""

    lost: list[str] = field(default_factory=list)
    """A run that did not succeed; a missing object or event."""
    doubled: list[str] = field(default_factory=list)
    """An object too many; an event that comes twice."""
    differing: list[str] = field(default_factory=list)
    """An object with other bytes; events out of order."""
    left: list[str] = field(default_factory=list)
    """Keys that stay; leases and messages of runs that are over."""

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.doubled or self.differing or self.left)

    def faults(self) -> list[str]:
        return [f"{kind}: {line}" for kind, lines in vars(self).items() for line in lines]


class Judge:
    """Compares the objects and events of runs with those of undisturbed runs."""

    def __init__(
        self,
        redis: Redis,
        store: ObjectStore,
        prefix: str,
        expected: Callable[[str], dict[str, bytes]],
        *,
        settle_s: float = SETTLE_S,
    ) -> None:
        self._redis = redis
        self._runs = Runs(redis)
        self._store = store
        self._prefix = prefix
        self._expected = expected
        self._settle_s = settle_s
        self.verdict = Verdict()

    def judge(
        self, run_ids: Sequence[str], *, alone: bool = True, cancellable: Collection[str] = frozenset()
    ) -> Verdict:
        """Of these runs, which are all that ever was in the folder of the bucket when they are `alone`.

        Each has to succeed, or to be cancelled where it is `cancellable`.
        """
        for run_id in run_ids:
            state = self._runs.state(run_id)
            if state is not None and state.state == "cancelled" and run_id in cancellable:
                self._judge_objects(run_id, self._expected(run_id), whole=False)
                self._judge_end(run_id, self.events(run_id))
                continue
            if state is None or state.state != "succeeded":
                end = f"{state.state}: {state.error}" if state else "unknown"
                self.verdict.lost.append(f"{run_id}: {end}")
                continue
            expected = self._expected(run_id)
            self._judge_objects(run_id, expected)
            self._judge_stream(run_id, expected)
        if alone:
            self._judge_bucket(run_ids)
        self._judge_redis()
        return self.verdict

    def events(self, run_id: str) -> list[dict[str, Any]]:
        """The run's events, in order."""
        entries = cast("list[tuple[str, dict[str, str]]]", self._redis.xrange(keys.run_events(run_id)))
        return [json.loads(fields["event"]) for _, fields in entries]

    def _judge_objects(self, run_id: str, expected: Mapping[str, bytes], *, whole: bool = True) -> None:
        """Byte for byte, none missing in a `whole` run, none extra; the commits are among them."""
        folder = f"{self._prefix}/{run_id}/"
        found = {key.removeprefix(folder): self._store.get(key) for key in self._store.list(folder)}
        if whole:
            self.verdict.lost.extend(f"{run_id}: no {name}" for name in expected.keys() - found.keys())
        self.verdict.doubled.extend(f"{run_id}: extra {name}" for name in found.keys() - expected.keys())
        common = expected.keys() & found.keys()
        self.verdict.differing.extend(f"{run_id}: {name}" for name in common if expected[name] != found[name])

    def _judge_stream(self, run_id: str, expected: Mapping[str, bytes]) -> None:
        manifest = _manifest(expected)
        check = StreamCheck([(made.step, made.sha256) for made in manifest.artifacts], manifest.steps)
        events = self.events(run_id)
        for fault in [*(fault for event in events for fault in check.follow(event)), *check.at_end()]:
            getattr(self.verdict, fault.kind).append(f"{run_id}: {fault.words}")
        self._judge_end(run_id, events)

    def _judge_end(self, run_id: str, events: Sequence[Mapping[str, Any]]) -> None:
        ends = [event["type"] for event in events if event["type"] in FINAL]
        if len(ends) > 1:
            self.verdict.doubled.append(f"{run_id}: ends {ends}")

    def _judge_bucket(self, run_ids: Sequence[str]) -> None:
        """No folder that belongs to no run."""
        known = {f"{self._prefix}/{run_id}/" for run_id in run_ids}
        for key in self._store.list(f"{self._prefix}/"):
            if key[: key.index("/", len(self._prefix) + 1) + 1] not in known:
                self.verdict.doubled.append(f"{key} belongs to no run")

    def _judge_redis(self) -> None:
        """Nothing waits, nothing is held, and all that is left will go by itself."""
        deadline = time.monotonic() + self._settle_s
        while (left := kept(self._redis)) and time.monotonic() < deadline:
            time.sleep(0.2)
        self.verdict.left.extend(left)


def kept(redis: Redis) -> list[str]:
    """What Redis holds without a time to live, or as a lease, and should not when every run has its end."""
    found = cast("list[str]", list(redis.scan_iter("autoseq:*", count=1000)))
    with redis.pipeline(transaction=False) as together:
        for key in found:
            together.ttl(key)
        ttls: list[int] = together.execute()
    gone = -2
    lasting = [key for key, ttl in zip(found, ttls, strict=True) if ttl < 0 and ttl != gone]
    held = [key for key in found if key.endswith(":lease")]
    return [key for key in [*lasting, *held] if not key.startswith(LASTING) or key == keys.OPEN_RUNS]


def _manifest(objects: Mapping[str, bytes]) -> Manifest:
    store = MemoryStore()
    store.put(f"any/{keys.MANIFEST}", objects[keys.MANIFEST], content_type="application/json")
    manifest = Journal(store, "", "any").manifest()
    assert manifest is not None
    return manifest
