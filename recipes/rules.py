"""The rules of a recipe that the bounds of single fields can't express."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from recipes.faults import Fault, FieldPath, RecipeError, RecipeIssue
from recipes.model_spec import ModelSpec
from recipes.recipe import INSTRUCTION, MAX_IMAGES, Recipe
from recipes.reference import ALLOWED, FileReference, ImageReferenceError, parse_reference

NAME = r"^[a-z0-9][a-z0-9-]{0,63}$"
MODEL = r"^[a-z0-9][a-z0-9._-]{0,63}$"
SHA256 = r"^[0-9a-f]{64}$"
PARENT = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}@[1-9][0-9]{0,5}$"

_SIDES = ("width", "height")


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A recipe during validation: as given, and with all defaults filled in."""

    given: Mapping[str, Any]
    filled: Mapping[str, Any]
    spec: ModelSpec | None
    folder: Path | None

    @property
    def editing(self) -> bool:
        return holds_image(self.filled.get("context"))


def holds_image(context: object) -> bool:
    """Whether a context, valid or not, has an image item, which makes the mode editing."""
    return isinstance(context, list) and any(isinstance(item, dict) and "image" in item for item in context)


def check(recipe: Recipe, spec: ModelSpec | None) -> None:
    """Check a recipe that was created in Python.

    Raises RecipeError.
    """
    filled = asdict(recipe)
    filled["context"] = list(filled["context"])
    draft = Draft(given=filled, filled=filled, spec=spec, folder=None)
    if found := list(broken_rules(draft, ())):
        raise RecipeError(Fault(path=issue.path, message=issue.message) for issue in found)


def broken_rules(draft: Draft, faulty: Sequence[FieldPath]) -> Iterator[RecipeIssue]:
    """The issues with the rules. Rules that depend on a `faulty` field are skipped."""
    for needed, rule in _RULES:
        paths = [tuple(name.split(".")) for name in needed]
        if not any(_overlap(path, fault) for path in paths for fault in faulty):
            yield from rule(draft)


def _overlap(path: FieldPath, other: FieldPath) -> bool:
    return all(a == b for a, b in zip(path, other, strict=False))


def _name(draft: Draft) -> Iterator[RecipeIssue]:
    if not re.fullmatch(NAME, draft.filled["name"]):
        allowed = "1 to 64 lower-case letters, digits and dashes, not starting with a dash"
        yield RecipeIssue(path=("name",), message=f"{draft.filled['name'][:80]!r} is not a name; allowed: {allowed}")


def _model(draft: Draft) -> Iterator[RecipeIssue]:
    model = draft.filled["model"]
    if model is not None and not re.fullmatch(MODEL, model):
        allowed = "1 to 64 lower-case letters, digits, dots, dashes and underscores, starting with a letter or digit"
        yield RecipeIssue(path=("model",), message=f"{model[:80]!r} is not a model name; allowed: {allowed}")


def _model_sha256(draft: Draft) -> Iterator[RecipeIssue]:
    pin = draft.filled["model_sha256"]
    yield from _sha256(("model_sha256",), pin)
    spec = draft.spec
    if pin is not None and spec and spec.sha256 not in (None, pin) and re.fullmatch(SHA256, pin):
        message = f"pins {pin}, and the fingerprint of the model {spec.name!r} is {spec.sha256}"
        yield RecipeIssue(path=("model_sha256",), message=f"{message}; allowed: that fingerprint, or no pin")


def _sha256(path: FieldPath, pin: object) -> Iterator[RecipeIssue]:
    if isinstance(pin, str) and not re.fullmatch(SHA256, pin):
        message = f"{pin[:80]!r} is not a SHA-256; allowed: 64 lower-case hexadecimal digits"
        yield RecipeIssue(path=path, message=message)


def _parent(draft: Draft) -> Iterator[RecipeIssue]:
    parent = draft.filled["parent"]
    if parent is not None and not re.fullmatch(PARENT, parent):
        message = f"{parent[:80]!r} is not a step of a run; allowed: RUN@STEP, a run id and a step number"
        yield RecipeIssue(path=("parent",), message=message)


def _images(draft: Draft) -> Iterator[RecipeIssue]:
    context = draft.filled.get("context")
    for index, item in enumerate(context if isinstance(context, list) else ()):
        if not holds_image([item]) or "text" in item:
            continue
        if isinstance(item["image"], str) and (why := _unreachable(item["image"], draft.folder)):
            yield RecipeIssue(path=("context", index, "image"), message=why)
        yield from _sha256(("context", index, "sha256"), item.get("sha256"))


def _unreachable(image: str, folder: Path | None) -> str | None:
    """Why an image reference can't be used; checks that files exist if the recipe's folder is known."""
    try:
        reference = parse_reference(image)
    except ImageReferenceError as error:
        return f"{error}; allowed: {ALLOWED}"
    if folder and isinstance(reference, FileReference):
        try:
            found = (folder / reference.path).is_file()
        except OSError as error:  # such as a name that is too long or a folder without read permission
            return f"{reference.path[:80]}: can't be accessed: {error.strerror or error}"
        if not found:
            return f"{reference.path}: no such file; paths are relative to {folder.resolve()}"
    return None


def _refinements(draft: Draft) -> Iterator[RecipeIssue]:
    recipe = draft.filled
    prompts, needed = recipe["refinement_prompts"], recipe["num_images"] - 1
    why = f"{recipe['num_images']} images"
    if "image" in recipe["context"][-1]:
        needed += 1
        why += " after an image"
    given = sum(prompt is not None for prompt in prompts[:needed])
    if not recipe["auto_refine"] and given < needed:
        message = (
            f"{why} need {needed} refinement texts and {given} are given; allowed: auto_refine: true, so that the "
            f"model writes the others, or {needed} refinement_prompts"
        )
        yield RecipeIssue(path=("refinement_prompts",) if prompts else ("auto_refine",), message=message)


def _sizes(draft: Draft) -> Iterator[RecipeIssue]:
    sides = {name: draft.filled["image"][name] for name in _SIDES}
    given = [name for name in _SIDES if name in (draft.given.get("image") or {})]
    null = [name for name in _SIDES if sides[name] is None]
    if len(given) == 1:
        yield RecipeIssue(
            path=("image", *given),
            message="is given without the other side; allowed: both width and height, or neither",
        )
    elif len(null) == 1:
        yield RecipeIssue(
            path=("image", *null),
            message="is null, but the other side is not; allowed: both width and height null, or neither",
        )
    elif null and "context" in draft.filled and not draft.editing:
        message = (
            "null uses the size of the last image, but the initial context has no image; "
            "allowed: a size, or neither width nor height for the model's default"
        )
        yield RecipeIssue(path=("image", "width"), message=message)
    for name in given or _SIDES:
        if why := _off_the_grid(sides[name], draft.spec):
            yield RecipeIssue(path=("image", name), message=why)


def _off_the_grid(side: int | None, spec: ModelSpec | None) -> str | None:
    """Why the model can't draw an image with this side."""
    if side is None or spec is None or not (side % spec.stride_px or side > spec.max_side_px):
        return None
    what = f"not a multiple of {spec.stride_px}" if side % spec.stride_px else f"more than {spec.max_side_px}"
    return f"{side} is {what}; allowed: multiples of {spec.stride_px} up to {spec.max_side_px}"


def _interval(draft: Draft) -> Iterator[RecipeIssue]:
    low, high = draft.filled["image"]["cfg_interval"]
    if low > high:
        message = f"starts at {low:g} and ends at {high:g}; allowed: [low, high] with low not above high"
        yield RecipeIssue(path=("image", "cfg_interval"), message=message)


def _room(draft: Draft) -> Iterator[RecipeIssue]:
    most = draft.filled["max_context_items"]
    items, pin = len(draft.filled["context"]), draft.filled["pin"]
    if isinstance(pin, int) and pin > items:
        message = f"{pin} is more than the {items} items of the context; allowed: initial, none, or 0 to {items}"
        yield RecipeIssue(path=("pin",), message=message)
        return
    pinned = {"initial": items, "none": 0}.get(pin, pin)
    if most is not None and most < pinned + 1:
        message = (
            f"{most} leaves no room besides the pinned items of the context ({pinned}); "
            f"allowed: {pinned + 1} or more, or pin: none"
        )
        yield RecipeIssue(path=("max_context_items",), message=message)


def _tree(draft: Draft) -> Iterator[RecipeIssue]:
    recipe = draft.filled
    variations, images = recipe["variations_per_image"], recipe["num_images"]
    total = sum(variations**level for level in range(1, images + 1))
    if recipe["select"] == "tree" and total > MAX_IMAGES:
        message = (
            f"a tree of {images} images with {variations} variations each has {total:,} images; "
            f"allowed: at most {MAX_IMAGES} in all"
        )
        yield RecipeIssue(path=("select",), message=message)


def _question(draft: Draft) -> Iterator[RecipeIssue]:
    judge = draft.filled["judge"]
    if INSTRUCTION not in judge["question"] + (judge["answer"] or ""):
        message = (
            f"does not depend on the instruction, and neither does judge.answer; "
            f"allowed: a text with the placeholder {INSTRUCTION} in the question or the answer"
        )
        yield RecipeIssue(path=("judge", "question"), message=message)


_Rule: TypeAlias = Callable[[Draft], Iterator[RecipeIssue]]

_RULES: tuple[tuple[tuple[str, ...], _Rule], ...] = (
    (("name",), _name),
    (("model",), _model),
    (("model_sha256",), _model_sha256),
    (("parent",), _parent),
    ((), _images),
    (("context", "num_images", "auto_refine", "refinement_prompts"), _refinements),
    (("image.width", "image.height"), _sizes),
    (("image.cfg_interval",), _interval),
    (("context", "max_context_items", "pin"), _room),
    (("variations_per_image", "num_images", "select"), _tree),
    (("judge.question", "judge.answer"), _question),
)
