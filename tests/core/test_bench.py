"""The benchmark measures sequences that start from nothing."""

from pathlib import Path

import pytest

from core import bench

pytestmark = pytest.mark.model

TINY = Path(__file__).parents[2] / "models" / "tiny-bagel"


def printed(capsys: pytest.CaptureFixture[str], *options: str) -> list[list[list[str]]]:
    """The rows of the table of lengths and of that of variations."""
    quick = ["--rounds", "1", "--num_timesteps", "4"]
    assert bench.main(["--model_path", str(TINY), "--device", "cpu", *quick, *options]) == 0
    tables = capsys.readouterr().out.split("\n\n")
    return [[line.split() for line in table.splitlines()[1:]] for table in tables]


def test_it_prints_a_row_for_each_length(capsys: pytest.CaptureFixture[str]) -> None:
    rows, _ = printed(capsys, "--images", "1", "2", "1", "--variations", "1")
    assert [row[0] for row in rows] == ["1", "2", "1"]
    tokens = [int(row[3].replace(",", "")) for row in rows]
    assert tokens[0] == tokens[2] > 80  # a context read before is not counted on
    assert tokens[1] > tokens[0] + 2 * 66  # the first image is read, the last one is not


def test_a_batch_reads_and_holds_its_context_once(capsys: pytest.CaptureFixture[str]) -> None:
    _, rows = printed(capsys, "--images", "1", "--variations", "1", "3")
    (one, *_), (three, *_) = rows
    assert (one, three) == ("1", "3")
    for row, share in zip(rows, ("1.00", "0.33"), strict=True):
        assert row[6] == share, "tokens read"
        assert row[9] == share, "memory of keys and values"
    tokens = [int(row[4].replace(",", "")) for row in rows]
    assert tokens[0] == tokens[1] > 80


def test_a_folder_that_is_no_model_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert bench.main(["--model_path", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}")


def test_trees_and_a_long_sequence_are_measured_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, trees, long = printed(
        capsys, "--images", "1", "--variations", "1", "--trees", "2x2", "--long", "7", "--max_context_items", "4"
    )
    ((name, images, *rest),) = trees
    assert (name, images) == ("2x2", "6")
    assert 0.25 < float(rest[7]) < 0.5, "tokens read by a tree, of those that its 4 paths read each for itself"
    assert rest[8] == rest[9], "the memory of a tree's keys and values is that of one path"
    assert [row[0] for row in long[1:]] == ["5", "7"]
