"""The shipped recipes load for the shipped model, and importing the language is light."""

import subprocess
import sys
from pathlib import Path

import pytest

from core.model_folder import read_spec
from core.plan import Draw, plan
from recipes.document import read_file
from recipes.fields import KEYS
from recipes.load import find, load

ROOT = Path(__file__).parents[2]
TINY = read_spec(ROOT / "models" / "tiny-bagel")
SHIPPED = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_recipe_loads_under_its_own_name(file: Path) -> None:
    recipe = load(file, spec=TINY)
    assert recipe.name == file.stem
    assert find(recipe.name) == file
    drawn = [step for step in plan(recipe) if isinstance(step, Draw) and step.attempt == 0]
    assert {step.index for step in drawn} == set(range(recipe.num_images))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_recipe_begins_with_its_schema_and_what_it_shows(file: Path) -> None:
    schema, comment = file.read_text(encoding="utf-8").split("\n")[:2]
    assert schema == "# yaml-language-server: $schema=recipe.schema.json"
    assert comment.startswith("# ")


def test_the_shipped_recipes_show_every_way_of_telling_a_sequence() -> None:
    recipes = [load(file, spec=TINY) for file in SHIPPED]
    assert {recipe.mode for recipe in recipes} == {"generation", "editing"}
    assert {recipe.think for recipe in recipes} == {True, False}
    assert any(not recipe.auto_refine for recipe in recipes)
    assert any(0 < len(recipe.refinement_prompts) < recipe.num_images - 1 for recipe in recipes)
    assert any(recipe.max_context_items for recipe in recipes)
    assert {recipe.select for recipe in recipes} == {"first", "judge", "tree"}
    assert any(recipe.retry for recipe in recipes)
    assert any(read_file(file).data.keys() >= set(KEYS) for file in SHIPPED)


def test_loading_a_recipe_loads_no_torch() -> None:
    program = "import sys, recipes.load; print(sorted({'torch', 'transformers', 'celery', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_types_and_rules_need_no_pydantic() -> None:
    program = "import sys, recipes.rules, recipes.defaults; print({'pydantic', 'yaml'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
