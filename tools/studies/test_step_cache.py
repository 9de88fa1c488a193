"""The ways cost what they say, and an interrupted study resumes."""

import json
from pathlib import Path

import pytest

from core.model_folder import read_spec
from tools.studies.step_cache import TINY, Trial, main, summary, ways

SPEC = read_spec(TINY)


@pytest.mark.parametrize("kind", ["drawing", "editing"])
def test_a_way_with_fewer_steps_costs_at_least_as_much_and_one_step_less_would_not(kind: str) -> None:
    plain, cached = ways(SPEC, kind)  # type: ignore[arg-type]  # parametrised
    assert {way.name for way in plain} >= {"50", "24", "12", *(way.with_fewer_steps().name for way in cached)}
    for way in cached:
        other = way.with_fewer_steps()
        assert 0 <= other.evaluations - way.evaluations <= 3, "an evaluation for each branch at most"


def test_the_figures_are_those_of_pairs() -> None:
    plain, cached = ways(SPEC, "drawing")
    ours, theirs = cached[0], cached[0].with_fewer_steps()
    names = [way.name for way in (*plain, *cached)]
    one = Trial(
        kind="drawing",
        number=0,
        right={**dict.fromkeys(names, True), theirs.name: False},
        cpu_s=dict.fromkeys(names, 0.5),
        deviation={**dict.fromkeys(names, 0.0), theirs.name: 2.0},
    )
    (row,) = (row for row in summary([one] * 5, SPEC)["rows"] if row["way"] == ours.name)
    assert (row["right"], row["gain"]["difference"], row["gain"]["p"]) == (1, 1, 2 / 2**5)
    assert (row["closer"], row["p_closer"], row["evaluations"]) == (5, 2 / 2**5, ours.evaluations)


def test_trials_that_are_recorded_are_not_done_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, figures = tmp_path / "trials.jsonl", tmp_path / "figures.json"
    quick = ["--tasks", "1", "--results", str(results), "--json", str(figures)]
    assert main(quick) == 0
    first, made = capsys.readouterr().out, results.read_text()
    assert "| 50, interval 2, order 1 | 47 |" in first
    assert main(quick) == 0
    assert (capsys.readouterr().out, results.read_text()) == (first, made)
    found = json.loads(figures.read_text())
    assert set(found) == {"drawing steps", "drawing forecasts"}
    assert found["drawing steps"]["rows"][0][0] == "50"
