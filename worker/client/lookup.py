"""What is known of one run: its state from Redis, what it has made from the bucket, which forgets nothing."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from storage import keys
from storage.errors import RunNotFoundError
from storage.journal import Artifact, Journal
from storage.redis.state import RunState

if TYPE_CHECKING:
    from worker.client.client import Client


@dataclass(frozen=True, kw_only=True)
class Found:
    """A run, and what it has made so far."""

    state: RunState
    artifacts: tuple[Artifact, ...]
    journal: Journal

    def to_data(self) -> dict[str, Any]:
        """As JSON data, each artifact with where it is."""
        made = [
            {**one.to_data(), "key": self.journal.folder + one.key, "url": self.journal.url(one.key)}
            for one in self.artifacts
        ]
        return {**asdict(self.state), "artifacts": made}


def look_up(client: "Client", run_id: str) -> Found:
    """The run `run_id`. Raises RunNotFoundError when neither Redis nor the bucket has it."""
    journal = client.journal(run_id)
    try:
        state = client.state(run_id)
    except RunNotFoundError:
        state = remembered(journal)
    commits = journal.commits() if state.started_at or state.is_final else ()
    artifacts = tuple(artifact for commit in commits for artifact in commit.artifacts)
    return Found(state=state, artifacts=artifacts, journal=journal)


def remembered(journal: Journal) -> RunState:
    """The state of a run that Redis forgot. Raises RunNotFoundError when its manifest is not in the bucket either."""
    manifest = journal.manifest()
    if manifest is None:
        raise RunNotFoundError(f"run {journal.run_id}: there is no such run, or it ended long ago")
    return RunState(
        run_id=journal.run_id,
        state=manifest.state,
        name=manifest.name,
        model=manifest.model,
        step=manifest.steps,
        steps=manifest.steps,
        fraction=1.0,
        manifest=journal.address(keys.MANIFEST),
    )
