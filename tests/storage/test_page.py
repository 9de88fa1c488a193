"""The page of a run shows all of it, needs nothing from elsewhere, and is to the byte the same each time."""

import hashlib
import re
from typing import Any

import pytest

from storage.journal import Artifact, Manifest
from storage.page import render_page

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


def image(step: int, index: int, size: int = 64) -> Artifact:
    return Artifact(
        kind="image",
        role="image",
        step=step,
        key=f"steps/{step:03d}-image.png",
        content_type="image/png",
        size=12_345,
        sha256="ab" * 32,
        index=index,
        seed=987_654_321,
        width=size,
        height=size,
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
