"""A recipe file, text or mapping -> Recipe, or all faults in it at once."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from recipes.defaults import fill_in
from recipes.document import Document, in_order, read_data, read_file, read_text
from recipes.error_messages import type_issues
from recipes.extends import extended, placed, without_parent
from recipes.faults import Fault, FieldPath, RecipeError, RecipeIssue
from recipes.fields import known, suggestion
from recipes.model_spec import ModelSpec
from recipes.overrides import SOURCE, Overridden, override
from recipes.recipe import Recipe
from recipes.rules import NAME, Draft, broken_rules
from recipes.variables import Expanded, escaped, expand


@dataclass(frozen=True, kw_only=True)
class Given:
    """A recipe with its variables and overrides, before any default."""

    document: Document
    """The recipe merged with the recipes that it extends."""
    expanded: Expanded
    overridden: Overridden

    @property
    def data(self) -> dict[str, Any]:
        return self.overridden.data

    def resolve(self, spec: ModelSpec | None) -> Recipe:
        """The recipe with the defaults of the model of `spec` filled in.

        Raises RecipeError with all faults.
        """
        draft = Draft(given=self.data, filled=fill_in(self.data, spec), spec=spec, folder=self.document.folder)
        structural = self._issues()
        try:
            recipe, wrong = _adapter().validate_json(json.dumps(draft.filled)), []
        except ValidationError as error:
            recipe, wrong = None, list(type_issues(error.errors(include_url=False), draft.filled))
        hidden = [issue.path for issue in structural if issue.path and not issue.about_key]
        hidden += [path for path in self.expanded.unresolved if not self.overridden.gave(path)]
        wrong = [one for one in wrong if not any(one.path[: len(path)] == path for path in hidden)]
        wrong += broken_rules(draft, [*hidden, *(one.path for one in wrong)])
        if recipe is None or structural or wrong or self.expanded.faults:
            raise RecipeError([*_located([*structural, *wrong], self, spec), *self.expanded.faults])
        if recipe.mode == "generation":  # image guidance is off if the initial context has no image
            return replace(recipe, image=replace(recipe.image, cfg_img_scale=1.0))
        return recipe

    def _issues(self) -> list[RecipeIssue]:
        """The issues found before types and rules are checked; an override replaces a value with a bad variable."""
        expanded = [one for one in self.expanded.issues if not self.overridden.gave(one.path)]
        return [*self.document.issues, *expanded, *self.overridden.issues]


def load(
    source: Path | str | Mapping[str, Any],
    *,
    overrides: Mapping[str, Any] | None = None,
    variables: Mapping[str, Any] | None = None,
    spec: ModelSpec | None = None,
) -> Recipe:
    """The recipe in a file (a Path), YAML text (a str) or JSON-like data (a mapping), with all defaults filled in.

    Args:
        source: what to load. Image paths in a file are relative to its folder.
        overrides: values that replace those of the recipe, by field, dotted path or bare name of a setting.
        variables: values for `${name}` in the recipe's texts; they take precedence over those under `vars`.
        spec: the model that will run the recipe; gives defaults and the supported image sizes.

    Raises RecipeError with all faults.
    """
    return read(source, overrides=overrides, variables=variables).resolve(spec)


def load_resolved(document: Mapping[str, Any]) -> Recipe:
    """The recipe in a document written by `canonical.to_document`. `${` in its texts is not a variable.

    The document may be from another release: unknown fields are ignored, and missing fields have their defaults.

    Raises RecipeError.
    """
    read_back = read_data(document)
    expanded = Expanded(data=known(read_back.data), uses={})
    return Given(document=read_back, expanded=expanded, overridden=override(expanded.data, None)).resolve(None)


def given(
    source: Path | str | Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The data of a recipe that `load` has checked, before any default: with variables and parents resolved."""
    data: dict[str, Any] = escaped(read(source, overrides=overrides, variables=variables).data)
    return data


def read(
    source: Path | str | Mapping[str, Any],
    *,
    overrides: Mapping[str, Any] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> Given:
    """The recipe before validation.

    Raises RecipeError if it can't be read at all.
    """
    document = _read(source)
    expanded = expand(document, variables)
    data, out_of_reach = placed(expanded.data, document)
    expanded = replace(expanded, data=data, issues=(*expanded.issues, *out_of_reach))
    return Given(document=document, expanded=expanded, overridden=override(data, overrides))


def find(name: str, folder: Path | None = None) -> Path:
    """The file of a shipped recipe by its name, such as `magical-forest`.

    Raises RecipeError, which lists the shipped recipes.
    """
    folder = folder or Path(__file__).parent
    shipped = sorted(path.stem for path in folder.glob("*.yaml"))
    if name in shipped and re.fullmatch(NAME, name):
        return folder / f"{name}.yaml"
    remedy = " ".join(part for part in (suggestion(name, shipped), f"allowed: {', '.join(shipped)}") if part)
    message = f"there is no recipe named {name[:80]!r}; {remedy}"
    raise RecipeError([Fault(path=(), message=message)])


def _read(source: Path | str | Mapping[str, Any]) -> Document:
    if isinstance(source, Path):
        return extended(read_file(source), file=source, shipped=find)
    if isinstance(source, str):
        return extended(read_text(source), file=None, shipped=find)
    return without_parent(read_data(source))


@cache
def _adapter() -> TypeAdapter[Recipe]:
    return TypeAdapter(Recipe)


def _located(issues: list[RecipeIssue], given: Given, spec: ModelSpec | None) -> Iterator[Fault]:
    """The faults with their sources: those of the document in its order, of the model's defaults, of the overrides."""
    document, overridden, uses = given.document, given.overridden, given.expanded.uses
    own, from_model, from_overrides = [], [], []
    for issue in in_order(issues, overridden.data, lambda issue: document.fault(issue).position):
        fault = document.fault(issue)
        if issue in overridden.issues or overridden.gave(issue.path):
            from_overrides.append(replace(fault, source=SOURCE, position=None))
        elif spec and _from_model(issue.path, overridden.data, spec):
            from_model.append(replace(fault, source=f"the defaults of {spec.name}", position=None))
        elif issue.path in uses and issue not in given.expanded.issues:
            names = ", ".join(f"${{{name}}}" for name in uses[issue.path])
            own.append(fault.with_note(f"from {names}"))
        else:
            own.append(fault)
    yield from (*own, *from_model, *from_overrides)


def _from_model(path: FieldPath, given: Mapping[str, Any], spec: ModelSpec) -> bool:
    """Whether the value at `path` is one of the model's defaults."""
    group, name = (*map(str, path), "", "")[:2]
    return name in spec.defaults(group) and name not in (given.get(group) or {})
