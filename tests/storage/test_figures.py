"""What a run drew is told place by place: what went on, what stood beside it, what was dropped."""

from dataclasses import replace

from storage.figures import branches_to, figures, image_name
from tests.storage.drawn import image, tree, variations


def test_images_alone_are_figures_of_their_own() -> None:
    first, second = figures([image(2, 0), image(4, 1)])
    assert first.is_single
    assert (first.step, first.index, second.step, second.index) == (2, 0, 4, 1)
    assert first.selected == (image(2, 0),)


def test_the_variations_beside_the_chosen_one_are_others() -> None:
    drawn = variations(2, 0.1, 0.9, 0.3, selected=1)
    (figure,) = figures(drawn)
    assert figure.selected == (drawn[1],)
    assert figure.others == (drawn[0], drawn[2])
    assert figure.dropped == ()
    assert (figure.variations, figure.attempts, figure.is_single) == (3, 1, False)


def test_all_of_a_try_that_came_to_nothing_is_dropped() -> None:
    low = variations(2, 0.1, 0.2, selected=1)
    better = variations(3, 0.8, 0.3, attempt=1)
    worse = variations(4, 0.5, 0.4, attempt=2, selected=None)
    (figure,) = figures([*low, *better, *worse])
    assert figure.selected == (better[0],)
    assert figure.others == (better[1],)
    assert figure.dropped == (*low, *worse)
    assert (figure.step, figure.attempts) == (2, 3)


def test_a_tree_has_a_figure_for_each_branch_and_knows_what_it_came_from() -> None:
    trunk, left, right = figures(tree(2, 2))
    assert [figure.branch for figure in (trunk, left, right)] == ["", "0", "1"]
    assert all(figure.forks and len(figure.selected) == 2 for figure in (trunk, left, right))
    assert trunk.continued_by(right) == trunk.selected[1]
    assert left.continued_by(right) is None


def test_a_branch_that_was_drawn_again_goes_on_from_its_better_try() -> None:
    first, second = tree(1, 2)
    again = replace(second, step=3, attempt=1, key="steps/003-image.v1.png", score=0.9)
    (figure,) = figures([first, second, again])
    assert figure.selected == (first, again)
    assert figure.dropped == (second,)


def test_images_have_names_that_people_use() -> None:
    assert [image_name(None), image_name(1), image_name(1, variation=2)] == ["image", "image 2", "image 2 v2"]
    assert image_name(1, path="0.1", variation=1) == "0.1 image 2"
    assert list(branches_to("0.1.1")) == ["0", "0.1", "0.1.1"]
    assert list(branches_to("")) == []
