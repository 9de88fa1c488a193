"""The view of a sweep: its progress while the runs are followed, and a table of its runs."""

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from recipes.sweep import value_text, values_text
from storage.redis.state import RunState
from storage.sweeps import Sweep
from worker.cli.views.console import BAR_COLUMNS, STATE_STYLES, clean, duration, table
from worker.cli.views.live_view import LiveView
from worker.client.sweeps import States

LEAST_ROWS = 3
AROUND_ROWS = 3
"""Rows of the terminal that are not used for runs."""


class SweepView(LiveView):
    """Shows the progress of a sweep: bars in a terminal, a line for each change elsewhere."""

    def __init__(self, console: Console, sweep: Sweep) -> None:
        self._sweep = sweep
        self._states: States = {}
        super().__init__(console, redraws_per_s=4)

    def show(self, states: States) -> None:
        """Show the current states."""
        before, self._states = self._states, states
        if self._console.is_terminal:
            return
        for number, run in enumerate(self._sweep.runs, 1):
            state, earlier = states[run.run_id], before.get(run.run_id)
            if _word(state) != (_word(earlier) if run.run_id in before else "queued"):
                line = f"[{number}/{len(self._sweep.runs)}] {values_text(run.values)}: {_outcome(state)}"
                self._console.print(Text(clean(line)))

    def render(self) -> RenderableType:
        """As many runs as fit in the terminal: running ones first, then failed, queued and other ones."""
        rows = max(self._console.height - AROUND_ROWS, LEAST_ROWS)
        order = {"running": 0, "failed": 1, "cancelled": 1, "queued": 2}
        runs = sorted(self._sweep.runs, key=lambda run: order.get(_word(self._states.get(run.run_id)), 3))
        grid = Table.grid(padding=(0, 2))
        for run in sorted(runs[:rows], key=self._sweep.runs.index):
            state = self._states.get(run.run_id)
            bar = ProgressBar(total=1.0, completed=state.fraction if state else 0.0, width=BAR_COLUMNS)
            grid.add_row(Text(clean(values_text(run.values))), bar, Text(_outcome(state), style=_style(state)))
        more = len(runs) - rows
        return Group(grid, Text(summary(self._states) + (f"; {more} more not shown" if more > 0 else "")))


def summary(states: States) -> str:
    """Counts by state: 3 of 12 succeeded, 1 running, 8 queued."""
    words = [_word(state) for state in states.values()]
    others = [f"{words.count(word)} {word}" for word in ("failed", "cancelled", "running", "queued", "unknown")]
    present = [other for other in others if not other.startswith("0 ")]
    return ", ".join([f"{words.count('succeeded')} of {len(words)} succeeded", *present])


def sweep_table(sweep: Sweep, states: States) -> Table:
    """The runs of a sweep, one per line."""
    runs = table("run", *sweep.fields, "state")
    runs.columns[0].no_wrap = True
    for run in sweep.runs:
        state = states[run.run_id]
        values = [Text(clean(value_text(value))) for value in run.values.values()]
        runs.add_row(Text(run.run_id), *values, Text(clean(_outcome(state)), style=_style(state)))
    return runs


def _word(state: RunState | None) -> str:
    return state.state if state else "unknown"


def _style(state: RunState | None) -> str:
    return STATE_STYLES[state.state] if state else "dim"


def _outcome(state: RunState | None) -> str:
    """A run's state, with its step, its duration or its error."""
    if state is None:
        return "unknown"
    if state.state == "running" and state.steps:
        return f"running, step {state.step} of {state.steps}"
    if state.state == "succeeded" and state.finished_at and state.started_at:
        return f"succeeded in {duration(state.finished_at - state.started_at)}"
    return f"{state.state}: {state.error}" if state.error else state.state
