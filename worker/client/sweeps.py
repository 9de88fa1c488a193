"""Many runs of one recipe with fields changed: checked together, queued one by one, followed as one."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from recipes.faults import Fault, RecipeError
from recipes.load import find, given
from recipes.sweep import Values, combinations, values_text
from storage import keys
from storage.errors import CommitConflictError, RunNotFoundError, StoreRefusedError, StoreUnavailableError
from storage.redis.runs import Runs
from storage.redis.state import RunState
from storage.sweeps import Sweep, SweepRun
from worker.client.lookup import remembered
from worker.connections import ServiceUnavailableError, connect_redis
from worker.jobs.inputs import InputError

if TYPE_CHECKING:
    from worker.client.client import Client
    from worker.jobs.request import Priority

POLL_S = 0.5
OUTAGE_S = 60.0
"""How long Redis may be away while a sweep is followed."""

States: TypeAlias = dict[str, RunState | None]
"""How the runs of a sweep are going, by run id; None when neither Redis nor the bucket knows."""


def submit_sweep(
    client: Client,
    recipe: Path | str | Mapping[str, Any],
    sweeps: Mapping[str, Sequence[Any]],
    *,
    overrides: Mapping[str, Any] | None = None,
    variables: Mapping[str, Any] | None = None,
    priority: Priority = "normal",
    sweep_id: str | None = None,
) -> Sweep:
    """Client.sweep says what it takes and raises."""
    source = find(recipe, client.config.recipes) if isinstance(recipe, str) else recipe
    runs = combinations({field: _listed(field, values) for field, values in sweeps.items()})
    changed = [{**(overrides or {}), **values} for values in runs]
    name = _check(client, source, runs, changed, variables)
    sweep_id = keys.check_sweep_id(sweep_id or f"{name}-{secrets.token_hex(4)}")
    sweep = Sweep(
        sweep_id=sweep_id,
        name=name,
        document=given(source, overrides, variables),
        fields={field: list(values) for field, values in sweeps.items()},
        runs=tuple(
            SweepRun(run_id=keys.run_of_sweep(sweep_id, number), values=values) for number, values in enumerate(runs, 1)
        ),
    )
    _write_down(client, sweep)
    for number, (run, fields) in enumerate(zip(sweep.runs, changed, strict=True)):
        try:
            client.submit(
                source, overrides=fields, variables=variables, priority=priority, run_id=run.run_id, group=sweep_id
            )
        except ServiceUnavailableError as error:
            queued = f"{number} of {len(runs)} runs are queued"
            raise ServiceUnavailableError(
                f"{error}; {queued}, the same again as {sweep_id} queues the others"
            ) from error
    return sweep


def _listed(field: str, values: Sequence[Any]) -> list[Any]:
    """Values as JSON has them. Raises RecipeError."""
    try:
        listed: list[Any] = json.loads(json.dumps(list(values), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise RecipeError(
            [Fault(path=(), message=f"{field}: its values are no data: {error}", source="sweep")]
        ) from None
    return listed


def _check(
    client: Client,
    source: Path | Mapping[str, Any],
    runs: Sequence[Values],
    changed: Sequence[Mapping[str, Any]],
    variables: Mapping[str, Any] | None,
) -> str:
    """See that every run can be submitted, its images too. Raises RecipeError with all the faults.

    Returns:
        The recipe's name; the first run's, where that is swept.
    """
    found: dict[Fault, list[Values]] = {}
    name, seen = "", set()
    for values, fields in zip(runs, changed, strict=True):
        try:
            recipe = client.check(source, fields, variables)
            name = name or recipe.name
            if recipe.context not in seen:
                seen.add(recipe.context)
                client.images_of(recipe, source)
        except RecipeError as error:
            faults: Sequence[Fault] = error.faults
        except InputError as error:
            faults = [Fault(path=(), message=str(error))]
        else:
            continue
        for fault in faults:
            found.setdefault(fault, []).append(values)
    if found:
        raise RecipeError([_named(fault, at, of=len(runs)) for fault, at in found.items()])
    return name


def _named(fault: Fault, at: Sequence[Values], *, of: int) -> Fault:
    """A fault with what the runs that have it have in common, unless all of them do."""
    shared = {field: value for field, value in at[0].items() if all(other[field] == value for other in at)}
    if len(at) == of or not shared:
        return fault
    return fault.with_note(f"with {values_text(shared)}")


def _write_down(client: Client, sweep: Sweep) -> None:
    """What the sweep is, before any of its runs."""
    try:
        client.sweeps.create(sweep)
    except CommitConflictError as error:
        raise InputError(f"{error}; use another id") from None
    except (StoreUnavailableError, StoreRefusedError) as error:
        raise ServiceUnavailableError(f"the sweep can't be written down: {error}; S3 is set by AUTOSEQ_S3_…") from error


def states_of(client: Client, sweep: Sweep) -> States:
    """How the runs of a sweep are going."""
    return _states(client, client.runs, sweep)


def follow_sweep(client: Client, sweep: Sweep) -> Iterator[States]:
    """How the runs are going, whenever that changed, until all have ended. Redis may be away for OUTAGE_S."""
    before: States = {}
    with connect_redis(client.config, outage_timeout_s=OUTAGE_S) as redis:
        while not before or any(state and not state.is_final for state in before.values()):
            if before:
                time.sleep(POLL_S)
            now = _states(client, Runs(redis), sweep, known=before)
            if now != before:
                yield now
            before = now


def _states(client: Client, runs: Runs, sweep: Sweep, known: States | None = None) -> States:
    states: States = {state.run_id: state for state in runs.states(sweep.run_ids)}
    for run_id in sweep.run_ids:
        if run_id not in states:  # Redis forgets a run after a while, the bucket does not
            states[run_id] = known[run_id] if known else _from_bucket(client, run_id)
    return {run_id: states[run_id] for run_id in sweep.run_ids}


def _from_bucket(client: Client, run_id: str) -> RunState | None:
    try:
        return remembered(client.journal(run_id))
    except RunNotFoundError:
        return None
