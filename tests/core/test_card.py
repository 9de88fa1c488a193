"""The program for a new GPU runs on the CPU, prints JSON lines, and goes on after a stage that fails."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from core.bench import card
from core.bench.card import main
from tests.core.bagel.golden import GOLDEN

Lines = list[dict[str, Any]]


def run(capsys: pytest.CaptureFixture[str], program: str, *options: str) -> tuple[int, Lines]:
    status = main([program, "--random-weights", "tiny", "--device", "cpu", "--rounds", "1", *options])
    return status, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def stages(lines: Lines) -> Mapping[str, bool]:
    """Whether each stage reached its end."""
    return {line["stage"]: line["done"] for line in lines if "done" in line}


def test_truths_are_told_on_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = run(capsys, "truths", "--golden", str(GOLDEN / "random"))
    assert status == 0, [line for line in lines if "error" in line]
    assert stages(lines) == dict.fromkeys(card.PROGRAMS["truths"], True)
    facts = {key: value for line in lines for key, value in line.items()}
    assert facts["rebuilt_equal"]
    assert facts["processes_equal"]
    assert facts["same_without_spare_rows"]
    golden = [line for line in lines if line.get("dtype") == "float32" and "scenario" in line]
    assert golden
    assert all(line["deviation"] < 1e-3 for line in golden)


def test_variants_are_compared_in_turns(capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = run(capsys, "variants")
    assert status == 0, [line for line in lines if "error" in line]
    compared = [line for line in lines if "variant" in line]
    assert [line["stage"] for line in compared] == ["fused", "fused", "cudnn attention", "cudnn attention"]
    assert all(line["repeats"] and line["same_text"] and line["deviation"] == 0 for line in compared)


def test_a_stage_that_fails_does_not_stop_the_others(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, lines = run(capsys, "truths", "--only", "golden", "versions", "--golden", str(tmp_path / "missing"))
    assert status == 1
    assert stages(lines) == {"golden": False, "versions": True}
    assert "FileNotFoundError" in next(line["error"] for line in lines if "error" in line)
