"""Whether a run in the bucket is whole: judged from its objects alone, which must be what its recipe asks for."""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from PIL import Image, UnidentifiedImageError

from core.plan import Draw, Evict, Read, Step, Write, plan
from core.sequence import derive_seed
from recipes.canonical import fingerprint, to_json
from recipes.faults import RecipeError
from recipes.load import load_resolved
from recipes.recipe import ImageItem, Recipe, TextItem
from storage import keys
from storage.errors import CorruptRecordError, ObjectNotFoundError, RunNotFoundError
from storage.journal import Artifact, Commit, Journal
from worker.jobs.artifacts import image_artifact, origin_of, text_artifact
from worker.serve.run import manifest_of

_NOTHING = Artifact(kind="text", role="image", step=0, key="", content_type="")
"""Stands for the artifact that a commit lacks."""
_SHOWN_CHARS = 300


@dataclass(frozen=True, kw_only=True)
class Flaw:
    """One thing that is not as a worker leaves it."""

    name: str
    """Of the object, within the run's folder."""
    problem: str

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}"


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What was found of a run."""

    run_id: str
    folder: str
    """Address of the run's folder."""
    steps: int
    """Committed ones."""
    objects: int
    flaws: tuple[Flaw, ...]

    @property
    def whole(self) -> bool:
        return not self.flaws

    def to_data(self) -> dict[str, Any]:
        """As JSON data."""
        return {"whole": self.whole, **asdict(self)}


def verify(journal: Journal) -> Inspection:
    """Read everything in the run's folder, one object at a time, and say all that is wrong with it.

    Raises:
        RunNotFoundError: the folder is empty.
        StoreUnavailableError, StoreRefusedError: the bucket can't be read.
    """
    found = {key.removeprefix(journal.folder) for key in journal.store.list(journal.folder)}
    if not found:
        raise RunNotFoundError(f"run {journal.run_id}: there is nothing in {journal.address('')}")
    inspector = _Inspector(journal, found)
    inspector.inspect()
    return Inspection(
        run_id=journal.run_id,
        folder=journal.address(""),
        steps=len(inspector.commits),
        objects=len(found),
        flaws=tuple(inspector.flaws),
    )


class _Inspector:
    """Goes through a run as it was made: recipe, inputs, steps, manifest, page; what is left over is too much."""

    def __init__(self, journal: Journal, found: set[str]) -> None:
        self.journal = journal
        self.found = found
        self.accounted: set[str] = set()
        self.flaws: list[Flaw] = []
        self.commits: list[Commit] = []
        self.recipe: Recipe | None = None
        self.recipe_sha256: str | None = None
        self.steps: dict[int, Step] = {}

    def inspect(self) -> None:
        self._recipe()
        self.steps = {step.number: step for step in plan(self.recipe)} if self.recipe else {}
        written = sum(name.startswith(keys.COMMITS) for name in self.found)
        for number in range(1, (len(self.steps) or written) + 1):
            self._step(number, self.steps.get(number))
        self._manifest()
        self._page()
        for name in sorted(self.found - self.accounted):
            self._flaw(name, "does not belong to this run")

    def _flaw(self, name: str, problem: str) -> None:
        self.flaws.append(Flaw(name=name, problem=problem))

    def _get(self, name: str) -> bytes | None:
        """An object that must be there."""
        self.accounted.add(name)
        if name in self.found:
            try:
                return self.journal.get(name)
            except ObjectNotFoundError:
                pass  # it went between the render_yaml and now
        self._flaw(name, "is missing")
        return None

    def _recipe(self) -> None:
        data = self._get(keys.RECIPE)
        if data is None:
            return
        try:
            recipe = load_resolved(json.loads(data))
        except (RecipeError, ValueError, RecursionError) as error:
            self._flaw(keys.RECIPE, f"is no recipe that can be read: {error}")
            return
        if to_json(recipe) != data:
            self._flaw(keys.RECIPE, "is not as a worker writes it: fields are missing or changed")
        self.recipe = recipe
        images = [item for item in recipe.context if isinstance(item, ImageItem)]
        for item in images:
            content = self._get(item.image)
            if content is not None and _sha256(content) != item.sha256:
                self._flaw(item.image, f"has the SHA-256 {_sha256(content)}, the recipe pins {item.sha256}")
        self.recipe_sha256 = fingerprint(recipe, [item.sha256 or "" for item in images])

    def _step(self, number: int, step: Step | None) -> None:
        """The record of a step, whether it is that of the plan's step, and what it says there is."""
        name = keys.commit(number)
        self.accounted.add(name)
        try:
            commit = self.journal.read_commit(number)
        except ObjectNotFoundError:
            self._flaw(name, "is missing: the step is not committed")
            return
        except CorruptRecordError as error:
            self._flaw(name, str(error))
            return
        self.commits.append(commit)
        if (commit.run_id, commit.step) != (self.journal.run_id, number):
            self._flaw(name, f"is of step {commit.step} of run {commit.run_id}")
        if self.recipe_sha256 not in (None, commit.recipe_sha256):
            self._flaw(name, f"is of another recipe: {commit.recipe_sha256}, recipe.json is {self.recipe_sha256}")
        if self.recipe and step:
            expected = _expected(step, self.recipe, commit)
            if expected != commit:
                self._flaw(name, f"is not the plan's step: {_difference(expected, commit)}")
        for artifact in commit.artifacts:
            self._artifact(artifact, commit)

    def _artifact(self, artifact: Artifact, commit: Commit) -> None:
        data = self._get(str(artifact.key))
        if data is None:
            return
        if len(data) != artifact.size:
            self._flaw(artifact.key, f"has {len(data)} bytes, its commit says {artifact.size}")
        if _sha256(data) != artifact.sha256:
            self._flaw(artifact.key, f"has the SHA-256 {_sha256(data)}, its commit says {artifact.sha256}")
        elif artifact.kind == "image":
            self._picture(artifact, data, commit)

    def _picture(self, artifact: Artifact, data: bytes, commit: Commit) -> None:
        """Whether an image whose bytes are those of its commit can be seen and says where it comes from."""
        try:
            with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
                image.load()
                size, info = image.size, image.info
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            self._flaw(artifact.key, f"is no PNG image: {error}")
            return
        if size != (artifact.width, artifact.height):
            self._flaw(artifact.key, f"is {size} pixels, its commit says {(artifact.width, artifact.height)}")
        origin = origin_of(self.journal.run_id, artifact, commit.recipe_sha256)
        for chunk, text in origin.items():
            if info.get(chunk) != text:
                self._flaw(artifact.key, f"its text chunk {chunk} is {info.get(chunk)!r}, expected {text!r}")

    def _manifest(self) -> None:
        self.accounted.add(keys.MANIFEST)
        try:
            manifest = self.journal.manifest()
        except CorruptRecordError as error:
            self._flaw(keys.MANIFEST, str(error))
            return
        if manifest is None:
            self._flaw(keys.MANIFEST, "is missing: the run is not complete")
        elif self.recipe and self.recipe_sha256:
            expected = manifest_of(self.journal.run_id, self.recipe, self.recipe_sha256, self.commits)
            if manifest != expected:
                self._flaw(keys.MANIFEST, f"is not what the commits say: {_difference(expected, manifest)}")

    def _page(self) -> None:
        if self.recipe is None or not self.recipe.output.page:
            return
        html = self._get(keys.PAGE)
        images = [made.key for commit in self.commits for made in commit.artifacts if made.kind == "image"]
        if html is not None:
            for name in images:
                if str(name).encode() not in html:
                    self._flaw(keys.PAGE, f"does not show {name}")


def _expected(step: Step, recipe: Recipe, found: Commit) -> Commit:
    """`found` with all of it that follows from the recipe as the recipe has it."""
    first = next(iter(found.artifacts), _NOTHING)
    match step:
        case Read(role="refinement", item=TextItem(text=text)):
            data = text.encode()
            given = text_artifact(step.number, step.path, "refinement", given=True)
            return replace(found, kind="read", artifacts=(replace(given, size=len(data), sha256=_sha256(data)),))
        case Read():
            return replace(found, kind="read", artifacts=())
        case Write(role=role):
            written = text_artifact(step.number, step.path, role)
            return replace(found, kind="write", artifacts=(replace(written, size=first.size, sha256=first.sha256),))
        case Draw() if step.attempt and found.kind == "skip":
            return replace(found, artifacts=())
        case Draw():
            return replace(found, kind="draw", artifacts=tuple(_images(step, recipe, found.artifacts)))
        case Evict():
            return replace(found, kind="forget", artifacts=())


def _images(step: Draw, recipe: Recipe, found: Sequence[Artifact]) -> Iterator[Artifact]:
    """All variations of a first try; of a further one those that are there, which ones is the judge's doing."""
    if step.attempt:
        yield from (_image(image, image.variation, step, recipe) for image in found)
        return
    for variation in range(step.variations):
        yield _image(found[variation] if variation < len(found) else _NOTHING, variation, step, recipe)


def _image(found: Artifact, variation: int, step: Draw, recipe: Recipe) -> Artifact:
    """A variation: its pixels and its score are its own, and its size where the recipe leaves that to the context."""
    expected = image_artifact(
        step,
        variation,
        seed=derive_seed(recipe.seed, step.number, variation, "noise"),
        width=recipe.image.width or found.width or 0,
        height=recipe.image.height or found.height or 0,
    )
    return replace(expected, size=found.size, sha256=found.sha256, score=found.score, chosen=found.chosen)


def _difference(expected: Any, found: Any) -> str:  # noqa: ANN401 - two dataclasses of one kind
    """The fields in which two records of one kind differ."""
    return "; ".join(_differences("", asdict(expected), asdict(found)))


def _differences(place: str, expected: Any, found: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON data
    if isinstance(expected, dict) and isinstance(found, dict):
        for name, value in expected.items():
            yield from _differences(f"{place}.{name}" if place else name, value, found[name])
    elif isinstance(expected, list | tuple) and isinstance(found, list | tuple) and len(expected) == len(found):
        for number, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from _differences(f"{place}[{number}]", one, other)
    elif expected != found:
        yield f"{place} is {_short(found)}, expected {_short(expected)}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
