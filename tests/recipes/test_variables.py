"""Variables are put into a recipe's texts once, typed where they stand alone, and every mistake with them is told."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from recipes.canonical import to_document
from recipes.document import MAX_DATA_CHARS
from recipes.faults import RecipeError
from recipes.load import given, load, load_resolved
from recipes.recipe import Recipe, TextItem
from recipes.variables import escaped, parse_variable

NAMES = "a lower-case letter, then lower-case letters, digits and underscores, at most 32 in all"
ESCAPE = "write $${ for a literal ${"


def prompted(text: str, **variables: Any) -> Recipe:
    """A recipe whose context is `text`, and whose `vars` are an animal and its size."""
    return load(recipe(text), variables=variables)


def recipe(text: str) -> str:
    return (
        f"name: test\nvars: {{animal: fox, size: 3}}\ncontext:\n  - text: {text}\nrefine_instruction: An ${{animal}}\n"
    )


def prompt(recipe: Recipe) -> str:
    (item,) = recipe.context
    assert isinstance(item, TextItem)
    return item.text


def faults(source: Path | str | dict[str, Any], **options: Any) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(source, **options)
    return str(caught.value).split("\n")


def test_a_variable_stands_for_its_value() -> None:
    assert prompt(prompted("A ${animal} and ${size} small ${animal}es")) == "A fox and 3 small foxes"


def test_what_is_given_beside_the_recipe_wins() -> None:
    assert prompt(prompted("A ${animal}", animal="cat")) == "A cat"


def test_a_variable_needs_no_default() -> None:
    assert prompt(load("name: a\ncontext: [{text: 'A ${animal}'}]", variables={"animal": "cat"})) == "A cat"


@pytest.mark.parametrize("value", [7, "7", 2.5, True, None])
def test_a_text_that_is_a_variable_has_its_value_with_its_type(value: object) -> None:
    data = {"name": "a", "context": [{"text": "${x}"}], "vars": {"x": value}}
    assert given(data)["context"][0]["text"] == value
    assert type(given(data, variables={"x": value})["context"][0]["text"]) is type(value)


def test_numbers_and_truth_values_are_fields_too() -> None:
    text = 'name: a\ncontext: [{text: b}]\nseed: ${seed}\nthink: ${think}\nimage: {cfg_text_scale: "${scale}"}\n'
    made = load(text, variables={"seed": 5, "think": True, "scale": 3.5})
    assert (made.seed, made.think, made.image.cfg_text_scale) == (5, True, 3.5)


@pytest.mark.parametrize(("value", "text"), [(True, "true"), (2.5, "2.5"), (7, "7"), ("", "")])
def test_inside_a_text_a_value_is_a_text(value: object, text: str) -> None:
    assert prompt(prompted("A ${animal}.", animal=value)) == f"A {text}."


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("$${animal}", "${animal}"),
        ("$$${animal}", "$${animal}"),
        ("5 $ {a} $", "5 $ {a} $"),
        ("$${", "${"),
        ("$$", "$$"),
    ],
)
def test_a_dollar_and_a_brace_can_be_written(written: str, meant: str) -> None:
    assert prompt(prompted(written)) == meant


def test_values_are_not_read_again() -> None:
    assert prompt(prompted("A ${animal}", animal="${size} $${size}")) == "A ${size} $${size}"
    assert prompt(load(recipe("A ${animal}").replace("fox", '"$${fox}"'))) == "A ${fox}"


def test_overrides_are_taken_as_they_are() -> None:
    assert prompt(load(recipe("A"), overrides={"context.0.text": "${animal}"})) == "${animal}"


def test_keys_are_not_expanded() -> None:
    lines = faults({"name": "a", "context": [{"text": "b"}], "vars": {"x": "seed"}, "${x}": 5})
    assert lines[0].startswith("unknown field '${x}'; allowed: name, model, ")
    assert lines[0].endswith("extends, vars")


def test_a_parents_variables_are_the_childs_but_for_its_own(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("name: a\nvars: {a: 1, b: 2}\ncontext: [{text: '${a} ${b} ${c}'}]\n")
    child = tmp_path / "child.yaml"
    child.write_text("extends: base.yaml\nvars: {b: 3, c: 4}\n")
    assert prompt(load(child)) == "1 3 4"
    assert prompt(load(child, variables={"c": 5})) == "1 3 5"


def test_an_image_may_be_named_by_a_variable(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "fox.png").touch()
    (tmp_path / "sub" / "base.yaml").write_text("name: a\ncontext: [{image: '${animal}.png'}]\n")
    child = tmp_path / "child.yaml"
    child.write_text("extends: sub/base.yaml\nvars: {animal: fox}\n")
    assert given(child)["context"] == [{"image": "sub/fox.png"}]
    assert given(child, variables={"animal": "s3://bucket/a"})["context"] == [{"image": "s3://bucket/a.png"}]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("A ${animl}", f"unknown variable 'animl'; did you mean 'animal'?; {ESCAPE}"),
        ("A ${x}", f"unknown variable 'x'; known: animal, size; {ESCAPE}"),
        ("A ${}", f"'${{}}' is not a variable; allowed: ${{name}}, the name {NAMES}; {ESCAPE}"),
        ("A ${Animal}", f"'${{Animal}}' is not a variable; allowed: ${{name}}, the name {NAMES}; {ESCAPE}"),
        ("A ${animal", f"'${{animal' is not a variable; allowed: ${{name}}, the name {NAMES}; {ESCAPE}"),
        ("A ${animal ", f"'${{animal' is not a variable; allowed: ${{name}}, the name {NAMES}; {ESCAPE}"),
        ("A ${ani${mal}}", f"'${{ani$' is not a variable; allowed: ${{name}}, the name {NAMES}; {ESCAPE}"),
    ],
)
def test_what_is_no_variable_is_told_at_its_place(text: str, fault: str) -> None:
    assert faults(recipe(text)) == [f"<recipe>:4:11: context[0].text: {fault}"]


def test_a_recipe_without_variables_says_so() -> None:
    assert faults("name: ${x}\ncontext: [{text: b}]\n") == [
        f"<recipe>:1:7: name: unknown variable 'x'; this recipe has no vars; {ESCAPE}"
    ]


def test_a_value_of_the_wrong_type_tells_the_variable() -> None:
    assert faults(recipe("${size}")) == [
        "<recipe>:4:11: context[0].text: 3 is a whole number (from ${size}); allowed: a text of 1 to 8,192 characters"
    ]


def test_between_braces_a_variable_wants_quotes() -> None:
    (line,) = faults("name: a\nimage: {width: ${size}}\n")
    assert line.endswith('; between [ ] or { } write "${name}" in quotes')


def test_null_has_no_place_in_a_text() -> None:
    lines = faults(recipe("A ${animal}, ${animal}"), variables={"animal": None})
    fault = "'animal' is null, which can't be part of a longer text"
    assert lines == [f"<recipe>:4:11: context[0].text: {fault}", f"<recipe>:5:21: refine_instruction: {fault}"]


def test_every_fault_of_a_text_is_told_once() -> None:
    starts = [line.partition(";")[0] for line in faults(recipe("${a} ${b} ${animal} ${a} ${"))]
    assert starts == [
        "<recipe>:4:11: context[0].text: unknown variable 'a'",
        "<recipe>:4:11: context[0].text: unknown variable 'b'",
        "<recipe>:4:11: context[0].text: '${' is not a variable",
    ]


@pytest.mark.parametrize(
    ("declared", "fault"),
    [
        ("{Size: 3}", f"2:8: vars: 'Size' is not a variable name; allowed: {NAMES}"),
        ("{size: [1]}", "2:14: vars.size: is a list; allowed: a text, a number, true, false or null"),
        ("{size: .nan}", "2:14: vars.size: nan is not a finite number"),
        (
            "{size: '${size}'}",
            "2:14: vars.size: '${size}' contains a variable; variables can't be nested; " + ESCAPE,
        ),
        (
            "[size]",
            "2:7: vars: is a list; allowed: a mapping of up to 256 names to values, each a text, a number, true, false "
            "or null",
        ),
        ("*size", "2:7: vars: the alias *size is not allowed; write the value itself"),
    ],
)
def test_variables_that_can_not_be_are_told_once(declared: str, fault: str) -> None:
    text = f"name: test\nvars: {declared}\ncontext:\n  - text: A cat\nseed: ${{size}}\n"
    assert faults(text, variables=None if "size:" in declared else {"size": 3}) == [f"<recipe>:{fault}"]


def test_variables_are_counted() -> None:
    many = {f"x{number}": number for number in range(257)}
    data = {"name": "a", "context": [{"text": "b"}]}
    assert faults({**data, "vars": many})[0].startswith("vars: has 257 names; allowed: a mapping of up to 256 names")
    assert faults(data, variables=many) == ["variable: there are 257 variables; allowed: at most 256"]


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        ({"animl": "cat"}, "variable animl: the recipe does not use it; did you mean 'animal'?"),
        ({"x": 1}, "variable x: the recipe does not use it; it uses animal"),
        ({"size": 1}, "variable size: the recipe does not use it; it uses animal"),
        ({"animal": [1]}, "variable animal: is a list; allowed: a text, a number, true, false or null"),
        ({"animal": float("inf")}, "variable animal: inf is not a finite number"),
        ({"animal": b"x"}, "variable animal: is of type bytes, which recipes do not support"),
        ({5: 1}, f"variable 5: 5 is not a variable name; allowed: {NAMES}"),
        ([1], "variable: the variables are a list; expected a mapping of names to values"),
    ],
)
def test_a_fault_of_a_variable_given_beside_the_recipe_says_so(variables: Any, fault: str) -> None:
    assert faults(recipe("A"), variables=variables) == [fault]


def test_a_recipe_without_variables_uses_none() -> None:
    assert faults("name: a\ncontext: [{text: b}]", variables={"x": 1}) == [
        "variable x: the recipe does not use it; it uses no variables"
    ]


def test_an_override_mends_what_is_wrong_with_a_variable() -> None:
    assert load(recipe("${x}"), overrides={"context.0.text": "A cat"}) == load(recipe("A cat"))
    text = recipe("A").replace("An ${animal}", "${size}")
    assert load(text, overrides={"refine_instruction": "B"}).refine_instruction == "B"


def test_overrides_leave_variables_and_parents_alone() -> None:
    assert faults(recipe("A"), overrides={"vars.animal": "cat"}) == [
        "override vars: can't be overridden; to set a variable, use --var name=value"
    ]


def test_texts_do_not_grow_beyond_the_limit() -> None:
    bomb = "${animal}" * 20_000
    lines = faults(recipe(bomb), variables={"animal": "x" * 100_000})
    assert lines == [
        f"<recipe>:4:11: context[0].text: the recipe's texts are too long; "
        f"expected at most {MAX_DATA_CHARS:,} characters in all"
    ]
    many = [{"text": "${animal}"}] * 200
    assert len(faults({"name": "a", "context": many, "vars": {"animal": "x" * 8000}})) == 1
    assert len(faults(recipe(" ".join(f"${{x{number}}}" for number in range(20_000))))) == 100


def test_what_is_given_loads_again_without_its_variables() -> None:
    data = given(recipe("A ${animal} $${animal}"), {"seed": 3}, {"animal": "${cat}"})
    assert data["context"] == [{"text": "A $${cat} $${animal}"}]
    assert "vars" not in data
    again = load(data)
    assert prompt(again) == "A ${cat} ${animal}"
    assert load_resolved(to_document(again)) == again


@drawn(
    st.recursive(st.text(st.sampled_from("${}a"), max_size=8), lambda inner: st.lists(inner, max_size=3), max_leaves=4)
)
def test_whatever_a_text_is_it_can_be_written(texts: Any) -> None:
    data = {"name": "a", "context": [{"text": "b"}], "refinement_prompts": escaped(texts)}
    assert escaped(texts) == given(data)["refinement_prompts"]
    if isinstance(texts, str) and texts:
        assert prompt(load({"name": "a", "context": [{"text": escaped(texts)}]})) == texts


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("animal=fox", ("animal", "fox")),
        (" seed = 0123", ("seed", 123)),
        ("think=true", ("think", True)),
        ("a=", ("a", None)),
        ("a=''", ("a", "")),
        ('a="5"', ("a", "5")),
        ("a=b=c", ("a", "b=c")),
        ("a=[close] a fox", ("a", "[close] a fox")),
        ("a=${b}", ("a", "${b}")),
    ],
)
def test_the_command_line_gives_typed_values(text: str, parsed: tuple[str, Any]) -> None:
    assert parse_variable(text) == parsed


@pytest.mark.parametrize("text", ["animal", "=5", "", "a='x' y", "a='x"])
def test_what_is_no_variable_on_the_command_line_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="variable"):
        parse_variable(text)
