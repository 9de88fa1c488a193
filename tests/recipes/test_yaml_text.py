"""A value is written as YAML that is read back as that value, with quotes and blocks where they are needed."""

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.yaml_core import YamlReader
from recipes.yaml_text import comment, in_line, scalar_lines
from tests.recipes.drawn import texts


def written(value: Any, indent: int = 0) -> str:
    """The value of a field `a` between others, at a depth."""
    first, *others = scalar_lines(value, indent)
    return "\n".join([f"{' ' * indent}a: {first}  # note", *others, f"{' ' * indent}b: 1", ""])


@settings(max_examples=500, deadline=None)
@given(
    texts
    | st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.lists(st.floats(0, 1), max_size=2),
    st.sampled_from([0, 2, 4]),
)
def test_every_value_is_read_back(value: Any, indent: int) -> None:
    assert YamlReader(written(value, indent)).read() == {"a": value, "b": 1}
    if isinstance(value, str):
        assert yaml.safe_load(written(value, indent)) == {"a": value, "b": 1}


@pytest.mark.parametrize("text", ["A cat", "Größer, und röter!", "s3://bucket/a.png", "don't", "12 foxes", "a:b"])
def test_a_harmless_text_has_no_quotes(text: str) -> None:
    assert scalar_lines(text, 0) == [text]


@pytest.mark.parametrize(
    "text",
    [
        "0123",
        "12",
        "1.5",
        "0o17",
        "true",
        "null",
        "~",
        "no",
        "Yes",
        "12:30:00",
        "2001-01-01",
        "1_000",
        "a: b",
        "a #b",
        " a",
        "a ",
        "- a",
        "",
    ],
)
def test_what_could_be_something_else_has_quotes(text: str) -> None:
    assert scalar_lines(text, 0) == [f'"{text}"']


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a\nb", ["|-", "  a", "  b"]),
        ("a\nb\n", ["|", "  a", "  b"]),
        ("a\n\n  b\n", ["|", "  a", "", "    b"]),
        ("a\n\n", ["|+", "  a", ""]),
        ("${a}: # b\n'c'", ["|-", "  ${a}: # b", "  'c'"]),
    ],
)
def test_a_text_of_several_lines_is_a_block(text: str, lines: list[str]) -> None:
    assert scalar_lines(text, 0) == lines


@pytest.mark.parametrize("text", [" a\nb", "a\r\nb", "a\x85b\nc", "a\tb\n\x07"])
def test_a_text_that_a_block_would_change_is_quoted(text: str) -> None:
    (line,) = scalar_lines(text, 0)
    assert line == in_line(text)
    assert "\\" in line


def test_a_remark_stays_on_its_line() -> None:
    assert comment("from a\nb\u2028.yaml") == "# from a\\x0ab\\u2028.yaml"
