"""Runs are compared by their places in the sequence, whatever their steps are numbered and wherever they came from."""

from typing import Any

import pytest
from PIL import Image
from rich.console import Console, Group

from storage.errors import CorruptRecordError
from tests.worker.history.test_branch import BRANCH, LANGUAGE, PARENT, Bucket
from tests.worker.serving import picture_uri, recipe
from worker.cli.sheets.difference_sheet import MAX_ROWS, difference_sheet
from worker.cli.views.difference import difference_view, word_difference
from worker.history.diff import Difference, Pair, compare, load_image
from worker.history.history import read_history
from worker.history.lineage import read_lineage


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


def compared(bucket: Bucket, one: str = PARENT, other: str = BRANCH) -> Difference:
    return compare(one, other, bucket.journal)


def outline(found: Difference) -> list[tuple[str, str]]:
    """Each place, and which runs have it: = both the same, ! both, differently, < or > one of them."""
    return [(str(pair.place), sign(pair)) for pair in found.pairs]


def sign(pair: Pair) -> str:
    if pair.one is None or pair.other is None:
        return ">" if pair.one is None else "<"
    return "=" if pair.same else "!"


@pytest.mark.parametrize("document", LANGUAGE.values(), ids=LANGUAGE)
def test_runs_of_one_recipe_are_the_same(bucket: Bucket, document: dict[str, Any]) -> None:
    bucket.run(PARENT, document)
    bucket.run(BRANCH, document)
    found = compared(bucket)
    assert found.same
    assert {pair.distance for pair in found.pairs} <= {None, 0.0}
    assert len(found.pairs) == len(found.one.items) == len({pair.place for pair in found.pairs})
    assert difference_sheet(found) is None


def test_another_seed_changes_what_is_made_and_not_what_is_given(bucket: Bucket) -> None:
    bucket.run(PARENT, recipe())
    bucket.run(BRANCH, recipe(seed=6, refinement_prompts=["Bigger"]))
    found = compared(bucket)
    assert [(one.field, one.one, one.other) for one in found.changes] == [
        ("seed", 5, 6),
        ("refinement_prompts.0", None, "Bigger"),
    ]
    assert outline(found) == [
        ("given item 1", "="),
        ("thinking before image 1", "!"),
        ("image 1", "!"),
        ("refinement before image 2", "!"),
        ("thinking before image 2", "!"),
        ("image 2", "!"),
    ]
    assert str(found.first_divergence.place) == "thinking before image 1" if found.first_divergence else False
    assert all(0 < pair.distance < 255 for pair in found.pairs if pair.distance is not None)


def test_runs_of_different_length_and_shape_are_laid_side_by_side(bucket: Bucket) -> None:
    bucket.run(PARENT, recipe(num_images=2))
    bucket.run(BRANCH, recipe(num_images=3, think=False))
    assert [place for place in outline(compared(bucket)) if place[1] in "<>"] == [
        ("thinking before image 1", "<"),
        ("thinking before image 2", "<"),
        ("refinement before image 3", ">"),
        ("image 3", ">"),
    ]


@pytest.mark.parametrize("name", ["plain", "forgetful", "forgetful, nothing pinned", "edit"])
def test_a_branch_shares_everything_up_to_where_it_branched_off(bucket: Bucket, name: str) -> None:
    bucket.run(PARENT, LANGUAGE[name])
    history = read_history(bucket.journal(PARENT))
    at = next(commit.step for commit in history.commits if commit.artifacts and commit.artifacts[0].index == 1)
    bucket.run(BRANCH, {**bucket.branched(at), "seed": 77})
    found = compared(bucket)
    assert [change.field for change in found.changes] == ["seed"]
    signs = [sign(pair) for pair in found.pairs]
    shared = signs.index("!")
    assert signs[:shared] == ["="] * shared
    assert found.first_divergence is not None
    assert found.first_divergence.place.images == 2
    assert (found.first_divergence.one, found.first_divergence.other) != (None, None)
    assert [pair.one and pair.one.run_id for pair in found.pairs[:shared]] == [PARENT] * shared
    assert "<" not in signs[:shared]


def test_a_branch_of_a_tree_is_compared_with_its_part_of_the_tree(bucket: Bucket) -> None:
    bucket.run(PARENT, LANGUAGE["tree"])
    bucket.run(BRANCH, {**bucket.branched(3, variation=1), "seed": 77})
    assert outline(compared(bucket))[:6] == [
        ("given item 1", "="),
        ("thinking before image 1", "="),
        ("image 1, variation 1", "="),
        ("branch 1, refinement before image 2", "!"),
        ("branch 1, thinking before image 2", "!"),
        ("branch 1, image 2", "!"),
    ]
    assert {sign for _, sign in outline(compared(bucket))} == {"=", "!"}


def test_a_branch_deep_in_a_tree_has_the_way_that_leads_there(bucket: Bucket) -> None:
    bucket.run(PARENT, LANGUAGE["tree"])
    history = read_history(bucket.journal(PARENT))
    at = next(step.number for step in history.steps if step.path == (1, 0))
    bucket.run(BRANCH, {**bucket.branched(at), "seed": 77})
    found = compared(bucket)
    assert outline(found)[3:] == [
        ("branch 1, refinement before image 2", "="),
        ("branch 1, thinking before image 2", "="),
        ("branch 1, image 2", "="),
        ("branch 1.0, refinement before image 3", "="),
        ("branch 1.0, thinking before image 3", "!"),
        ("branch 1.0, image 3", "!"),
        ("branch 1.0, image 3, variation 1", "!"),
    ]


def test_branches_of_two_branches_part_at_the_image_that_they_went_on_from(bucket: Bucket) -> None:
    bucket.run(PARENT, LANGUAGE["tree"])
    bucket.run("run-a", bucket.branched(4))
    bucket.run("run-b", bucket.branched(3, variation=1))
    found = compared(bucket, "run-a", "run-b")
    assert outline(found)[2:5] == [
        ("image 1", "!"),
        ("image 1, variation 1", "!"),
        ("branch 1, refinement before image 2", ">"),
    ]
    assert "the same image, selected in one run only" in " ".join(shown(found))


def test_a_branch_from_another_variation_parts_at_the_choice(bucket: Bucket) -> None:
    bucket.run(PARENT, recipe(think=False, variations_per_image=2))
    bucket.run(BRANCH, bucket.branched(2, variation=1))
    found = compared(bucket)
    assert outline(found)[:3] == [("given item 1", "="), ("image 1", "!"), ("image 1, variation 1", "!")]
    assert found.pairs[1].distance == 0
    assert not found.changes


def test_branches_of_one_run_are_compared_from_its_beginning(bucket: Bucket) -> None:
    bucket.run(PARENT, recipe(num_images=3))
    bucket.run("run-a", {**bucket.branched(3), "seed": 77})
    bucket.run("run-b", bucket.branched(6))
    bucket.run("run-c", {**LANGUAGE["plain"]})
    found = compared(bucket, "run-a", "run-b")
    assert [sign(pair) for pair in found.pairs] == ["=", "=", "="] + ["!"] * 6
    assert compared(bucket, "run-b", "run-c").first_divergence is None
    assert read_lineage(read_history(bucket.journal("run-b")), bucket.journal).images == 2


def test_a_branch_whose_parent_is_gone_begins_with_what_it_was_given(bucket: Bucket) -> None:
    bucket.run(PARENT, recipe(num_images=3))
    bucket.run("run-a", {**bucket.branched(3), "seed": 77})
    bucket.run("run-b", bucket.branched(3))
    for key in list(bucket.objects.list(bucket.journal(PARENT).folder)):
        bucket.objects.delete(key)
    found = compared(bucket, "run-a", "run-b")
    assert [str(pair.place) for pair in found.pairs[:4]] == [
        "given item 1",
        "given item 2",
        "given item 3",
        "refinement before image 1",
    ]
    assert [sign(pair) for pair in found.pairs[:4]] == ["=", "=", "=", "!"]


def test_a_branch_whose_context_was_changed_is_a_run_like_any_other(bucket: Bucket) -> None:
    bucket.run(PARENT, recipe())
    bucket.run(BRANCH, {**bucket.branched(3), "context": [{"text": "A dog"}]})
    found = compared(bucket)
    assert found.other.fork_point is None
    assert found.changes[0].field == "context.0.text"


def test_given_pictures_are_compared_too(bucket: Bucket) -> None:
    bucket.run(PARENT, recipe(context=[{"image": picture_uri()}, {"text": "In winter"}], num_images=1, think=False))
    bucket.run(
        BRANCH, recipe(context=[{"image": picture_uri("navy")}, {"text": "In winter"}], num_images=1, think=False)
    )
    found = compared(bucket)
    assert outline(found)[0] == ("given item 1", "!")
    assert found.pairs[0].distance == pytest.approx((0 + 128 + 0) / 3)
    assert isinstance(difference_sheet(found), Image.Image)


def test_pictures_of_different_sizes_have_no_distance(bucket: Bucket) -> None:
    bucket.run(PARENT, recipe(num_images=1))
    bucket.run(BRANCH, recipe(num_images=1, image={"width": 128, "height": 64}))
    pair = compared(bucket).pairs[-1]
    assert (pair.same, pair.distance) == (False, None)


def test_a_run_under_way_is_compared_as_far_as_it_is(bucket: Bucket) -> None:
    bucket.run(PARENT, recipe(num_images=2))
    bucket.run(BRANCH, recipe(num_images=2), stop_after=3)
    found = compared(bucket)
    assert [sign(pair) for pair in found.pairs] == ["=", "=", "=", "<", "<", "<"]
    assert (found.one.is_done, found.other.is_done) == (True, False)


def test_a_sheet_begins_with_the_last_common_picture_and_has_an_end(bucket: Bucket) -> None:
    bucket.run(PARENT, recipe(num_images=4, think=False))
    bucket.run(BRANCH, {**bucket.branched(6), "seed": 77})
    bucket.run("many", recipe(num_images=MAX_ROWS + 3, think=False))
    few, all_of_them = (difference_sheet(compared(bucket, PARENT, other)) for other in (BRANCH, "many"))
    assert few is not None
    assert all_of_them is not None
    bucket.run("more", recipe(num_images=64, think=False))
    more = difference_sheet(compared(bucket, PARENT, "more"))
    assert more is not None
    assert few.height < all_of_them.height / 10
    assert abs(more.height - all_of_them.height) < 100


def shown(found: Difference) -> list[str]:
    """What people read, line by line."""
    console = Console(width=1000)
    with console.capture() as printed:
        console.print(Group(*difference_view(found)))
    return [line.rstrip() for line in printed.get().splitlines()]


def test_the_same_from_different_recipes_is_said_to_be_that(bucket: Bucket) -> None:
    bucket.run(PARENT, recipe(num_images=1))
    bucket.run(BRANCH, recipe(num_images=1, name="other", refine_instruction="Be bold\n" * 100))
    *legend, first, _, heading, name, instruction, _ = shown(compared(bucket))
    assert legend == ["A  run-1", "B  run-2"]
    assert first == "A and B generated the same, byte for byte, from different recipes."
    assert [line.split()[:3] for line in (heading, name)] == [["recipe", "A", "B"], ["name", "test", "other"]]
    assert instruction.split()[:3] == ["refine_instruction", "null", "Be"]


def test_what_is_not_there_yet_is_told_from_what_never_will_be(bucket: Bucket) -> None:
    bucket.run(PARENT, recipe(num_images=2))
    bucket.run(BRANCH, recipe(num_images=2), stop_after=3)
    bucket.run("short", recipe(num_images=1))
    under_way, short = shown(compared(bucket)), shown(compared(bucket, PARENT, "short"))
    assert under_way[:3] == [
        "A  run-1",
        "B  run-2, not complete: 3 of 6 steps",
        "First difference: refinement before image 2 (step 4 of A).",
    ]
    assert under_way[-1].split("  ")[0] == "image 2"
    assert "not yet" in under_way[-1]
    assert "none" in short[-1]
    assert "only in A: " in short[-2]


def test_a_given_text_against_a_given_picture_is_a_difference(bucket: Bucket) -> None:
    bucket.run(PARENT, recipe(context=[{"image": picture_uri()}, {"text": "A cat"}], num_images=1, think=False))
    bucket.run(BRANCH, recipe(context=[{"text": "Look"}, {"text": "A cat"}], num_images=1, think=False))
    found = compared(bucket)
    assert any(line.endswith("a text and an image") for line in shown(found))
    assert difference_sheet(found) is not None


def test_a_dropped_try_is_told_to_be_one(bucket: Bucket) -> None:
    bucket.run(PARENT, recipe(num_images=1, think=False, retry={"below": 1.0, "times": 1}))
    bucket.run(BRANCH, recipe(num_images=1, think=False, seed=6, image={"width": 128, "height": 64}))
    lines = shown(compared(bucket))
    assert any(line.endswith("of different sizes") for line in lines)
    assert any(line.startswith("image 1, try 2") and line.endswith("only in A") for line in lines)


def test_words_are_told_apart() -> None:
    found = word_difference("a small red star", "a large red star, high")
    assert found.plain == "a [-small-]{+large+} red star{+, high+}"


def test_a_picture_that_can_not_be_read_is_named(bucket: Bucket) -> None:
    bucket.run(PARENT, recipe(num_images=1))
    bucket.run(BRANCH, recipe(num_images=1, seed=6))
    bucket.journal(BRANCH).put("steps/003-image.png", b"nothing", content_type="")
    with pytest.raises(CorruptRecordError, match=r"003-image.png: is not a readable image"):
        compared(bucket)
    entry = read_lineage(read_history(bucket.journal(PARENT)), bucket.journal).items[-1]
    assert load_image(entry).size == (64, 64)
