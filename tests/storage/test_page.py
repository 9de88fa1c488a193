"""The page of a run shows all of it, needs nothing from elsewhere, and is to the byte the same each time."""

import hashlib
import json
import random
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from html import unescape
from types import MappingProxyType
from typing import Any

import pytest
from PIL import Image

from storage.journal import Artifact, Manifest
from storage.page import render_page
from storage.thumbnails import thumbnail
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


def test_an_image_with_a_thumbnail_is_shown_by_it_and_linked_by_its_place(manifest: Manifest) -> None:
    page = render_page(manifest, DOCUMENT, TEXTS, {"steps/003-image.png": b"abc", "inputs/000.png": b"def"}).decode()
    assert 'href="steps/003-image.png"' in page
    assert 'href="inputs/000.png"' in page
    linked, embedded = (
        re.findall(r'src="(?!data:)([^"]*)"', page),
        re.findall(r'src="data:image/webp;base64,(\w+)"', page),
    )
    assert linked == ["steps/005-image.png"]
    assert embedded == ["ZGVm", "YWJj"]
    assert re.findall(r"url\(([^)]*)\)", page) == ["inputs/000.png", "steps/003-image.png"], (
        "laid over, where they load"
    )


def test_each_thumbnail_of_a_tree_is_embedded_twice_however_often_it_is_shown() -> None:
    made = tree(3, 2)
    page = page_of(*made, thumbnails={one.key: f"{number:03d}".encode() for number, one in enumerate(made)})
    assert {page.count(b64encode(f"{number:03d}".encode()).decode()) for number in range(len(made))} == {2}
    assert len(re.findall('<i class="thumbnail image-2-0"', page)) > 1
    assert not re.search(r'src="steps/', page)


def test_a_page_with_very_many_images_stays_small() -> None:
    made = tree(6, 2)
    noise = Image.frombytes("RGB", (256, 256), random.Random(1).randbytes(256 * 256 * 3))
    page = page_of(*made, thumbnails=dict.fromkeys((one.key for one in made), thumbnail(noise)))
    assert len(page) < 2_000_000
    assert page.count("data:image/webp") == 2 * len(made)


def test_text_is_isolated_and_without_hidden_characters(manifest: Manifest) -> None:
    hostile = "\u202eevil\x07\u2066 \u05d0\u200f"
    document = DOCUMENT | {"name": hostile, "context": [{"text": hostile}]}
    texts = TEXTS | {"steps/004-refinement.txt": hostile}
    page = render_page(replace(manifest, name=hostile, model=hostile), document, texts).decode()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)
    shown = "evil \u05d0\u200f"
    assert page.count(f'<p dir="auto">{shown}</p>') == 2
    assert f'<h1 dir="auto">{shown}</h1>' in page
    assert f"<bdi>{shown}</bdi>" in page
    recipe = re.search("<pre>(.*)</pre>", page, re.DOTALL)
    assert recipe
    assert json.loads(unescape(recipe[1])) == document, "escaped there, so that it still is the recipe"


def page_of(*artifacts: Artifact, thumbnails: Mapping[str, bytes] = MappingProxyType({})) -> str:
    """The page of a run that made these, without a text."""
    run = Manifest(run_id="r1", name="t", recipe_sha256="cd" * 32, model="tiny", seed=7, steps=9, artifacts=artifacts)
    return render_page(run, DOCUMENT, TEXTS, thumbnails).decode()


def test_the_chosen_variation_is_marked_and_each_has_its_score() -> None:
    page = page_of(*variations(2, 0.125, 0.875, selected=1))
    assert re.findall(r'<figure id="([\w-]+)" class="selected">', page) == ["image-2-1"]
    assert page.index("<b>selected</b>") < page.index("score 0.875") < page.index("v0 <span>0.125</span>")
    assert "2 variations" in page
    assert "images <b>1</b> of 2 drawn" in page


def test_a_dropped_try_is_shown_as_one() -> None:
    page = page_of(*variations(2, 0.1), *variations(3, 0.8, attempt=1))
    assert "2 attempts" in page
    assert "dropped <span>0.100</span>" in page
    assert "<span>score 0.800</span> <span>attempt 2</span>" in page


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
