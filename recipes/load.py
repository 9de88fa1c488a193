"""A recipe file, text or mapping -> Recipe, or every fault in it at once."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from recipes.card import ModelCard
from recipes.defaults import fill_in
from recipes.document import Document, in_order, read_data, read_file, read_text
from recipes.faults import Fault, FieldPath, Finding, RecipeError
from recipes.overrides import SOURCE, Overridden, override
from recipes.recipe import Recipe
from recipes.rules import NAME, Draft, broken_rules
from recipes.wording import type_faults


def load(
    source: Path | str | Mapping[str, Any],
    *,
    overrides: Mapping[str, Any] | None = None,
    card: ModelCard | None = None,
) -> Recipe:
    """The recipe in a file (a Path), in YAML text (a str) or in JSON-like data (a mapping), every default filled in.

    Args:
        source: what to load. Image paths of a file are looked up beside it.
        overrides: values that win over the recipe's own, by field, dotted path or the bare name of a setting.
        card: the model that will run it: the source of its defaults, and of the sizes it can draw.

    Raises RecipeError, which holds all the faults.
    """
    document = _read(source)
    overridden = override(document.data, overrides)
    draft = Draft(given=overridden.data, filled=fill_in(overridden.data, card), card=card, folder=document.folder)
    structural = (*document.findings, *overridden.findings)
    try:
        recipe, wrong = _adapter().validate_json(json.dumps(draft.filled)), []
    except ValidationError as error:
        recipe, wrong = None, list(type_faults(error.errors(include_url=False), draft.filled))
    hidden = [finding.path for finding in structural if finding.path and not finding.about_key]
    wrong = [one for one in wrong if not any(one.path[: len(path)] == path for path in hidden)]
    wrong += broken_rules(draft, [*hidden, *(one.path for one in wrong)])
    if recipe is None or structural or wrong:
        raise RecipeError(_located([*structural, *wrong], document, overridden, card))
    if recipe.mode == "generation":  # rule 1 of the plan: image guidance is off without an image to begin with
        return replace(recipe, image=replace(recipe.image, cfg_img_scale=1.0))
    return recipe


def given(source: Path | str | Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a recipe and its overrides say themselves, before any default: a recipe as data that `load` has checked."""
    return override(_read(source).data, overrides).data


def find(name: str, folder: Path | None = None) -> Path:
    """The file of a shipped recipe by its bare name, `magical-forest`. Raises RecipeError that lists what there is."""
    folder = folder or Path(__file__).parent
    shipped = sorted(path.stem for path in folder.glob("*.yaml"))
    if name in shipped and re.fullmatch(NAME, name):
        return folder / f"{name}.yaml"
    close = get_close_matches(name, shipped, n=1)
    remedy = f"did you mean '{close[0]}'? " if close else ""
    message = f"there is no recipe named {name[:80]!r}; {remedy}allowed: {', '.join(shipped)}"
    raise RecipeError([Fault(path=(), message=message)])


def _read(source: Path | str | Mapping[str, Any]) -> Document:
    if isinstance(source, Path):
        return read_file(source)
    return read_text(source) if isinstance(source, str) else read_data(source)


@cache
def _adapter() -> TypeAdapter[Recipe]:
    return TypeAdapter(Recipe)


def _located(
    findings: list[Finding], document: Document, overridden: Overridden, card: ModelCard | None
) -> Iterator[Fault]:
    """The faults with their sources: the document's in its order, the model's defaults', then the overrides'."""
    own, defaults, theirs = [], [], []
    for finding in in_order(findings, overridden.data, lambda finding: document.fault(finding).mark):
        fault = document.fault(finding)
        if finding in overridden.findings or overridden.gave(finding.path):
            theirs.append(replace(fault, source=SOURCE, mark=None))
        elif card and _from_card(finding.path, overridden.data, card):
            defaults.append(replace(fault, source=f"the defaults of {card.name}", mark=None))
        else:
            own.append(fault)
    yield from (*own, *defaults, *theirs)


def _from_card(path: FieldPath, given: Mapping[str, Any], card: ModelCard) -> bool:
    """Whether the value at `path` is a default of the model."""
    group, name = (*path, None, None)[:2]
    defaults = {"text": card.text_defaults, "image": card.image_defaults}.get(str(group), {})
    return name in defaults and name not in (given.get(str(group)) or {})
