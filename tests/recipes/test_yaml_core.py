"""Recipes are read as YAML 1.2, with none of the traps of 1.1, and within limits."""

import math

import pytest

from recipes.faults import SourcePosition
from recipes.yaml_core import MAX_DEPTH, MAX_NODES, UnreadableError, YamlReader, scalar


def issues(text: str) -> list[tuple[str, tuple[int, int]]]:
    """What is not allowed in a text that can be read: the message and its line and column."""
    reader = YamlReader(text)
    reader.read()
    return [(found.message, (found.position.line, found.position.column)) for found in reader.issues if found.position]


def unreadable(text: str) -> tuple[str, SourcePosition | None]:
    with pytest.raises(UnreadableError) as caught:
        YamlReader(text).read()
    return caught.value.issue.message, caught.value.issue.position


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0123", 123),
        ("0o17", 15),
        ("0x1F", 31),
        ("+12", 12),
        ("-0", 0),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("Null", None),
    ],
)
def test_plain_scalars_follow_the_core_schema(text: str, value: object) -> None:
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


@pytest.mark.parametrize(
    "text", ["no", "on", "Yes", "y", "12:30:00", "1_000", "0b11", "2001-01-01", "0o8", "0x", "nan", "tRUE", "=", "<<"]
)
def test_what_yaml_1_1_turns_into_something_else_stays_a_text(text: str) -> None:
    assert scalar(text) == text


def test_not_a_number_is_read_as_such_for_the_loader_to_refuse() -> None:
    assert math.isnan(scalar(".nan"))


def test_quoted_and_block_scalars_are_texts() -> None:
    assert YamlReader("a: '1'\nb: \"true\"\nc: |\n  2\nd: 3").read() == {"a": "1", "b": "true", "c": "2\n", "d": 3}


def test_values_and_keys_know_their_places_in_characters() -> None:
    reader = YamlReader("é: [ü, {b: 2}]\n\nlist:\n  - x\n")
    reader.read()
    assert reader.positions["é", 1, "b"] == SourcePosition(line=1, column=12)
    assert reader.key_positions["é", 1, "b"] == SourcePosition(line=1, column=9)
    assert reader.positions["list", 0] == SourcePosition(line=4, column=5)


def test_everything_that_is_not_allowed_is_found_at_once() -> None:
    text = "a: &x 1\nb: *x\na: 2\nc: !!str 3\n<<: {d: 4}\n5: 6\n? [7]\n: 8\n---\n{}\n"
    assert issues(text) == [
        ("the anchor &x is not allowed; write the value where it is used", (1, 4)),
        ("the alias *x is not allowed; write the value itself", (2, 4)),
        ("the field 'a' is given twice", (3, 1)),
        ("tags (!...) are not allowed; write the plain value", (4, 4)),
        ("merge keys (<<) are not allowed; write the fields themselves", (5, 1)),
        ("keys must be field names, which are texts", (6, 1)),
        ("keys must be field names, which are texts", (7, 3)),
        ("a second document starts here; allowed: one document", (9, 1)),
    ]


def test_the_first_of_two_equal_keys_is_kept() -> None:
    assert YamlReader("{a: 1, a: 2}").read() == {"a": 1}


def test_an_alias_bomb_stays_small() -> None:
    levels = [
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    reader = YamlReader("\n".join(["a: &a [x, x, x]", *levels]))
    assert reader.read()["i"] == [None] * 9
    assert len(reader.issues) == 9 + 8 * 9


def test_nesting_stops_at_the_limit_however_deep_it_would_go() -> None:
    message, position = unreadable("[" * 100_000)
    assert message == f"nested deeper than {MAX_DEPTH} levels"
    assert position == SourcePosition(line=1, column=MAX_DEPTH + 2)


def test_nesting_up_to_the_limit_is_read() -> None:
    assert YamlReader("[" * MAX_DEPTH + "]" * MAX_DEPTH).read()


def test_values_are_counted() -> None:
    assert unreadable(f"[{'a,' * MAX_NODES}]")[0] == f"more than {MAX_NODES:,} values"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: [1\nb: 2", (2, 2)),
        ("a:\n\t- b", (2, 1)),
        ("a: b: c", (1, 5)),
        ("a: 'b", (1, 6)),
        ("%YAML x\n---\na", (1, 7)),
    ],
)
def test_a_syntax_error_has_its_place(text: str, place: tuple[int, int]) -> None:
    message, position = unreadable(text)
    assert message.startswith("not valid YAML: ")
    assert position == SourcePosition(line=place[0], column=place[1])


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a:\n\t- b", (2, 1)),
        ("a:\n  - b: c\n  \td: e", (3, 3)),
        ("a: 'é'\n\tb: 2", (2, 1)),
        ("- a\n-\tb: c", (2, 2)),
    ],
)
def test_a_tab_in_the_indentation_is_named_at_its_place(text: str, place: tuple[int, int]) -> None:
    assert unreadable(text) == (
        "not valid YAML: tab character in the indentation; allowed: spaces only",
        SourcePosition(line=place[0], column=place[1]),
    )


def test_tabs_elsewhere_are_read() -> None:
    assert YamlReader("a:\tb\nc: {\n\td: 'x\ty'}").read() == {"a": "b", "c": {"d": "x\ty"}}


@pytest.mark.parametrize("character", ["\0", "\x07", "\x1b", "\x7f", "\ud800", "\ufffe"])
def test_characters_that_yaml_does_not_allow_are_refused_at_their_place(character: str) -> None:
    message, position = unreadable(f"a: 1\nb: x{character}")
    assert message.startswith(f"the character {character!a} is not allowed")
    assert position == SourcePosition(line=2, column=5)
