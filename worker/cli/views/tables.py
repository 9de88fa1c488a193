"""Tables of runs and plans, and the functions that print a table."""

import time
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from storage.figures import figures, image_name
from storage.journal import Artifact, Journal
from storage.redis.state import RunState
from storage.redis.workers import WorkerInfo
from worker.cli.plan_costs import BYTES_A_VALUE, PlanCosts, described
from worker.cli.views.console import (
    HOUR_S,
    MINUTE_S,
    STATE_STYLES,
    annotations,
    clean,
    cut,
    duration,
    one_line,
    table,
)

WORKER_STYLES = {"starting": "yellow", "idle": "green", "busy": "cyan", "draining": "yellow", "unhealthy": "red"}
DAY_S = 24 * HOUR_S
MIB = 2**20
SHOWN_CHARS = 48
NAME_COLUMNS = 11


def print_all(console: Console, parts: Iterable[RenderableType]) -> None:
    """Print parts one below the other; tables with `print_table`."""
    for part in parts:
        if isinstance(part, Table):
            print_table(console, part)
        else:
            console.print(part, soft_wrap=True)


def print_table(console: Console, table: Table) -> None:
    """Print a table: aligned in a terminal, elsewhere one line per row with tabs between the cells, for scripts."""
    if console.is_terminal:
        console.print(table)
        return
    for row in zip(*([column.header, *column.cells] for column in table.columns), strict=True):
        console.file.write("\t".join(" ".join(str(cell).split()) for cell in row) + "\n")


def ago(seconds: float) -> str:
    """An approximate age: 3 h ago."""
    for unit_s, name in ((DAY_S, "d"), (HOUR_S, "h"), (MINUTE_S, "min")):
        if seconds >= unit_s:
            return f"{seconds // unit_s:.0f} {name} ago"
    return "just now"


def run_table(states: Sequence[RunState]) -> Table:
    """Runs, one per line."""
    runs = table("run", "recipe", "state", "done", "submitted")
    runs.columns[0].no_wrap = True
    runs.columns[-1].justify = "right"
    for state in states:
        submitted = ago(time.time() - state.submitted_at) if state.submitted_at else ""
        shown = Text(state.state, style=STATE_STYLES[state.state])
        runs.add_row(Text(state.run_id), Text(clean(state.name)), shown, f"{state.fraction:.0%}", submitted)
    return runs


def worker_table(workers: Sequence[WorkerInfo], runs: Mapping[str, RunState]) -> Table:
    """Workers, one per line. `runs` has the states of their runs by id."""
    rows = table("worker", "model", "device", "state", "run", "step", "since", "reason")
    for worker in workers:
        run = runs.get(worker.run_id or "")
        rows.add_row(
            Text(clean(worker.name)),
            Text(clean(worker.model)),
            Text(clean(worker.device)),
            Text(worker.state, style=WORKER_STYLES[worker.state]),
            Text(clean(worker.run_id or "")),
            f"{run.step} of {run.steps}" if run and run.steps else "",
            ago(time.time() - worker.since) if worker.since else "",
            Text(clean(worker.reason)),
        )
    return rows


def state_lines(state: RunState) -> Text:
    """The state of a run, one field per line."""
    took = duration(state.finished_at - state.started_at) if state.finished_at and state.started_at else ""
    facts = (
        ("run", state.run_id),
        ("recipe", clean(state.name)),
        ("model", state.model),
        ("state", state.state),
        ("step", f"{state.step} of {state.steps} ({state.fraction:.0%})" if state.steps else ""),
        ("took", took),
        ("error", clean(state.error or "")),
        ("manifest", state.manifest),
    )
    lines = [
        Text.assemble((f"{name:<10}", "dim"), (fact, STATE_STYLES[state.state] if name == "state" else ""))
        for name, fact in facts
        if fact
    ]
    return Text("\n").join(lines)


def artifact_lines(artifacts: Sequence[Artifact], journal: Journal) -> Text:
    """The artifacts of a run, one per line: a text, or a link to an image."""
    notes = _annotations(artifacts)
    rows = [(artifact, _name(artifact), _shown(artifact, journal, notes)) for artifact in artifacts]
    width = max((len(name) for _, name, _ in rows), default=0) + 1
    lines = [
        Text.assemble((f"{artifact.step:>3}  ", "dim"), (f"{name:<{max(width, NAME_COLUMNS)}}", "cyan"), shown)
        for artifact, name, shown in rows
    ]
    return Text("\n").join(lines)


def _name(artifact: Artifact) -> str:
    if artifact.kind == "text":
        return f"{artifact.path} {artifact.role}".strip()
    return image_name(artifact.index, path=artifact.path, variation=artifact.variation)


def _shown(artifact: Artifact, journal: Journal, notes: Mapping[str, str]) -> str:
    if artifact.kind == "text":
        return clean(journal.get(artifact.key).decode())
    return journal.url(artifact.key) + notes[artifact.key]


def _annotations(artifacts: Sequence[Artifact]) -> dict[str, str]:
    """The annotations of each image by key: its attempt, its score, and whether it was selected from several."""
    return {
        image.key: annotations(
            attempt=image.attempt,
            score=image.score,
            selected=image in figure.selected if figure.others or figure.dropped else None,
        )
        for figure in figures(artifacts)
        for image in (*figure.selected, *figure.others, *figure.dropped)
    }


def cost_table(found: PlanCosts) -> Table:
    """A plan, one step per line, and its totals."""
    steps = table("step", "what", "new tokens", "in context", "KV cache", "passes")
    for column in steps.columns[2:]:
        column.justify = "right"
    about = "" if found.exact else "~"
    for cost in found.costs:
        steps.add_row(
            str(cost.step.number),
            Text(cut(one_line(described(cost.step)), SHOWN_CHARS)),
            f"{about}{cost.new_tokens:,}",
            f"{about}{cost.context_tokens:,}",
            _memory(cost.kv_values),
            f"{cost.forward_passes:,}",
        )
    steps.add_row(
        "",
        "total, or maximum",
        f"{about}{sum(cost.new_tokens for cost in found.costs):,}",
        f"{about}{max(cost.context_tokens for cost in found.costs):,}",
        _memory(max(cost.kv_values for cost in found.costs)),
        f"{sum(cost.forward_passes for cost in found.costs):,}",
        style="bold",
    )
    return steps


def cost_note(found: PlanCosts) -> str:
    """How to read the numbers of `cost_table`."""
    counted = (
        "counted with the model's tokenizer" if found.exact else "estimated, as its tokenizer is not on this machine"
    )
    return (
        f"{found.recipe} on {found.model}. Tokens of given texts are {counted}; generated texts count with their "
        f"maximum length. KV cache at {BYTES_A_VALUE} bytes per value (bfloat16)."
    )


def _memory(kv_values: int) -> str:
    return f"{kv_values * BYTES_A_VALUE / MIB:,.1f} MiB"
