"""The benchmark measures sequences that start from nothing."""

from pathlib import Path

import pytest

from core import bench

TINY = Path(__file__).parents[2] / "models" / "tiny-bagel"


def test_it_prints_a_row_for_each_length(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--model_path", str(TINY), "--device", "cpu", "--images", "1", "2", "1"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [row[0] for row in rows] == ["1", "2", "1"]
    tokens = [int(row[3].replace(",", "")) for row in rows]
    assert tokens[0] == tokens[2] > 80  # a context read before is not counted on
    assert tokens[1] > tokens[0] + 2 * 66  # the first image is read, the last one is not


def test_a_folder_that_is_no_model_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert bench.main(["--model_path", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}")
