"""Verifies a run in the bucket: its objects must be complete, intact and those of its recipe."""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from PIL import UnidentifiedImageError

from core.plan import Step, plan
from recipes.canonical import canonical_json, to_document
from recipes.fields import known
from storage import keys, png
from storage.errors import CorruptRecordError, ObjectNotFoundError, RunNotFoundError
from storage.image_formats import NAMES, metadata_of, open_image
from storage.journal import Artifact, Commit, Journal, ModelRecord
from worker.jobs.artifacts import expected_commit, png_provenance
from worker.jobs.result import manifest_of
from worker.jobs.stored_recipe import StoredRecipe, parse_stored_recipe

_SHOWN_CHARS = 300


@dataclass(frozen=True, kw_only=True)
class Flaw:
    """A difference from what a worker writes."""

    name: str
    """The object's name within the run's folder."""
    problem: str

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}"


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """The result of a check."""

    run_id: str
    folder: str
    """Address of the run's folder."""
    steps: int
    """The number of committed steps."""
    objects: int
    flaws: tuple[Flaw, ...]

    @property
    def whole(self) -> bool:
        return not self.flaws

    def to_data(self) -> dict[str, Any]:
        """As JSON data."""
        return {"whole": self.whole, **asdict(self)}


def verify(journal: Journal) -> Inspection:
    """Read every object in the run's folder, one at a time, and report all flaws.

    Raises:
        RunNotFoundError: the folder is empty.
        NewerRecordError: a newer release wrote the run; verify it with that release.
        StoreUnavailableError, StoreRefusedError: the bucket can't be read.
    """
    found = {key.removeprefix(journal.folder) for key in journal.store.list(journal.folder)}
    if not found:
        raise RunNotFoundError(f"run {journal.run_id}: {journal.address('')} is empty")
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
    """Checks recipe, inputs, model, steps, manifest and page in this order, then reports all other objects."""

    def __init__(self, journal: Journal, found: set[str]) -> None:
        self.journal = journal
        self.found = found
        self.accounted: set[str] = set()
        self.flaws: list[Flaw] = []
        self.commits: list[Commit] = []
        self.stored: StoredRecipe | None = None
        self.model: ModelRecord | None = None
        self.steps: dict[int, Step] = {}

    def inspect(self) -> None:
        self._recipe()
        self._model()
        self.steps = {step.number: step for step in plan(self.stored.recipe)} if self.stored else {}
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
        """The content of a required object; None if it is missing, which is reported."""
        self.accounted.add(name)
        if name in self.found:
            try:
                return self.journal.get(name)
            except ObjectNotFoundError:
                pass  # it was deleted after the listing
        self._flaw(name, "is missing")
        return None

    def _recipe(self) -> None:
        data = self._get(keys.RECIPE)
        if data is None:
            return
        try:
            stored = parse_stored_recipe(data, self.journal.address(keys.RECIPE))
        except CorruptRecordError as error:
            self._flaw(keys.RECIPE, str(error))
            return
        if canonical_json(stored.document) != data or known(stored.document) != to_document(stored.recipe):
            self._flaw(keys.RECIPE, "has missing or changed fields")
        for item in stored.images:
            content = self._get(item.image)
            if content is not None and _sha256(content) != item.sha256:
                self._flaw(item.image, f"has the SHA-256 {_sha256(content)}, the recipe pins {item.sha256}")
        self.stored = stored

    def _model(self) -> None:
        """The record of the model; runs of release 0.1.0 have none."""
        self.accounted.add(keys.MODEL)
        try:
            self.model = self.journal.model()
        except CorruptRecordError as error:
            self._flaw(keys.MODEL, str(error))
            return
        if self.model and self.stored:
            recipe = self.stored.recipe
            for what, found, wanted in (
                ("model", self.model.name, recipe.model),
                ("fingerprint", self.model.sha256, recipe.model_sha256 or self.model.sha256),
            ):
                if found != wanted:
                    self._flaw(keys.MODEL, f"has the {what} {found}, the recipe has {wanted}")

    def _step(self, number: int, step: Step | None) -> None:
        """The commit of a step, which must match the plan, and its objects."""
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
        if self.stored and self.stored.sha256 != commit.recipe_sha256:
            self._flaw(name, f"is of another recipe: {commit.recipe_sha256}, recipe.json is {self.stored.sha256}")
        if self.stored and step:
            expected = expected_commit(step, self.stored.recipe, commit)
            if expected != commit:
                self._flaw(name, f"does not match the plan: {_difference(expected, commit)}")
        for artifact in commit.artifacts:
            self._artifact(artifact, commit)

    def _artifact(self, artifact: Artifact, commit: Commit) -> None:
        data = self._get(str(artifact.key))
        if data is None:
            return
        if len(data) != artifact.size:
            self._flaw(artifact.key, f"has {len(data)} bytes, its commit has {artifact.size}")
        if _sha256(data) != artifact.sha256:
            self._flaw(artifact.key, f"has the SHA-256 {_sha256(data)}, its commit has {artifact.sha256}")
        elif artifact.kind == "image":
            self._picture(artifact, data, commit)

    def _picture(self, artifact: Artifact, data: bytes, commit: Commit) -> None:
        """An image with the checksum of its commit, which must be decodable and name its provenance."""
        try:
            with open_image(io.BytesIO(data)) as image:
                image.load()
                size, chunks = image.size, metadata_of(image)
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            self._flaw(artifact.key, f"is not a readable {NAMES} image: {error}")
            return
        if size != (artifact.width, artifact.height):
            self._flaw(artifact.key, f"is {size} pixels, its commit has {(artifact.width, artifact.height)}")
        # A worker of release 0.1.0 does not name its model.
        model_sha256 = self.model.sha256 if self.model and png.CHUNKS["model_sha256"] in chunks else None
        expected = png_provenance(self.journal.run_id, artifact, commit.recipe_sha256, model_sha256).to_chunks()
        for chunk in png.CHUNKS.values():
            if chunks.get(chunk) != expected.get(chunk):
                said = f"{chunks.get(chunk)!r}, expected {expected.get(chunk)!r}"
                self._flaw(artifact.key, f"its text chunk {chunk} is {said}")

    def _manifest(self) -> None:
        self.accounted.add(keys.MANIFEST)
        try:
            manifest = self.journal.manifest()
        except CorruptRecordError as error:
            self._flaw(keys.MANIFEST, str(error))
            return
        if manifest is None:
            self._flaw(keys.MANIFEST, "is missing: the run is not complete")
        elif self.stored:
            # A worker of release 0.1.0 does not name its model.
            model_sha256 = manifest.model_sha256 and (self.model.sha256 if self.model else None)
            recipe, recipe_sha256 = self.stored.recipe, self.stored.sha256
            expected = manifest_of(self.journal.run_id, recipe, recipe_sha256, self.commits, model_sha256=model_sha256)
            if manifest != expected:
                self._flaw(keys.MANIFEST, f"does not match the commits: {_difference(expected, manifest)}")

    def _page(self) -> None:
        if self.stored is None or not self.stored.recipe.output.page:
            return
        html = self._get(keys.PAGE)
        images = [one.key for commit in self.commits for one in commit.artifacts if one.kind == "image"]
        if html is not None:
            for name in images:
                if str(name).encode() not in html:
                    self._flaw(keys.PAGE, f"does not show {name}")


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
