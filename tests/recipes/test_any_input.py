"""Whatever comes in, loading gives a recipe or its faults, and a resolved recipe is read back as itself."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.canonical import to_document
from recipes.faults import Fault, RecipeError
from recipes.load import find, load, load_resolved
from recipes.model_spec import ModelSpec
from recipes.variables import escaped
from tests.recipes.drawn import recipes, specs

MINIMAL: dict[str, Any] = {"name": "test", "context": [{"text": "A cat"}]}


def faults_of(source: Any, **options: Any) -> tuple[Fault, ...]:
    """The faults of a recipe; none when it loads. Any other error fails the test."""
    try:
        load(source, **options)
    except RecipeError as error:
        return error.faults
    return ()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["${a}", "${b} ${"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
field_names = st.sampled_from(
    [
        *vars(load(MINIMAL)),
        "image.width",
        "width",
        "context.0.text",
        "retry.below",
        "vars",
        "vars.a",
        "extends",
        "nonsense",
    ]
)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(field_names, json_values),
    st.dictionaries(field_names, json_values),
    st.dictionaries(st.sampled_from("abA"), json_values),
)
def test_any_data_loads_or_raises_one_line_for_each_fault(
    data: dict[str, Any], overrides: dict[str, Any], variables: dict[str, Any]
) -> None:
    faults = faults_of({**MINIMAL, **data}, overrides=overrides, variables=variables)
    assert all(len(str(fault).splitlines()) == 1 for fault in faults)


SHIPPED_TEXT = find("given-refinements").read_text(encoding="utf-8")
SNIPPETS = st.sampled_from(
    [
        *"[]{}:-\n\t?|>'\"#&*!%~",
        "<<: ",
        "---\n",
        "- ",
        "0x1F",
        "1e999",
        ".nan",
        "null",
        "text: ",
        "${",
        "vars: {a: 1}\n",
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, len(SHIPPED_TEXT)), st.integers(0, 9), SNIPPETS | st.text(max_size=4)), max_size=5
    )
)
def test_any_damage_to_a_recipe_file_gives_a_recipe_or_its_faults(damage: list[tuple[int, int, str]]) -> None:
    text = SHIPPED_TEXT
    for start, length, snippet in damage:
        text = text[:start] + snippet + text[start + length :]
    assert all(fault.source == "<recipe>" and fault.position for fault in faults_of(text))


PARENTS = st.sampled_from([f"extends: {name}\n" for name in ("a.yaml", "b.yaml", "sub/a.yaml", "night-sky", "${x}")])
VARS = st.sampled_from(["vars: {x: 1}\n", "vars: {x: b, y: $${x}}\n", "vars: {y: '${x}'}\n", "vars: 5\n"])
FIELDS = st.sampled_from(
    ["name: a\n", "name: ${x}\n", "seed: ${x}\n", "seed: -1\n", "image: {width: 8}\n", "image: {height: '${x}'}\n"]
) | st.sampled_from(["context:\n  - text: ${x}\n", "context:\n  - image: ${x}.png\n", "context: ", "'"])
FILE = st.lists(PARENTS | VARS | FIELDS, max_size=9).map("".join)


@settings(max_examples=150, deadline=None)
@given(st.fixed_dictionaries({"a.yaml": FILE, "b.yaml": FILE, "sub/a.yaml": FILE}))
def test_any_files_that_extend_each_other_give_a_recipe_or_its_faults(
    tmp_path_factory: pytest.TempPathFactory, texts: dict[str, str]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "sub").mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    faults = faults_of(folder / "a.yaml", variables={"x": 2})
    assert all(fault.source.startswith((str(folder), str(find("night-sky")), "variable x")) for fault in faults)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_a_recipe_or_its_faults(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(content)
    assert all(fault.source == str(file) for fault in faults_of(file))


@settings(max_examples=150, deadline=None)
@given(recipes, specs, specs)
def test_a_resolved_recipe_loads_again_as_itself_for_any_model(
    data: dict[str, Any], first: ModelSpec | None, second: ModelSpec | None
) -> None:
    recipe = load(data, spec=first)
    assert load(escaped(to_document(recipe)), spec=second) == recipe
    assert load_resolved(to_document(recipe)) == recipe
