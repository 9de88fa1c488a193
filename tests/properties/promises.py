"""What holds of a run at every moment, whatever befell it: looked for in the bucket and in Redis themselves."""

import json
from collections.abc import Mapping
from typing import Any, cast

from redis import Redis

from storage import keys
from storage.objects import ObjectStore
from storage.redis.runs import Runs
from storage.redis.state import RunState
from tests.faults.judge import kept
from tests.faults.stream import StreamCheck
from tests.worker.serving import PREFIX, request, undisturbed


class Broken(AssertionError):  # noqa: N818 (it says what happened)
    """A promise does not hold."""


def promised(holds: object, words: str) -> None:
    """Raises Broken unless it `holds`."""
    if not holds:
        raise Broken(words)


class Watched:
    """A run under watch: what was seen of it, against what it leaves when nothing happens to it."""

    def __init__(self, redis: Redis, store: ObjectStore, run_id: str, document: Mapping[str, Any]) -> None:
        self.run_id = run_id
        self.document = document
        self.expected = undisturbed(request(run_id, document))
        self.steps = sum(name.startswith(keys.COMMITS) for name in self.expected)
        self.may_go_on = False
        """Whether it was resumed since it was last seen at its end."""
        self.seen: set[str] = set()
        self._redis = redis
        self._runs = Runs(redis)
        self._store = store
        self._folder = f"{PREFIX}/{run_id}/"
        self._end: str | None = None
        self._last_id = "0-0"
        self._artifacts = json.loads(self.expected[keys.MANIFEST])["artifacts"]
        self._check = StreamCheck([(made["step"], made["sha256"]) for made in self._artifacts], self.steps)

    def look(self) -> RunState:
        """What is so now. Raises Broken."""
        if self.seen != self.expected.keys():  # else nothing can come but by being put over another
            self._look_at_objects()
        self._look_at_stream()
        state = self._runs.state(self.run_id)
        if state is None:
            raise Broken(f"{self.run_id}: Redis has forgotten it")
        self._look_at_end(state)
        return state

    def look_at_every_byte(self) -> None:
        """Raises Broken when any object is not the undisturbed run's."""
        self._look_at_objects()
        for name in self.seen:
            promised(self._store.get(self._folder + name) == self.expected[name], f"{self.run_id}: {name} differs")

    def _look_at_objects(self) -> None:
        """Each new object once, byte for byte; records run from 1 without a gap, and stand on their objects."""
        found = {key.removeprefix(self._folder) for key in self._store.list(self._folder)}
        promised(found <= self.expected.keys(), f"{self.run_id}: extra {found - self.expected.keys()}")
        promised(self.seen <= found, f"{self.run_id}: {self.seen - found} is gone")
        for name in found - self.seen:
            promised(self._store.get(self._folder + name) == self.expected[name], f"{self.run_id}: {name} differs")
        commits = sorted(name for name in found if name.startswith(keys.COMMITS))
        promised(
            commits == [keys.commit(step) for step in range(1, len(commits) + 1)], f"{self.run_id}: a gap in {commits}"
        )
        needed = {made["key"] for made in self._artifacts if made["step"] <= len(commits)}
        promised(needed <= found, f"{self.run_id}: {needed - found} of a committed step is missing")
        complete = keys.MANIFEST not in found or found == self.expected.keys()
        promised(complete, f"{self.run_id}: a manifest without {self.expected.keys() - found}")
        self.seen = found

    def _look_at_stream(self) -> None:
        entries = cast("Any", self._redis.xrange(keys.run_events(self.run_id), f"({self._last_id}", "+"))
        for event_id, fields in entries:
            self._last_id = event_id
            self.follow(json.loads(fields["event"]))

    def follow(self, event: Mapping[str, Any]) -> None:
        """The next event of the stream. Raises Broken."""
        for fault in self._check.follow(event):
            raise Broken(f"{self.run_id}: {fault.words}")

    def _look_at_end(self, state: RunState) -> None:
        """An end stays, unless the run was resumed; that of success is one with the manifest."""
        where = f"{self.run_id}: {state.state}"
        if self._end and not (self.may_go_on and self._end != "succeeded"):
            promised(state.state == self._end, f"{where} after its end, {self._end}")
        self._end, self.may_go_on = (state.state if state.is_final else None), self.may_go_on and not state.is_final
        if state.state == "succeeded":
            promised(keys.MANIFEST in self.seen, f"{where} without a manifest")
            promised(self._check.has_all_artifacts, f"{where}, and not every artifact is in the stream")
        if state.state == "failed":  # nothing here is wrong with the recipe, and nothing stays away
            promised(state.error and state.error.startswith("giving up after "), f"{where}: {state.error}")


def look_at_rest(redis: Redis) -> None:
    """When every run has its end, nothing stays in Redis that does not go by itself. Raises Broken."""
    left = kept(redis)
    promised(not left, f"left in Redis: {left}")
    for key in (keys.LEASES, keys.OPEN_RUNS):
        promised(redis.zcard(key) == 0, f"{key} still holds {redis.zrange(key, 0, -1)}")
