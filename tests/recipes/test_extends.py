"""A recipe may say only what it changes of another one, and every value keeps the place where it was written."""

from pathlib import Path
from typing import Any

import pytest

from recipes.faults import RecipeError
from recipes.load import find, given, load
from recipes.recipe import ImageItem, TextItem

BASE = "name: base\nseed: 3\ncontext:\n  - text: A cat\nrefinement_prompts: [Warmer, Larger]\n"
KIB = 1024


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with base.yaml in it."""
    write(tmp_path, "base.yaml", BASE + "image: {width: 64, height: 64, num_timesteps: 10}\n")
    return tmp_path


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def faults(source: Path | str | dict[str, Any], **options: Any) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(source, **options)
    return str(caught.value).split("\n")


def test_what_a_recipe_does_not_say_is_its_parents(folder: Path) -> None:
    recipe = load(write(folder, "child.yaml", "extends: base.yaml\nname: child\n"))
    assert (recipe.name, recipe.seed, recipe.context) == ("child", 3, (TextItem(text="A cat"),))


def test_mappings_are_merged_and_lists_replaced(folder: Path) -> None:
    text = "extends: base.yaml\nimage: {num_timesteps: 20}\nrefinement_prompts: [Darker]\noutput: {page: false}\n"
    recipe = load(write(folder, "child.yaml", text))
    assert (recipe.image.num_timesteps, recipe.image.width) == (20, 64)
    assert recipe.refinement_prompts == ("Darker",)
    assert not recipe.output.page


def test_a_mapping_may_become_something_else_and_back(folder: Path) -> None:
    write(folder, "middle.yaml", "extends: base.yaml\nimage: 5\n")
    recipe = load(write(folder, "child.yaml", "extends: middle.yaml\nimage: {num_timesteps: 20}\n"))
    assert (recipe.image.num_timesteps, recipe.image.width) == (20, 1024)


def test_parents_have_parents(folder: Path) -> None:
    write(folder, "sub/middle.yaml", "extends: lower/low.yaml\nseed: 4\nthink: true\n")
    write(folder, "sub/lower/low.yaml", BASE.replace("seed: 3", "seed: 5\nmax_context_items: 9"))
    recipe = load(write(folder, "child.yaml", "extends: sub/middle.yaml\nthink: false\n"))
    assert (recipe.seed, recipe.think, recipe.max_context_items) == (4, False, 9)


def test_a_shipped_recipe_is_extended_by_its_name(tmp_path: Path) -> None:
    child = write(tmp_path, "child.yaml", "extends: night-sky\nname: child\n")
    assert load(child).context == load(find("night-sky")).context
    assert load("extends: night-sky\nname: child\n") == load(child)


def test_overrides_come_last(folder: Path) -> None:
    child = write(folder, "child.yaml", "extends: base.yaml\nseed: 4\n")
    assert load(child, overrides={"seed": 5, "refinement_prompts.0": "Darker"}).refinement_prompts[0] == "Darker"


def test_what_is_given_is_whole(folder: Path) -> None:
    child = write(folder, "child.yaml", "extends: base.yaml\nname: child\n")
    data = given(child, {"seed": 8})
    assert data["seed"] == 8
    assert "extends" not in data
    assert load(data) == load(child, overrides={"seed": 8})


def test_a_fault_is_told_at_the_place_where_its_value_was_written(folder: Path) -> None:
    base = write(
        folder,
        "base.yaml",
        "name: Base\nseed: -1\nsead: 1\ncontext: [{text: ''}]\nimage:\n  widht: 1\n  num_timesteps: 1\n"
        "text: {top_k: -1}\nnum_images: 1.5\nthink: &x true\n",
    )
    text = "num_image: 5\nextends: base.yaml\nimage:\n  timestep_shift: 0\n  num_timesteps: 9\nseed: 5\nnum_images: 0\n"
    child = write(folder, "child.yaml", text)
    starts = [line.partition(";")[0] for line in faults(child)]
    assert starts == [
        f"{child}:1:1: unknown field 'num_image'",
        f"{child}:4:19: image.timestep_shift: 0 is too small",
        f"{child}:7:13: num_images: 0 is too small",
        f"{base}:1:7: name: 'Base' is not a name",
        f"{base}:3:1: unknown field 'sead'",
        f"{base}:4:18: context[0].text: is empty",
        f"{base}:6:3: image: unknown field 'widht'",
        f"{base}:8:15: text.top_k: -1 is too small",
        f"{base}:10:8: think: the anchor &x is not allowed",
    ]


def test_a_field_missing_from_a_list_of_the_child_is_not_looked_for_in_the_parent(folder: Path) -> None:
    write(folder, "base.yaml", "name: base\ncontext: [{text: a}, {text: b}]\n")
    child = write(folder, "child.yaml", "extends: base.yaml\ncontext:\n  - {txt: a}\n")
    assert faults(child) == [f"{child}:3:5: context[0]: unknown field 'txt'; did you mean 'text'?"]


def test_a_parent_that_is_no_yaml_is_told_at_its_own_place(folder: Path) -> None:
    base = write(folder, "base.yaml", "name: [\n")
    (line,) = faults(write(folder, "child.yaml", "extends: base.yaml\n"))
    assert line.startswith(f"{base}:2:1: not valid YAML: ")


@pytest.mark.parametrize(
    ("extends", "why"),
    [
        ("other.yaml", "other.yaml: no such file"),
        ("sub", "there is no recipe named 'sub'; allowed: "),
        ("nigth-sky", "did you mean 'night-sky'? allowed: "),
        ("sub/", "'sub/': the path is a folder; allowed: a file in this recipe's folder"),
        ("./sub", "/sub: is a folder; expected a recipe file (YAML)"),
        ("../base.yaml", "'../base.yaml': the path leaves the recipe's folder; allowed: "),
        ("sub/../../base.yaml", "the path leaves the recipe's folder"),
        ("/etc/passwd", "'/etc/passwd': the path is absolute; allowed: "),
        ("link.yaml", "'link.yaml': the path leaves the recipe's folder; allowed: "),
        ("loop.yaml", "loop.yaml"),
        ("${base}.yaml", "${base}.yaml: no such file"),
        ("http://host/base.yaml", "no such file"),
        ('""', "the path is a folder"),
        ("", "is null; allowed: a file"),
        ("[base.yaml]", "is a list; allowed: a file"),
        ("child.yaml", "is circular: child.yaml -> child.yaml"),
    ],
)
def test_a_parent_that_can_not_be_is_told_at_extends(folder: Path, extends: str, why: str) -> None:
    (folder / "sub").mkdir()
    (folder / "link.yaml").symlink_to(find("night-sky"))
    (folder / "loop.yaml").symlink_to(folder / "loop.yaml")
    child = write(folder, "child.yaml", f"name: child\nextends: {extends}\n")
    (line,) = faults(child)
    assert line.startswith(f"{child}:2:{10 if extends else 9}: extends: ")
    assert why in line


def test_what_else_is_wrong_with_the_file_is_told_beside_it(folder: Path) -> None:
    child = write(folder, "child.yaml", "seed: *x\nextends: none.yaml\nseed: 2\n")
    assert [line.removeprefix(f"{child}:")[:4] for line in faults(child)] == ["1:7:", "2:10", "3:1:"]
    child = write(folder, "child.yaml", "extends: *x\n")
    assert faults(child) == [f"{child}:1:10: extends: the alias *x is not allowed; write the value itself"]


def test_a_circle_of_several_is_told_where_it_closes(folder: Path) -> None:
    child = write(folder, "child.yaml", "extends: a.yaml\n")
    write(folder, "a.yaml", "extends: b.yaml\n")
    last = write(folder, "b.yaml", "name: b\nextends: ./sub/../a.yaml\n")
    (line,) = faults(child)
    assert line == f"{last}:2:10: extends: is circular: child.yaml -> a.yaml -> b.yaml -> a.yaml"


def chain(folder: Path, levels: int) -> Path:
    """A recipe with so many others above it."""
    for level in range(1, levels):
        write(folder, f"{level}.yaml", f"extends: {level + 1}.yaml\n")
    write(folder, f"{levels}.yaml", BASE)
    return write(folder, "child.yaml", "extends: 1.yaml\n")


def test_levels_are_counted(folder: Path) -> None:
    assert load(chain(folder, 8)).seed == 3
    (line,) = faults(chain(folder, 9))
    assert line.startswith(f"{folder}/8.yaml:1:10: extends: has more than 8 levels: child.yaml -> 1.yaml -> ")


def test_all_files_together_are_no_larger_than_one_may_be(folder: Path) -> None:
    text = "extends: base.yaml\n#"
    child = write(folder, "child.yaml", text + "x" * (128 * KIB - len(text)))
    base = BASE + "#" + "x" * (128 * KIB - len(BASE) - 1)
    write(folder, "base.yaml", base)
    assert load(child).name == "base"
    write(folder, "base.yaml", base + "x")
    (line,) = faults(child)
    assert line.endswith(
        "base.yaml is too large; allowed: at most 256 KiB for a recipe and all recipes that it extends"
    )


def test_data_extends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "base.yaml", BASE)
    for name in ("base.yaml", "night-sky"):
        assert faults({"extends": name, "name": "a"}) == [
            "extends: is not supported in a recipe given as data; allowed: the complete recipe"
        ]
    assert faults("extends: base.yaml\n") == [
        "<recipe>:1:10: extends: 'base.yaml' is not a shipped recipe, and this recipe was not read from a file; "
        "allowed: the name of a shipped recipe"
    ]


def test_images_of_a_parent_are_beside_the_parent(folder: Path) -> None:
    write(folder, "sub/base.yaml", "name: base\ncontext:\n  - image: photos/a.png\n  - text: Warmer\n")
    write(folder, "sub/photos/a.png", "")
    child = write(folder, "child.yaml", "extends: sub/base.yaml\n")
    assert load(child).context[0] == ImageItem(image="sub/photos/a.png")
    assert given(child)["context"][0] == {"image": "sub/photos/a.png"}
    write(folder, "b.png", "")
    assert load(child, overrides={"context.0.image": "b.png"}).context[0] == ImageItem(image="b.png")


def test_images_elsewhere_stay_where_they_are(folder: Path) -> None:
    write(
        folder, "sub/base.yaml", "name: base\ncontext: [{image: 's3://bucket/a.png'}, {image: ../b.png}, {image: 5}]\n"
    )
    write(folder, "b.png", "")
    child = write(folder, "child.yaml", "extends: sub/base.yaml\n")
    starts = [line.removeprefix(f"{folder}/sub/base.yaml:").partition(";")[0] for line in faults(child)]
    assert starts == [
        "2:49: context[1].image: the path leaves the recipe's folder",
        "2:68: context[2].image: 5 is a whole number",
    ]
    assert load(child, overrides={"context": [{"image": "s3://bucket/a.png"}]}).mode == "editing"


def test_a_missing_image_of_a_parent_is_told_at_its_place(folder: Path) -> None:
    base = write(folder, "sub/base.yaml", "name: base\ncontext: [{image: a.png}]\n")
    (line,) = faults(write(folder, "child.yaml", "extends: sub/base.yaml\n"))
    assert line.startswith(f"{base}:2:19: context[0].image: sub/a.png: no such file; ")


def test_images_beside_a_shipped_recipe_are_out_of_reach_of_one_that_is_elsewhere(tmp_path: Path) -> None:
    child = write(tmp_path, "child.yaml", "extends: edit-photo\n")
    (line,) = faults(child)
    assert line.startswith(
        f"{find('edit-photo')}:6:12: context[0].image: 'inputs/circle-and-triangle.png' is in the folder of the "
    )
    assert line.endswith("; allowed: a context in this recipe, with images in its folder")
    child.write_text("extends: edit-photo\ncontext: [{text: A cat}]\n", encoding="utf-8")
    assert load(child).mode == "generation"
    assert "outside this recipe's folder" in faults("extends: edit-photo\n")[0]
