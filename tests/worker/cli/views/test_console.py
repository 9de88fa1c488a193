"""What a run looks like while it is under way: plain lines in a pipe, bars and streaming text in a terminal."""

import io
from typing import Any

import pytest
from rich.console import Console

from storage.events import (
    ArtifactStored,
    Cancelled,
    Denoised,
    Failed,
    Gap,
    Judged,
    Loading,
    Queued,
    RunEvent,
    Started,
    StepStarted,
    Succeeded,
    TextDelta,
)
from worker.cli.views.console import RunView, clean, duration


def stored(step: int, role: str, key: str, **fields: Any) -> ArtifactStored:
    return ArtifactStored(step=step, role=role, key=f"r/{key}", url=f"http://s3/{key}", size=9, sha256="aa", **fields)


STORY: tuple[RunEvent, ...] = (
    Queued(name="forest", model="tiny"),
    Loading(done=1_000_000, total=2_000_000),
    Loading(done=2_000_000, total=2_000_000),
    Started(at=10, name="forest", model="tiny", steps=5),
    StepStarted(at=10, step=1, kind="read", role="initial", text="A [red] forest"),
    StepStarted(at=10, step=2, kind="write", role="thinking"),
    TextDelta(at=11, fraction=0.1, eta_s=9.0, step=2, delta="a green "),
    TextDelta(at=11, fraction=0.1, eta_s=9.0, step=2, delta="tree"),
    StepStarted(at=12, fraction=0.2, eta_s=8.0, step=3, kind="draw", role="image", index=0),
    stored(2, "thinking", "2.txt", at=12, fraction=0.2),
    Denoised(at=14, fraction=0.5, eta_s=4.0, step=3, done=3, total=7),
    StepStarted(at=15, fraction=0.8, eta_s=1.2, step=4, kind="forget"),
    StepStarted(at=15, fraction=0.8, eta_s=1.2, step=5, kind="read", role="refinement", text="Now bigger"),
    stored(3, "image", "3.png", at=16, fraction=0.9, index=0),
    Succeeded(at=20, fraction=1.0, manifest="s3://b/manifest.json"),
)


def shown(*events: RunEvent, hint: str = "") -> list[str]:
    """The lines of a pipe."""
    output = io.StringIO()
    with RunView(Console(file=output, width=200, highlight=False), hint=hint) as view:
        for one in events:
            view.show(one)
    return output.getvalue().splitlines()


def painted(*events: RunEvent) -> str:
    """What a terminal has below the lines that stay, after the last event; those lines before it."""
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None, record=True)
    view = RunView(console)
    for one in events:
        view.show(one)
    console.print(view.render())
    return console.export_text()


def test_a_pipe_gets_a_line_for_each_step() -> None:
    assert shown(*STORY) == [
        "waiting for a worker that serves tiny",
        "model loaded: 2 MB of weights",
        "[1/5] initial: A [red] forest",
        "[2/5] thinking: a green tree",
        "[4/5] forget: (the oldest items leave the context)",
        "[5/5] refinement: Now bigger",
        "[3/5] image 1: r/3.png",
        "succeeded in 10.0 s",
    ]


def drawn(step: int, variation: int, **fields: Any) -> RunEvent:
    """A variation is stored."""
    about = {"index": 0, "path": "", "variation": variation, "attempt": 0, "selected": True, **fields}
    return stored(step, "image", f"{step}.v{variation}", **about)


def test_variations_and_tries_are_told_with_their_scores() -> None:
    first = StepStarted(step=2, kind="draw", role="image", index=0, variations=2, attempt=0)
    judged = Judged(step=2, question="A cat?", scores=(0.25, 0.125))
    again = StepStarted(step=3, kind="draw", role="image", index=0, variations=2, attempt=1)
    low = (drawn(2, 0, score=0.25), drawn(2, 1, score=0.125, selected=False))
    lines = shown(STORY[3], first, judged, *low, again, drawn(3, 1, score=0.5, attempt=1))
    assert lines == [
        "[2/5] image 1: r/2.v0 (score 0.250, selected)",
        "[2/5] image 1 v1: r/2.v1 (score 0.125, dropped)",
        "[3/5] image 1 v1: r/3.v1 (attempt 2, score 0.500, selected)",
    ]
    assert "image 1, attempt 2" in painted(STORY[3], first, again)
    assert "scored 0.250, 0.125" in painted(STORY[3], first, judged)


def test_a_tree_is_told_by_its_branches() -> None:
    draw = StepStarted(step=2, kind="draw", role="image", index=0, variations=2, attempt=0)
    write = StepStarted(step=3, kind="read", role="refinement", text="Bigger", path="1")
    lines = shown(STORY[3], draw, drawn(2, 0, path="0"), drawn(2, 1, path="1"), write, drawn(4, 0, path="1.0", index=1))
    assert lines == [
        "[2/5] 0 image 1: r/2.v0",
        "[2/5] 1 image 1: r/2.v1",
        "[3/5] 1 refinement: Bigger",
        "[4/5] 1.0 image 2: r/4.v0",
    ]


def test_a_further_try_of_a_branch_says_whether_it_took_the_place_of_the_first() -> None:
    again = StepStarted(step=3, kind="draw", role="image", index=0, variations=2, attempt=1)
    tries = (drawn(3, 0, path="0", score=0.5, attempt=1), drawn(3, 1, path="1", score=0.2, attempt=1, selected=False))
    assert shown(STORY[3], again, *tries) == [
        "[3/5] 0 image 1: r/3.v0 (attempt 2, score 0.500, selected)",
        "[3/5] 1 image 1: r/3.v1 (attempt 2, score 0.200, dropped)",
    ]


def test_a_text_under_way_is_shown_below_the_lines_that_stay() -> None:
    screen = painted(*STORY[:7])
    assert "    2 thinking   a green▌" in screen
    assert "step 2 of 5, 9.0 s left" in screen  # a tenth took one second


def test_a_picture_under_way_has_a_bar() -> None:
    screen = painted(*STORY[:11])
    assert "    2 thinking   a green tree" in screen
    assert "3 of 7" in screen
    assert "step 3 of 5, 4.0 s left" in screen


def test_long_words_are_wrapped_below_themselves() -> None:
    screen = painted(STORY[3], StepStarted(step=1, kind="read", role="initial", text="word " * 40))
    rows = [line for line in screen.splitlines() if "word" in line]
    assert len(rows) > 1
    assert {row.index("word") for row in rows} == {rows[0].index("word")}


def test_loading_shows_how_much() -> None:
    assert "1 of 2 MB" in painted(*STORY[:2])


def test_a_waiting_run_says_what_helps() -> None:
    assert shown(STORY[0], hint=". Start one") == ["waiting for a worker that serves tiny. Start one"]


def test_a_resumed_run_says_where_it_goes_on() -> None:
    again = Started(at=30, fraction=0.4, name="forest", model="tiny", steps=5, done=2)
    lines = shown(*STORY[:7], again, StepStarted(step=3, kind="draw", index=0, fraction=0.4))
    assert lines[-1] == "resuming after step 2 of 5"


def test_what_the_stream_dropped_is_made_up_from_the_state() -> None:
    gap = Gap(at=5.0, state="running", name="forest", step=4, steps=5, fraction=0.7)
    assert shown(gap, *STORY[-2:]) == ["resuming after step 3 of 5", "[3/5] image 1: r/3.png", "succeeded in 15.0 s"]


@pytest.mark.parametrize(
    ("last", "line"),
    [
        (Failed(at=13, error="the model \x1b[31mis missing"), "failed: the model  [31mis missing"),
        (Cancelled(at=13), "cancelled"),
    ],
)
def test_another_end_is_told_with_its_reason(last: RunEvent, line: str) -> None:
    assert shown(*STORY[:7], last)[-1] == line


def test_nothing_that_a_model_writes_commands_the_terminal() -> None:
    assert clean(" a\x1b]0;title\x07\nb\u202e ") == "a ]0;title \nb"


def test_durations_are_short() -> None:
    assert [duration(seconds) for seconds in (0.04, 12.34, 65, 3725)] == ["0.0 s", "12.3 s", "1:05", "1:02:05"]
