"""What the command line shows of runs and plans at rest."""

import time
from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from storage.figures import figures, image_name
from storage.journal import Artifact, Journal
from storage.redis.state import RunState
from worker.cli.plan_costs import BYTES_A_VALUE, Estimate, described
from worker.cli.views.console import HOUR_S, MINUTE_S, STATE_STYLES, annotations, clean, duration

DAY_S = 24 * HOUR_S
MIB = 2**20
SHOWN_CHARS = 48
NAME_COLUMNS = 11


def ago(seconds: float) -> str:
    """How long ago something was, roughly."""
    for unit_s, name in ((DAY_S, "d"), (HOUR_S, "h"), (MINUTE_S, "min")):
        if seconds >= unit_s:
            return f"{seconds // unit_s:.0f} {name} ago"
    return "just now"


def run_table(states: Sequence[RunState]) -> Table:
    """Runs, one a line."""
    table = _table("run", "recipe", "state", "done", "submitted")
    table.columns[0].no_wrap = True
    table.columns[-1].justify = "right"
    for state in states:
        submitted = ago(time.time() - state.submitted_at) if state.submitted_at else ""
        shown = Text(state.state, style=STATE_STYLES[state.state])
        table.add_row(Text(state.run_id), Text(clean(state.name)), shown, f"{state.fraction:.0%}", submitted)
    return table


def state_lines(state: RunState) -> Text:
    """One run at a glance, one fact a line."""
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
    """What a run has made, one artifact a line: its words, or a link to the picture."""
    about = _remarks(artifacts)
    told = [(made, _name(made), _shown(made, journal, about)) for made in artifacts]
    width = max((len(name) for _, name, _ in told), default=0) + 1
    lines = [
        Text.assemble((f"{made.step:>3}  ", "dim"), (f"{name:<{max(width, NAME_COLUMNS)}}", "cyan"), shown)
        for made, name, shown in told
    ]
    return Text("\n").join(lines)


def _name(made: Artifact) -> str:
    if made.kind == "text":
        return f"{made.path} {made.role}".strip()
    return image_name(made.index, path=made.path, variation=made.variation)


def _shown(made: Artifact, journal: Journal, about: Mapping[str, str]) -> str:
    if made.kind == "text":
        return clean(journal.get(made.key).decode())
    return journal.url(made.key) + about[made.key]


def _remarks(artifacts: Sequence[Artifact]) -> dict[str, str]:
    """What is to be said of each image, by key: whether it went on, where there was a choice."""
    return {
        image.key: annotations(
            attempt=image.attempt,
            score=image.score,
            chosen=image in figure.selected if figure.others or figure.dropped else None,
        )
        for figure in figures(artifacts)
        for image in (*figure.selected, *figure.others, *figure.dropped)
    }


def cost_table(estimate: Estimate) -> Table:
    """A plan, one step a line, and its totals."""
    table = _table("step", "what", "new tokens", "in context", "KV cache", "passes")
    for column in table.columns[2:]:
        column.justify = "right"
    about = "" if estimate.exact else "~"
    for cost in estimate.costs:
        table.add_row(
            str(cost.step.number),
            Text(_short(described(cost.step))),
            f"{about}{cost.new_tokens:,}",
            f"{about}{cost.context_tokens:,}",
            _memory(cost.kv_values),
            f"{cost.forward_passes:,}",
        )
    table.add_row(
        "",
        "in all, or the most at once",
        f"{about}{sum(cost.new_tokens for cost in estimate.costs):,}",
        f"{about}{max(cost.context_tokens for cost in estimate.costs):,}",
        _memory(max(cost.kv_values for cost in estimate.costs)),
        f"{sum(cost.forward_passes for cost in estimate.costs):,}",
        style="bold",
    )
    return table


def cost_note(estimate: Estimate) -> str:
    """How the numbers of `cost_table` are to be read."""
    counted = (
        "counted with the model's tokenizer" if estimate.exact else "estimated, as the model's tokenizer isn't here"
    )
    return (
        f"{estimate.recipe} on {estimate.model}. Given texts are {counted}; texts the model writes count with their "
        f"longest. KV cache at {BYTES_A_VALUE} bytes a value (bfloat16)."
    )


def _memory(kv_values: int) -> str:
    return f"{kv_values * BYTES_A_VALUE / MIB:,.1f} MiB"


def _short(text: str) -> str:
    words = " ".join(clean(text).split())
    return words if len(words) <= SHOWN_CHARS else f"{words[: SHOWN_CHARS - 1]}…"


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
