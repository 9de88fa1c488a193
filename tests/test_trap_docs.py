"""docs/traps.md leaves no trap out, and every test and file that it names is there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "traps.md").read_text()
TRAPS = 36
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
FILE = re.compile(r"`((?:worker|storage|recipes|core)/[\w/]+\.py)`")


def traps() -> dict[int, str]:
    """The words on each trap, by its number; one given twice is kept once."""
    parts = re.split(r"^### T(\d+)\. ", TEXT.split("\n## What can still go wrong\n")[0], flags=re.MULTILINE)
    return {int(number): text for number, text in zip(parts[1::2], parts[2::2], strict=True)}


@cache
def defined_in(file: str) -> frozenset[str]:
    """The test functions that a file defines, without importing it."""
    tree = ast.parse((ROOT / file).read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def test_no_trap_is_missing_and_none_is_there_twice() -> None:
    assert sorted(traps()) == list(range(1, TRAPS + 1))
    assert TEXT.count("\n### T") == TRAPS


@pytest.mark.parametrize("number", range(1, TRAPS + 1))
def test_a_trap_is_proved_by_tests_that_exist(number: int) -> None:
    named = NAMED.findall(traps()[number])
    assert named
    assert [f"{file}::{name}" for file, name in named if name not in defined_in(file)] == []
    assert {name[:5] for _, name in named} == {"test_"}


def test_every_file_that_is_named_is_there() -> None:
    files = FILE.findall(TEXT)
    assert files
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_it_ends_with_what_can_still_go_wrong() -> None:
    assert TEXT.split("\n## ")[-1].startswith("What can still go wrong\n")
