"""What `autoseq show` says of the images of a run: which branch, variation and try they are, and what came of them."""

from dataclasses import replace

from storage.journal import Journal
from storage.objects.memory import MemoryStore
from tests.storage.drawn import image, tree, variations
from worker.cli.views.tables import artifact_lines

JOURNAL = Journal(MemoryStore(), "", "r")


def test_variations_are_told_apart_and_the_chosen_one_named() -> None:
    lines = artifact_lines([image(2), *variations(3, 0.25, 0.5, index=1, selected=1)], JOURNAL).plain.splitlines()
    assert lines[0].split()[:3] == ["2", "image", "1"]
    assert "(" not in lines[0]
    assert lines[1].startswith("  3  image 2 ")
    assert lines[1].endswith("003-image.v0.png (score 0.250, dropped)")
    assert lines[2].startswith("  3  image 2 v1 ")
    assert lines[2].endswith("(score 0.500, selected)")


def test_a_try_that_a_better_one_replaced_is_dropped() -> None:
    lines = artifact_lines([*variations(2, 0.25), *variations(3, 0.5, attempt=1)], JOURNAL).plain.splitlines()
    assert [line.partition(" (")[2] for line in lines] == ["score 0.250, dropped)", "attempt 2, score 0.500, selected)"]


def test_a_tree_is_told_by_its_branches() -> None:
    made = tree(2, 2)
    store = MemoryStore()
    store.put("r/t.txt", b"Bigger", content_type="text/plain")
    words = replace(made[0], kind="text", role="refinement", key="t.txt", path="0", index=None)
    lines = artifact_lines([*made[:2], words, *made[2:]], Journal(store, "", "r")).plain.splitlines()
    assert [line[:16] for line in lines[:2]] == ["  2  0 image 1  ", "  2  1 image 1  "]
    assert lines[2] == "  2  0 refinement Bigger"
    assert lines[3].startswith("  3  0.0 image 2  ")
