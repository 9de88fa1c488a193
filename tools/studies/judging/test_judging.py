"""The statistics are right in cases known by hand, and an interrupted study resumes."""

from pathlib import Path

import pytest

from recipes.recipe import JudgeSettings
from tools.studies.judging.__main__ import main
from tools.studies.judging.figures import auc, calibration_error, gain, mcnemar
from tools.studies.judging.tasks import CAPTION, MATCH, MATCH_TARGET, tasks
from tools.studies.judging.trial import recorded


def test_the_area_is_the_share_of_pairs_in_order_and_ties_are_half() -> None:
    assert auc([3, 2], [1, 0]) == 1
    assert auc([1, 0], [3, 2]) == 0
    assert auc([1, 1], [1]) == 0.5
    assert auc([2, 0], [1, 1]) == 0.5
    assert auc([], [1]) != auc([], [1]), "there is no pair"


def test_mcnemar_counts_throws_of_a_coin() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 0) == 2 / 32
    assert mcnemar(1, 4) == 2 * (1 + 5) / 32
    assert mcnemar(3, 3) == 1


def test_a_gain_is_the_difference_of_the_shares_within_its_interval() -> None:
    ours, theirs = [True] * 60 + [False] * 40, [True] * 50 + [False] * 50
    found = gain(ours, theirs)
    assert found.difference == pytest.approx(0.1)
    # 10 +- 5.9 of 100: 1.96 times the root of 100 * 0.1 * 0.9
    assert 0.03 < found.low < 0.07
    assert 0.13 < found.high < 0.17
    assert found.p == 2 / 2**10
    assert gain(ours, ours).low == gain(ours, ours).high == 0


def test_scores_that_are_the_shares_have_no_calibration_error() -> None:
    assert calibration_error([0.75] * 4, [True, True, True, False]) == 0
    assert calibration_error([1.0, 1.0, 0.0], [False, True, False]) == pytest.approx(1 / 3)


def test_the_tasks_are_the_same_each_time_and_a_task_is_done_when_the_picture_is_right() -> None:
    assert list(tasks("drawing", 5, 1)) == list(tasks("drawing", 5, 1))[:5]
    assert [one.instruction for one in tasks("editing", 5, 1)] != [one.instruction for one in tasks("editing", 5, 2)]
    for task in tasks("editing", 20, 1):
        assert task.given is not None
        assert not task.is_right(task.given), "left as it was, it is not edited"


def test_wordings_are_what_a_recipe_holds() -> None:
    assert MATCH.judge("a cat") == JudgeSettings()
    assert MATCH_TARGET.judge("a cat").question == "Does the picture match: a cat?"
    assert CAPTION.judge("a cat").answer == "A cat."


def test_trials_that_are_recorded_are_not_done_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "trials.jsonl"
    quick = ["--tasks", "1", "--rendered", "20", "--timesteps", "2", "--results", str(results)]
    assert main(quick) == 0
    first = capsys.readouterr().out
    assert "drawing: 1 tasks" in first
    assert "editing: 1 tasks" in first
    made = results.read_text()
    results.write_text(made[:-100])  # as a kill leaves it
    assert list(recorded(results)) == ["drawing 0"]
    assert main(quick) == 0
    assert capsys.readouterr().out == first
    assert results.read_text() == made
