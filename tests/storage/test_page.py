"""The page of a run shows all of it, needs nothing from elsewhere, and is to the byte the same each time."""

import hashlib
import re
from dataclasses import replace
from typing import Any

import pytest

from storage.journal import Artifact, Manifest
from storage.page import render_page
from tests.storage.drawn import image, tree, variations

DOCUMENT: dict[str, Any] = {
    "name": "magical-forest",
    "seed": 7,
    "context": [{"text": "A magical forest"}, {"image": "inputs/000.png", "sha256": None}, {"image": "s3://b/k.png"}],
}
HOSTILE = "<script>alert('&')</script> küste"


def text(step: int, role: Any, words: str, *, given: bool = False) -> Artifact:
    return Artifact(
        kind="text",
        role=role,
        step=step,
        key=f"steps/{step:03d}-{role}.txt",
        content_type="text/plain; charset=utf-8",
        size=len(words.encode()),
        sha256=hashlib.sha256(words.encode()).hexdigest(),
        given=given,
    )


@pytest.fixture
def manifest() -> Manifest:
    artifacts = (
        text(2, "thinking", "Tall trees."),
        image(3, 0),
        text(4, "refinement", HOSTILE, given=True),
        image(5, 1, 1024),
    )
    return Manifest(
        run_id="r1", name="magical-forest", recipe_sha256="cd" * 32, model="tiny", seed=7, steps=5, artifacts=artifacts
    )


TEXTS = {"steps/002-thinking.txt": "Tall trees.", "steps/004-refinement.txt": HOSTILE}


def test_everything_is_shown_in_its_order(manifest: Manifest) -> None:
    page = render_page(manifest, DOCUMENT, TEXTS).decode()
    shown = ["A magical forest", 'src="inputs/000.png"', "s3://b/k.png", "Tall trees.", 'src="steps/003-image.png"']
    shown += ["refinement, given", "küste", 'src="steps/005-image.png"', "&#34;seed&#34;: 7", "cd" * 32, "ab" * 32]
    places = [page.index(part) for part in shown]
    assert places == sorted(places)
    assert "987654321" in page
    assert 'src="s3://' not in page


def test_the_models_words_are_words_not_markup(manifest: Manifest) -> None:
    page = render_page(manifest, DOCUMENT, TEXTS).decode()
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_nothing_is_fetched_from_elsewhere(manifest: Manifest) -> None:
    page = render_page(manifest, DOCUMENT, TEXTS).decode()
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert links
    assert all(link.startswith(("steps/", "inputs/")) for link in links)
    assert "url(" not in page
    assert "@import" not in page


def test_the_same_run_has_the_same_page(manifest: Manifest) -> None:
    assert render_page(manifest, DOCUMENT, TEXTS) == render_page(manifest, dict(DOCUMENT), dict(TEXTS))


def page_of(*artifacts: Artifact) -> str:
    """The page of a run that made these, without a text."""
    run = Manifest(run_id="r1", name="t", recipe_sha256="cd" * 32, model="tiny", seed=7, steps=9, artifacts=artifacts)
    return render_page(run, DOCUMENT, TEXTS).decode()


def test_the_chosen_variation_is_marked_and_each_has_its_score() -> None:
    page = page_of(*variations(2, 0.125, 0.875, selected=1))
    assert re.findall(r'<figure id="([\w-]+)" class="chosen">', page) == ["image-2-1"]
    assert page.index("<b>chosen</b>") < page.index("score 0.875") < page.index("v0 <span>0.125</span>")
    assert "2 variations" in page
    assert "images <b>1</b> of 2 drawn" in page


def test_a_dropped_try_is_shown_as_one() -> None:
    page = page_of(*variations(2, 0.1), *variations(3, 0.8, attempt=1))
    assert "2 tries" in page
    assert "dropped <span>0.100</span>" in page
    assert "<span>score 0.800</span> <span>try 2</span>" in page


def test_every_image_is_shown_whatever_became_of_it() -> None:
    made = (*variations(2, 0.1, 0.2), *variations(3, 0.8, 0.7, attempt=1), *variations(5, 0.9, index=1), image(7, 2))
    page = page_of(*made)
    assert [made_one.key for made_one in made if f'<img src="{made_one.key}"' not in page] == []


def test_a_tree_is_shown_as_one_with_links_to_each_place() -> None:
    made = tree(3, 2)
    page = page_of(*made, replace(text(4, "refinement", "Tall trees."), path="0", key="steps/002-thinking.txt"))
    overview = page[page.index('<nav class="tree"') : page.index("</nav>")]
    assert all(made_one.key in overview for made_one in made)
    anchors = re.findall(r'href="#([\w.-]+)"', page)
    assert len(set(anchors)) == len(made) + len(("tree", *(f"branch {branch}" for branch in range(6))))
    assert all(f'id="{anchor}"' in page for anchor in anchors)
    assert re.findall(r'<section id="branch-([\d.]+)">', page) == ["0", "0.0", "0.1", "1", "1.0", "1.1"]


def test_the_lines_of_a_tree_join_what_belongs_together() -> None:
    page = page_of(*tree(3, 2))
    cells = re.findall(r'<td(?: class="([\w ]+)")? rowspan="(\d)">', page)
    branch = [("from below", "1"), ("from", "1"), ("from above", "1"), ("from", "1")]
    assert cells == [("", "2"), *branch, ("", "2"), *branch]


def test_a_tree_of_one_level_is_one_row() -> None:
    assert page_of(*tree(1, 64)).count("rowspan=") == 1
