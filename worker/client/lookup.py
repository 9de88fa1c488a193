"""Look up one run: its id and state in Redis, its artifacts in the bucket, which keeps every run."""

from dataclasses import asdict, dataclass
from typing import Any

from storage import keys
from storage.errors import RunNotFoundError
from storage.journal import Artifact, Journal
from storage.redis.state import RunState
from worker.client.connections import Connections
from worker.connections import explain_s3_errors
from worker.jobs.result import artifact_data

MAX_CANDIDATES = 10
"""Maximum number of ids that an error lists."""


@dataclass(frozen=True, kw_only=True)
class RunDetails:
    """A run and the artifacts that it has committed so far."""

    state: RunState
    artifacts: tuple[Artifact, ...]
    journal: Journal

    def to_data(self) -> dict[str, Any]:
        """As JSON data, each artifact with its key and URL."""
        return {**asdict(self.state), "artifacts": artifact_data(self.artifacts, self.journal)}


def find_run(connections: Connections, text: str) -> str:
    """The id of the run that `text` names. `Client.find_run` has the details."""
    runs = connections.runs
    run_id = runs.resolve_alias(keys.check_run_id(text))
    if runs.state(run_id) is not None:
        return run_id
    journal = connections.journal(run_id)
    with explain_s3_errors(f"run {run_id} can't be looked up"):
        if any(True for _ in journal.store.list(journal.folder)):
            return run_id  # it expired in Redis; the bucket keeps it
    candidates = runs.find(text)
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise not_found(text)
    listed = ", ".join(candidates[:MAX_CANDIDATES]) + (", …" if len(candidates) > MAX_CANDIDATES else "")
    raise RunNotFoundError(f"run {text}: {len(candidates)} run ids begin with this: {listed}")


def look_up(connections: Connections, run_id: str) -> RunDetails:
    """The run `run_id`. Raises RunNotFoundError when neither Redis nor the bucket has it."""
    journal = connections.journal(connections.runs.resolve_alias(run_id))
    state = connections.runs.state(journal.run_id) or state_in_bucket(journal)
    commits = journal.commits() if state.started_at or state.is_final else ()
    artifacts = tuple(artifact for commit in commits for artifact in commit.artifacts)
    return RunDetails(state=state, artifacts=artifacts, journal=journal)


def state_in_bucket(journal: Journal) -> RunState:
    """The state of a finished run that expired in Redis. Raises RunNotFoundError when it has no manifest."""
    manifest = journal.manifest()
    if manifest is None:
        raise not_found(journal.run_id)
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


def not_found(run_id: str) -> RunNotFoundError:
    """The error for a run that neither Redis nor the bucket has."""
    return RunNotFoundError(f"run {run_id}: there is no such run, or it ended long ago")
