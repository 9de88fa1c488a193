"""What a sweep looks like while it goes: bars in a terminal, as many as there is room for."""

import io

import pytest
from rich.console import Console

from storage.redis.state import RunState
from storage.sweeps import Sweep, SweepRun
from worker.cli.views.sweep_view import SweepView, summary
from worker.client.sweeps import States


def sweep_of(count: int) -> Sweep:
    runs = tuple(SweepRun(run_id=f"s-{number:03d}", values={"seed": number}) for number in range(count))
    return Sweep(sweep_id="s", name="sky", document={}, fields={"seed": list(range(count))}, runs=runs)


def states_of(*words: str | None) -> States:
    return {
        f"s-{number:03d}": RunState(run_id=f"s-{number:03d}", state=word, step=2, steps=5) if word else None  # type: ignore[arg-type]
        for number, word in enumerate(words)
    }


def painted(states: States, height: int = 20) -> list[str]:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=height, color_system=None, record=True)
    with SweepView(console, sweep_of(len(states))) as view:
        view.show(states)
        shown = view.render()
    console.export_text()
    console.print(shown)
    return console.export_text().splitlines()


def test_each_run_has_its_line_and_bar() -> None:
    lines = painted(states_of("succeeded", "running", "queued", "failed", None))
    assert [line.split()[0] for line in lines[:5]] == [f"seed={number}" for number in range(5)]
    assert "running, step 2 of 5" in lines[1]
    assert lines[5] == "1 of 5 succeeded, 1 failed, 1 running, 1 queued, 1 unknown"


def test_what_is_under_way_is_shown_when_there_is_no_room_for_all() -> None:
    lines = painted(states_of(*["succeeded"] * 20, "running", *["queued"] * 20), height=8)
    assert "seed=20" in lines[0]
    assert lines[-1] == "20 of 41 succeeded, 1 running, 20 queued; 36 more not shown"


@pytest.mark.parametrize(
    ("word", "line"), [("running", "[1/1] seed=0: running, step 2 of 5"), (None, "[1/1] seed=0: unknown")]
)
def test_a_pipe_gets_a_line_for_each_change(word: str | None, line: str) -> None:
    output = io.StringIO()
    with SweepView(Console(file=output, width=100), sweep_of(1)) as view:
        for one in ("queued", word, word):
            view.show(states_of(one))
    assert output.getvalue().splitlines() == [line]


def test_a_summary_tells_only_what_there_is() -> None:
    assert summary(states_of("succeeded", "succeeded")) == "2 of 2 succeeded"
