"""The program for a new GPU runs on the CPU, prints JSON lines, and goes on after a stage that fails."""

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from core.bagel.flow import FlowStep
from core.bench import card, events, variants
from core.bench.card import main
from core.bench.random_weights import random_model
from core.bench.report import Report
from core.protocol import Context
from recipes.recipe import ImageSettings
from tests.core.bagel.golden import GOLDEN
from tests.core.gpu_stand_in import NO_GRAPH, PEAK_BYTES, gpu_stand_in

Lines = list[dict[str, Any]]


def run(capsys: pytest.CaptureFixture[str], program: str, *options: str) -> tuple[int, Lines]:
    status = main([program, "--random-weights", "tiny", "--device", "cpu", "--rounds", "1", *options])
    return status, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def stages(lines: Lines) -> Mapping[str, bool]:
    """Whether each stage reached its end."""
    return {line["stage"]: line["done"] for line in lines if "done" in line}


def test_truths_are_told_on_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    phases = ("--phases", "text token", "image guidance", "judge")
    status, lines = run(capsys, "truths", "--golden", str(GOLDEN / "random"), *phases)
    assert status == 0, [line for line in lines if "error" in line]
    assert stages(lines) == dict.fromkeys(card.PROGRAMS["truths"], True)
    facts = {key: value for line in lines for key, value in line.items()}
    assert facts["rebuilt_equal"]
    assert facts["processes_equal"]
    assert facts["same_without_spare_rows"]
    timed = [line["phase"] for line in lines if line["stage"] == "phases" and "phase" in line]
    assert timed == ["text token, 100 before it", "with text and image guidance", "judge an image"]
    golden = [line for line in lines if line.get("dtype") == "float32" and "scenario" in line]
    assert golden
    assert all(line["deviation"] < 1e-3 for line in golden)


def test_variants_are_compared_in_turns(capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = run(capsys, "variants")
    assert status == 0, [line for line in lines if "error" in line]
    assert stages(lines) == dict.fromkeys(card.PROGRAMS["variants"], True)
    compared = {line["stage"]: line for line in lines if "repeats" in line}
    assert compared.keys() == {*card.VARIANTS} - {"batch sizes"}
    assert all(line["repeats"] for line in compared.values())
    equal = {name for name, line in compared.items() if line["same_text"] and line["deviation"] == 0}
    assert equal == {"fused", "cuda graphs", "cudnn attention", "offload"}
    assert all(line["logits"] == 0 for name, line in compared.items() if name not in {"int8", "fp8", "nf4"})
    assert all(0 < compared[name]["logits"] < 0.5 for name in ("int8", "fp8", "nf4"))
    assert compared["offload"]["offloaded"]
    assert [line["images"] for line in lines if "images" in line] == [1, 2, 4, 8]


def test_the_tables_of_the_benchmark_have_shares_of_the_limit(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    report = tmp_path / "bench.json"
    status, lines = run(capsys, "final", "--only", "events", "tables", "--json", str(report))
    assert status == 0, [line for line in lines if "error" in line]
    phases = [line for line in lines if line.get("table", "").startswith("Phases")]
    assert phases
    assert all(0 < line["share"] == line["limit_s"] / line["median_s"] for line in phases)
    assert {table.kind for table in Report.read(report).tables} >= {"phases", "sequences", "variations"}
    works = {line["work"]: line for line in lines if "work" in line}
    assert works.keys() == {"reading", "writing", "drawing"}
    assert len(works["reading"]["seconds_between"]) == 6, "an event for each item, and for each text of the other cache"
    assert len(works["drawing"]["seconds_between"]) == events.STEPS + 1


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_a_device_that_is_behind_its_events_shows(lag: int) -> None:
    launched: list[int] = []

    def mark() -> Callable[[], bool]:
        number = len(launched)
        launched.append(number)
        return lambda: number + lag < len(launched)

    waits: list[None] = []
    found = events.watched(iter(range(6)), mark, lambda: waits.append(None))
    assert found["unfinished"] == lag
    assert len(waits) == 1


def test_a_batch_that_does_not_fit_ends_its_stage_with_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model("tiny", torch.device("cpu"), torch.float32)
    denoise = model.denoise

    def limited(context: Context, settings: ImageSettings, noise: Tensor, rows: int) -> Iterator[FlowStep]:
        if len(noise) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return denoise(context, settings, noise, rows)

    monkeypatch.setattr(model, "denoise", limited)
    lines = list(variants.batch_sizes(model))
    assert [line["images"] for line in lines] == [1, 2, 4]
    assert lines[-1]["said"] == "CUDA out of memory"


def test_warnings_of_the_engine_are_lines_of_their_stage(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def warns(_bench: card.Bench) -> Iterator[Mapping[str, object]]:
        logging.getLogger("core.bagel.decode").warning("the decode step can't be captured")
        yield {}

    monkeypatch.setattr(card, "STAGES", {**card.STAGES, "versions": warns})
    _, lines = run(capsys, "truths", "--only", "versions")
    assert [line["warning"] for line in lines if "warning" in line] == ["the decode step can't be captured"]


def test_what_only_a_gpu_does_runs_on_a_stand_in(capsys: pytest.CaptureFixture[str]) -> None:
    names = ("versions", "host syncs", "events", "cuda graphs", "batch sizes", "int8")
    with gpu_stand_in():
        options = ("--random-weights", "tiny", "--device", "cuda:0", "--dtype", "float32", "--rounds", "1")
        status = main(["variants", *options, "--only", *names])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert status == 0, [line for line in lines if "error" in line]
    assert stages(lines) == dict.fromkeys(names, True)
    assert {line["peak_bytes"] for line in lines if "done" in line} == {PEAK_BYTES}
    warned = {line["stage"] for line in lines if NO_GRAPH in line.get("warning", "")}
    assert warned == {"host syncs", "cuda graphs", "int8"}, "each model warns once"
    assert [line["same_text"] for line in lines if "variant" in line] == [True, True]
    assert next(line["load_peak_bytes"] for line in lines if "load_s" in line) == PEAK_BYTES


def test_a_stage_that_fails_does_not_stop_the_others(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, lines = run(capsys, "truths", "--only", "golden", "versions", "--golden", str(tmp_path / "missing"))
    assert status == 1
    assert stages(lines) == {"golden": False, "versions": True}
    assert "FileNotFoundError" in next(line["error"] for line in lines if "error" in line)


def test_the_stages_that_the_traps_name_are_there() -> None:
    text = (Path(__file__).parents[2] / "docs" / "traps.md").read_text()
    lists = re.findall(r"^Stages?: (.+)$", text, re.MULTILINE)
    assert lists
    named = {name for words in lists for name in re.findall(r"`([^`]+)`", words)}
    assert named - card.STAGES.keys() == set()
    assert card.STAGES.keys() - named == {
        "rates",
        "golden",
        "int8 product",
        "hash",
        "images",
        "tables",
        "step cache",
        "int8",
        "fp8",
        "nf4",
    }
