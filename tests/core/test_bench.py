"""The benchmark measures every length in every round, counts the work, and rejects bad arguments in one line."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from core.bagel.linear import Linear
from core.bench.__main__ import main
from core.bench.machine import Machine, least_work
from core.bench.report import Report
from core.bench.rows import Row, reread_rows, segment_rows, sequence_rows
from core.bench.table import NAME_WIDTH
from core.bench.usage import Meter, Usage, total
from core.cost import velocity_evaluations
from core.events import TextReady
from core.sequence import run_sequence
from recipes.recipe import ImageSettings, Recipe, TextItem, TextSettings
from tests.core.bagel.golden import load

TINY = Path(__file__).parents[2] / "models" / "tiny-bagel"
QUICK = ("--device", "cpu", "--rounds", "1", "--num_timesteps", "4", "--images", "1", "--variations", "1")
SEQUENCES = ("--only", "sequences", "variations", "trees", "long")
MACHINE = Machine(device="any", dtype="float32", threads=1, torch="2", commit="none", flop_per_s=1e9, bytes_per_s=1e6)
GREEDY = Recipe(
    name="bench",
    context=(TextItem(text="A magical forest"),),
    think=True,
    text=TextSettings(max_new_tokens=100, temperature=0.0),
    image=ImageSettings(width=64, height=64, num_timesteps=6, cfg_text_scale=2.0, cfg_img_scale=1.0),
)


def printed(capsys: pytest.CaptureFixture[str], *options: str, folder: Path = TINY) -> list[dict[str, list[str]]]:
    """The columns of each table's rows, by name; a repeated name replaces the row before it."""
    assert main(["--model_path", str(folder), *QUICK, *SEQUENCES, *options]) == 0
    _, _, *tables = capsys.readouterr().out.split("\n\n")
    rows = [[line for line in table.splitlines()[2:] if line] for table in tables]
    return [{line[:NAME_WIDTH].strip(): line[NAME_WIDTH:].split() for line in table} for table in rows]


def usage(**fields: float) -> Usage:
    """A usage of ones, but for `fields`."""
    ones = dict.fromkeys(Usage.__dataclass_fields__, 1.0)
    return Usage(**{**ones, **fields})  # type: ignore[arg-type]  # the memory fields are whole numbers


def test_every_length_is_measured_in_every_round_from_an_empty_cache() -> None:
    rows, lasts = sequence_rows(Meter(load("tiny")), GREEDY, (1, 3, 1), rounds=2)
    assert [row.name for row in rows] == ["1", "3", "1"]
    assert [row.name for row in lasts] == ["1 of 1", "3 of 3", "1 of 1"]
    assert {len(row.samples) for row in (*rows, *lasts)} == {2}
    for row in (*rows, *lasts):
        assert len(set(row.values("tokens_read"))) == 1, "the rounds of a row do the same work"
    assert rows[0].median("tokens_read") == rows[2].median("tokens_read") > 80
    assert all(usage.cpu_s > 0 for row in rows for usage in row.samples)


def test_counts_are_those_of_the_sequence() -> None:
    model = load("tiny")
    texts = [event.text for event in run_sequence(GREEDY, model) if isinstance(event, TextReady)]
    (row,), (last,) = sequence_rows(Meter(model), GREEDY, (1,), rounds=1)
    (thought,) = texts
    assert row.median("tokens_decoded") == len(model.reader.tokenizer.frame(thought)) - 1, "its end token counts"
    assert row.median("velocity_evaluations") == velocity_evaluations(GREEDY.image)
    assert row.samples == last.samples, "the only image is the whole sequence"


def test_the_last_image_includes_its_texts_and_what_is_read_for_it() -> None:
    (one, two), (_, last) = sequence_rows(Meter(load("tiny")), GREEDY, (1, 2), rounds=1)
    for field in ("tokens_read", "tokens_decoded", "velocity_evaluations"):
        assert last.median(field) == two.median(field) - one.median(field) > 0, field


def test_every_segment_of_a_long_sequence_is_measured_in_every_round() -> None:
    rows = list(segment_rows(Meter(load("tiny")), replace(GREEDY, num_images=3), rounds=2, images=2))
    assert [row.name for row in rows] == ["1 to 2", "3 to 3"]
    for row in rows:
        assert len(row.samples) == 2
        assert set(row.values("velocity_evaluations")) == {velocity_evaluations(GREEDY.image)}, "means per image"


def test_a_row_is_the_median_of_its_rounds() -> None:
    rounds = [usage(wall_s=seconds) for seconds in (9.0, 1.0, 2.0)]
    row = Row(name="any", samples=rounds, baseline=[one.scaled(2) for one in rounds])
    assert (row.median("wall_s"), row.ratio("wall_s"), row.ratio("kv_bytes")) == (2.0, 0.5, 1.0)


def test_separate_runs_add_up() -> None:
    both = total([usage(tokens_read=3, kv_bytes=5), usage(tokens_read=4, kv_bytes=6)])
    assert (both.wall_s, both.tokens_read, both.kv_bytes) == (2.0, 7, 11)


def test_a_batch_reads_and_holds_its_context_once(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, rows = printed(capsys, "--variations", "1", "3")
    assert list(rows) == ["1, separate runs", "1, one batch", "3, separate runs", "3, one batch"]
    for name, share in (("1, one batch", "1.00"), ("3, one batch", "0.33")):
        assert rows[name][7] == share, "tokens read"
        assert rows[name][11] == share, "memory of keys and values"
        assert int(rows[name][6]) > 80
    assert rows["3, one batch"][6] == rows["1, one batch"][6]


def test_trees_and_a_long_sequence_are_measured_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    *_, trees, long = printed(capsys, "--trees", "2x2", "--long", "7", "--max_context_items", "4")
    assert list(trees) == ["2x2, 4 runs", "2x2, tree"]
    assert 0.25 < float(trees["2x2, tree"][7]) < 0.5, "tokens read by a tree, of those that its 4 paths read"
    assert trees["2x2, tree"][11] == "1.00", "the memory of a tree's keys and values is that of one path"
    assert list(long) == ["1 to 5", "6 to 7"]


def test_greedy_texts_do_not_depend_on_the_seed(capsys: pytest.CaptureFixture[str]) -> None:
    def decoded(*options: str) -> set[str]:
        return {printed(capsys, "--seed", seed, *options)[0]["1"][8] for seed in ("1", "2")}

    assert len(decoded()) == 2, "these seeds sample texts of different lengths"
    assert len(decoded("--greedy")) == 1


def test_a_model_without_defaults_draws_what_it_can(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = shutil.copytree(TINY, tmp_path / "bare")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({name: config[name] for name in config if name != "defaults"}))
    sequences, *_ = printed(capsys, folder=folder)
    assert list(sequences) == ["1"]


@pytest.mark.parametrize(
    "options",
    [("--images", "0"), ("--rounds", "-1"), ("--variations", "x"), ("--trees", "2x"), ("--num_timesteps", "1")],
)
def test_a_bad_number_is_a_usage_error(capsys: pytest.CaptureFixture[str], options: tuple[str, str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--model_path", str(TINY), *options])
    assert f"error: argument {options[0]}: {options[1]!r} is not allowed; allowed: " in capsys.readouterr().err


def test_what_can_not_be_measured_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for folder, options in ((tmp_path, ()), (TINY, ("--max_context_items", "1")), (TINY, ("--dtype", "int3"))):
        assert main(["--model_path", str(folder), *options]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
    assert main(["--model_path", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}")


def test_a_context_that_is_read_again_costs_what_a_kept_one_saves() -> None:
    recipe = replace(GREEDY, num_images=2)
    again, kept = reread_rows(Meter(load("tiny")), recipe, (2,), rounds=1)
    assert (again.name, kept.name) == ("2, read again", "2, kept")
    for count in ("tokens_decoded", "velocity_evaluations"):
        assert again.median(count) == kept.median(count), "both do the same work"
    assert kept.ratio("tokens_read") < 0.6


def test_phases_a_report_and_its_plot(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    report, plot = tmp_path / "bench.json", tmp_path / "bench.svg"
    options = ("--only", "phases", "reading", "--contexts", "50", "--json", str(report), "--plot", str(plot))
    assert main(["--model_path", str(TINY), *QUICK, *options]) == 0
    phases, reading = (table.splitlines() for table in capsys.readouterr().out.split("\n\n")[2:])
    read = Report.read(report)
    assert [table.kind for table in read.tables] == ["phases", "reading"]
    names = [row.name for row in read.tables[0].rows]
    assert [line[:NAME_WIDTH].strip() for line in phases[2:]] == names
    assert [line[:NAME_WIDTH].strip() for line in reading[2:]] == ["1, read again", "1, kept"]
    assert all((row.limit_s or 0) > 0 for row in read.tables[0].rows)
    assert read.machine.threads == torch.get_num_threads()
    assert read.setup["model"] == "tiny-bagel"
    texts = [element.text for element in ElementTree.parse(plot).iter() if element.tag.endswith("text")]
    assert set(names) <= set(texts)
    report.write_text(report.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(ValueError, match="version 2 of a benchmark; allowed: 1"):
        Report.read(report)


def test_the_least_work_is_that_of_the_products_and_their_weights() -> None:
    layers = nn.Sequential(nn.Embedding(100, 8), nn.Linear(8, 16, bias=False), Linear(16, 4))
    tokens = 20  # enough for oneDNN
    work = least_work(layers, lambda: layers(torch.arange(tokens)))
    assert work.flop == 2 * tokens * (8 * 16 + 16 * 4)
    assert work.weight_bytes == 4 * (8 * 16 + 16 * 4 + 4)
    assert MACHINE.limit_s(work) == max(work.flop / MACHINE.flop_per_s, work.weight_bytes / MACHINE.bytes_per_s)
