"""The artifacts of a step: which ones it must leave, how they are stored, and how they are read again."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from PIL import Image

from core.events import ImageReady, Skipped, StepEnded, TextReady, Variation
from core.plan import Draw, Path, Read, Step, Write
from core.sequence import StepOutput, derive_seed
from recipes.recipe import Recipe, TextItem
from storage import keys, png
from storage.errors import CorruptRecordError
from storage.image_formats import FORMATS
from storage.journal import Artifact, Commit, Journal, Role
from storage.uploader import PendingObject, PendingStep
from worker.jobs.job import Job

TEXT_TYPE = "text/plain; charset=utf-8"
_ABSENT = Artifact(kind="text", role="image", step=0, key="", content_type="")
"""Placeholder for an artifact that a commit lacks."""


def expected_artifacts(step: Step, recipe: Recipe) -> tuple[Artifact, ...]:
    """The artifacts of `step`, with every field that follows from the recipe.

    Fields that the model decides are left empty: the content, except of given texts, the score and the selection, and
    the size of an image that takes it from the context. A further attempt leaves only the images that it draws again.
    """
    match step:
        case Read(role="refinement", item=TextItem(text=text)):
            return (_with_content(_text(step, "refinement", given=True), text.encode()),)
        case Write(role=role):
            return (_text(step, role),)
        case Draw():
            return tuple(_image(step, variation, recipe) for variation in range(step.variations))
        case _:
            return ()


def expected_commit(step: Step, recipe: Recipe, found: Commit) -> Commit:
    """`found`, the commit of `step`, with every field that contradicts the recipe corrected."""
    expected = expected_artifacts(step, recipe)
    kind: str = step.kind
    if isinstance(step, Draw) and step.attempt:  # the scores decide which variations are drawn again, if any
        kind = "skip" if found.kind == "skip" else kind
        again = {artifact.variation for artifact in found.artifacts} if kind == "draw" else set()
        expected = tuple(artifact for artifact in expected if artifact.variation in again)
    artifacts = [
        _as_drawn(one, found.artifacts[number] if number < len(found.artifacts) else _ABSENT)
        for number, one in enumerate(expected)
    ]
    return replace(found, kind=kind, artifacts=tuple(artifacts))


def _as_drawn(expected: Artifact, found: Artifact) -> Artifact:
    """`expected`, with the fields that the recipe leaves open taken from `found`."""
    return replace(
        expected,
        size=expected.size or found.size,
        sha256=expected.sha256 or found.sha256,
        width=expected.width or found.width,
        height=expected.height or found.height,
        score=found.score,
        selected=found.selected,
    )


def pending_step(job: Job, ended: StepEnded) -> PendingStep:
    """The objects to store for the step that just ended."""
    step = ended.step
    expected = expected_artifacts(step, job.recipe)
    match ended:
        case TextReady(text=text):
            data = text.encode()
            pending = PendingObject(about=expected[0], encode=lambda: data, size_estimate=len(data))
            return PendingStep(step=step.number, kind=step.kind, objects=(pending,))
        case ImageReady(variations=variations):
            objects = tuple(_pending_image(job, expected[variation.number], variation) for variation in variations)
            return PendingStep(step=step.number, kind=step.kind, objects=objects)
        case Skipped():
            return PendingStep(step=step.number, kind="skip")
        case _:
            return PendingStep(step=step.number, kind=step.kind)


def check_committed(job: Job, steps: Sequence[Step], commits: Sequence[Commit], journal: Journal) -> None:
    """Raises CorruptRecordError when `commits` are not the first of `steps`."""
    for number, commit in enumerate(commits, 1):
        step = steps[number - 1] if number <= len(steps) else None
        kinds = _kinds(step) if step else ("none",)
        if commit.recipe_sha256 != job.recipe_sha256:
            why = f"is of another recipe, {commit.recipe_sha256[:80]}"
        elif step is None or commit.kind not in kinds:
            why = f"is of a {commit.kind} step, and the plan's step is {' or '.join(kinds)}"
        elif expected_commit(step, job.recipe, commit) != commit or not _can_continue(step, commit):
            why = f"names {len(commit.artifacts)} objects, which are not those of its {commit.kind} step"
        else:
            continue
        raise CorruptRecordError(f"{journal.address(keys.commit(number))}: {why}")


def _kinds(step: Step) -> tuple[str, ...]:
    return (step.kind, "skip") if isinstance(step, Draw) and step.attempt else (step.kind,)


def _can_continue(step: Step, commit: Commit) -> bool:
    """Whether `commit` selects images from which the sequence can continue."""
    if not isinstance(step, Draw) or commit.kind == "skip":
        return True
    selected = {artifact.variation for artifact in commit.artifacts if artifact.selected}
    return bool(commit.artifacts) and (
        step.attempt > 0 or (selected == set(range(step.variations)) if step.forks else bool(selected))
    )


def restored(commit: Commit, journal: Journal) -> StepOutput:
    """The output of a committed step, from which the sequence continues.

    Raises CorruptRecordError when the store no longer has what was committed.
    """
    if commit.kind == "draw":
        return tuple(_variation(artifact, journal) for artifact in commit.artifacts if artifact.selected)
    return journal.read_artifact(commit.artifacts[0]).decode() if commit.artifacts else None


def dotted(path: Path) -> str:
    """The path of a branch as text, such as 0.1."""
    return ".".join(map(str, path))


def png_provenance(run_id: str, artifact: Artifact, recipe_sha256: str, model_sha256: str | None) -> png.PngProvenance:
    """The provenance that is written into the file of an image."""
    return png.PngProvenance(
        run_id=run_id,
        step=artifact.step,
        variation=artifact.variation,
        seed=artifact.seed or 0,
        recipe_sha256=recipe_sha256,
        model_sha256=model_sha256,
    )


def _text(step: Step, role: Role, *, given: bool = False) -> Artifact:
    return Artifact(
        kind="text",
        role=role,
        step=step.number,
        path=dotted(step.path),
        key=keys.step_text(step.number, role, step.path),
        content_type=TEXT_TYPE,
        given=given,
    )


def _image(step: Draw, variation: int, recipe: Recipe) -> Artifact:
    branch = step.branch(variation)
    return Artifact(
        kind="image",
        role="image",
        step=step.number,
        path=dotted(branch) if step.forks else "",
        key=keys.step_image(step.number, branch, recipe.output.format),
        content_type=FORMATS[recipe.output.format].content_type,
        index=step.index,
        variation=variation,
        attempt=step.attempt,
        seed=derive_seed(recipe.seed, step.number, variation, "noise"),
        width=recipe.image.width,
        height=recipe.image.height,
    )


def _with_content(artifact: Artifact, data: bytes) -> Artifact:
    return replace(artifact, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def _pending_image(job: Job, expected: Artifact, variation: Variation) -> PendingObject:
    image = variation.image
    about = replace(
        expected, width=image.width, height=image.height, score=variation.score, selected=variation.selected
    )
    chunks = png_provenance(job.run_id, about, job.recipe_sha256, job.model_sha256).to_chunks()
    return PendingObject(
        about=about,
        encode=partial(FORMATS[job.recipe.output.format].encode, image, chunks),
        size_estimate=image.width * image.height * len(image.getbands()),
    )


def _variation(artifact: Artifact, journal: Journal) -> Variation:
    with Image.open(io.BytesIO(journal.read_artifact(artifact))) as image:
        picture = image.convert("RGB")
    return Variation(number=artifact.variation, image=picture, seed=artifact.seed or 0, score=artifact.score)
