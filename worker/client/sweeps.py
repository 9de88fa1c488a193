"""Sweeps: one run of a recipe per combination of values, checked together and followed together."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from recipes.faults import Fault, RecipeError
from recipes.load import given
from recipes.recipe import ContextItem
from recipes.sweep import Values, combinations, values_text
from storage import keys
from storage.errors import CommitConflictError, RunNotFoundError
from storage.redis.runs import Runs
from storage.redis.state import RunState
from storage.sweeps import Sweep, SweepRun
from worker.client.connections import Connections
from worker.client.lookup import state_in_bucket
from worker.client.submit import CheckedRecipe, RecipeChecker, submit_checked
from worker.connections import ServiceUnavailableError, connect_redis, explain_s3_errors
from worker.jobs.inputs import InputError

if TYPE_CHECKING:
    from worker.jobs.request import Priority

POLL_S = 0.5
OUTAGE_S = 60.0
"""How long following a sweep waits for Redis during an outage."""

States: TypeAlias = dict[str, RunState | None]
"""The states of the runs of a sweep, by run id; None for a run that neither Redis nor the bucket has."""


def submit_sweep(
    connections: Connections,
    recipe: Path | str | Mapping[str, Any],
    sweeps: Mapping[str, Sequence[Any]],
    *,
    overrides: Mapping[str, Any] | None = None,
    variables: Mapping[str, Any] | None = None,
    priority: Priority = "normal",
    sweep_id: str | None = None,
) -> Sweep:
    """Queue a sweep. `Client.sweep` has the details."""
    runs = combinations({field: _listed(field, values) for field, values in sweeps.items()})
    checker = RecipeChecker(connections, recipe)
    checked = _check(checker, runs, overrides or {}, variables)
    name = checked[0].recipe.name
    sweep_id = keys.check_sweep_id(sweep_id or f"{name}-{secrets.token_hex(4)}")
    sweep = Sweep(
        sweep_id=sweep_id,
        name=name,
        document=given(checker.source, overrides, variables),
        fields={field: list(values) for field, values in sweeps.items()},
        runs=tuple(
            SweepRun(run_id=keys.run_of_sweep(sweep_id, number), values=values) for number, values in enumerate(runs, 1)
        ),
    )
    _record(connections, sweep)
    for number, (run, of_run) in enumerate(zip(sweep.runs, checked, strict=True)):
        try:
            submit_checked(connections, of_run, priority=priority, run_id=run.run_id, group=sweep_id)
        except ServiceUnavailableError as error:
            queued = f"{number} of {len(runs)} runs are queued"
            raise ServiceUnavailableError(
                f"{error}; {queued}, submit the same sweep as {sweep_id} to queue the others"
            ) from error
    return sweep


def _listed(field: str, values: Sequence[Any]) -> list[Any]:
    """The values as JSON data. Raises RecipeError."""
    try:
        listed: list[Any] = json.loads(json.dumps(list(values), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise RecipeError(
            [Fault(path=(), message=f"{field}: its values are not JSON data: {error}", source="sweep")]
        ) from None
    return listed


def _check(
    checker: RecipeChecker,
    runs: Sequence[Values],
    overrides: Mapping[str, Any],
    variables: Mapping[str, Any] | None,
) -> list[CheckedRecipe]:
    """The checked recipe of every run, its images fetched. Raises RecipeError with the faults of all runs."""
    checked: list[CheckedRecipe] = []
    found: dict[Fault, list[Values]] = {}
    unusable: dict[tuple[ContextItem, ...], InputError] = {}
    for values in runs:
        try:
            of_run = checker.check({**overrides, **values}, variables)
            if of_run.recipe.context in unusable:
                raise unusable[of_run.recipe.context]
            checked.append(of_run.with_images())
        except RecipeError as error:
            faults: Sequence[Fault] = error.faults
        except InputError as error:
            unusable[of_run.recipe.context] = error
            faults = [Fault(path=(), message=str(error))]
        else:
            continue
        for fault in faults:
            found.setdefault(fault, []).append(values)
    if found:
        raise RecipeError([_with_values(fault, at, of=len(runs)) for fault, at in found.items()])
    return checked


def _with_values(fault: Fault, at: Sequence[Values], *, of: int) -> Fault:
    """The fault, with a note of the values that its runs share, unless every run has it."""
    shared = {field: value for field, value in at[0].items() if all(other[field] == value for other in at)}
    if len(at) == of or not shared:
        return fault
    return fault.with_note(f"with {values_text(shared)}")


def _record(connections: Connections, sweep: Sweep) -> None:
    """Store the sweep before its runs are queued."""
    with explain_s3_errors("the sweep can't be stored"):
        try:
            connections.sweeps.create(sweep)
        except CommitConflictError as error:
            raise InputError(f"{error}; use another id") from None


def states_of(connections: Connections, sweep: Sweep) -> States:
    """The states of the runs of a sweep."""
    return _states(connections, connections.runs, sweep)


def follow_sweep(connections: Connections, sweep: Sweep) -> Iterator[States]:
    """The states of the runs whenever one changes, until all have ended. Waits up to OUTAGE_S for Redis."""
    before: States = {}
    with connect_redis(connections.config, outage_timeout_s=OUTAGE_S) as redis:
        while not before or any(state and not state.is_final for state in before.values()):
            if before:
                time.sleep(POLL_S)
            now = _states(connections, Runs(redis), sweep, known=before)
            if now != before:
                yield now
            before = now


def _states(connections: Connections, runs: Runs, sweep: Sweep, known: States | None = None) -> States:
    states: States = {state.run_id: state for state in runs.states(sweep.run_ids)}
    for run_id in sweep.run_ids:
        if run_id not in states:  # it expired in Redis; the bucket keeps it
            states[run_id] = known[run_id] if known else _from_bucket(connections, run_id)
    return {run_id: states[run_id] for run_id in sweep.run_ids}


def _from_bucket(connections: Connections, run_id: str) -> RunState | None:
    try:
        return state_in_bucket(connections.journal(run_id))
    except RunNotFoundError:
        return None
