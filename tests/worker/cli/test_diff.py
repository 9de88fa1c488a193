"""`autoseq diff`, through real services and workers."""

import json

from PIL import Image

from tests.worker.serving import DEADLINE_S, recipe
from tests.worker.shell import Shell, one_error, said
from worker.client import Client


def test_a_branch_differs_from_its_parent_where_it_was_changed(serving: Shell, parent: str) -> None:
    branch = said(serving("branch", parent, "--at", "4", "--set", "seed=9", "--watch")).strip()
    result = serving("diff", parent, branch)
    lines = said(result).splitlines()
    assert lines[:3] == [
        f"A  {parent}",
        f"B  {branch}, branched off A at step 4",
        "First difference: thinking before image 2 (step 5 of A, step 5 of B).",
    ]
    cells = [line.split("\t") for line in lines]
    assert cells[4:6] == [["recipe", "A", "B"], ["seed", "5", "9"]]
    assert cells[11] == ["refinement before image 2", "step 4", "step 4 of B's parent", "the same"]
    assert cells[12][:3] == ["thinking before image 2", "step 5", "step 5"]
    assert "{+" in cells[12][3]
    assert "mean absolute difference" in cells[13][3]
    assert "Use --out FILE.png to write the images side by side." in result.stderr
    assert list(serving.folder.iterdir()) == []


def test_images_go_side_by_side_into_a_file(serving: Shell, parent: str) -> None:
    branch = said(serving("branch", parent, "--at", "4", "--set", "seed=9", "--watch")).strip()
    result = serving("diff", parent, branch, "--out", "sheet.png")
    assert "Images written to sheet.png." in result.stderr
    with Image.open(serving.folder / "sheet.png") as sheet:
        assert sheet.width > 2 * 256


def test_the_difference_comes_as_json(serving: Shell, parent: str) -> None:
    branch = said(serving("branch", parent, "--at", "4", "--set", "seed=9", "--watch")).strip()
    found = json.loads(said(serving("diff", parent, branch, "--json", "--out", "sheet.png")))
    assert (found["same"], found["first_divergence"]) == (False, "thinking before image 2")
    assert found["recipe"] == [{"field": "seed", "values": [5, 9]}]
    assert found["sheet"] == str(serving.folder / "sheet.png")
    assert [place["same"] for place in found["places"]] == [True, True, True, True, False, False]
    assert found["places"][-1]["mean_absolute_difference"] > 0


def test_runs_of_one_recipe_are_the_same(serving: Shell, parent: str, client: Client) -> None:
    other = client.submit(recipe())
    client.result(other, timeout_s=DEADLINE_S)
    result = serving("diff", parent, other, "--out", "sheet.png")
    assert said(result) == f"A  {parent}\nB  {other}\nA and B are the same, byte for byte.\n\n"
    assert "The images are the same; sheet.png was not written." in result.stderr
    assert list(serving.folder.iterdir()) == []


def test_a_run_that_is_not_there_differs_from_nothing(serving: Shell, parent: str) -> None:
    assert "run nope: there is no such run" in one_error(serving("diff", parent, "nope"), code=2)
