"""The tables of docs/measured.md are those of the measurements beside it."""

import json
from pathlib import Path

import pytest

from tools.measured import DOCS, with_tables


def test_the_document_has_the_measured_tables() -> None:
    text = (DOCS / "measured.md").read_text()
    assert with_tables(text, DOCS / "measured") == text, "run `python -m tools.measured`"


def test_every_measurement_is_in_the_document() -> None:
    text = (DOCS / "measured.md").read_text()
    for path in (DOCS / "measured").glob("*.json"):
        assert f"<!-- {path.stem}: " in text, path.name


def test_a_table_replaces_the_one_before(tmp_path: Path) -> None:
    tables = {"shares": {"columns": ["a", "b"], "rows": [["1", "2"]]}}
    (tmp_path / "study.json").write_text(json.dumps(tables))
    before = "x\n<!-- study: shares -->\n\n| old |\n\n<!-- end -->\ny\n"
    after = with_tables(before, tmp_path)
    assert after == "x\n<!-- study: shares -->\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\n<!-- end -->\ny\n"
    assert with_tables(after, tmp_path) == after


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(KeyError, match="shares"):
        with_tables("<!-- study: shares -->\n<!-- end -->\n", tmp_path)
