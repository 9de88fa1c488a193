"""What the steps of a sequence make, on its way to the store and back."""

import io
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from PIL import Image

from core.events import Evicted, ImageReady, ItemRead, Skipped, StepEnded, TextReady, Variation
from core.plan import Draw, Path, Read, Step, Write
from core.sequence import StepOutput
from storage import keys, png
from storage.errors import CorruptRecordError
from storage.journal import Artifact, Commit, Journal, Role
from storage.uploader import PendingObject, PendingStep
from worker.jobs.job import Job

TEXT_TYPE = "text/plain; charset=utf-8"


def pending_step(job: Job, ended: StepEnded) -> PendingStep:
    """The step that just ended, as what is to be stored of it."""
    number = ended.step.number
    match ended:
        case TextReady():
            return PendingStep(step=number, kind="read" if ended.given else "write", objects=(_text_object(ended),))
        case ImageReady():
            objects = tuple(_image_object(job, ended.step, variation) for variation in ended.variations)
            return PendingStep(step=number, kind="draw", objects=objects)
        case ItemRead():
            return PendingStep(step=number, kind="read")
        case Skipped():
            return PendingStep(step=number, kind="skip")
        case Evicted():
            return PendingStep(step=number, kind="forget")


def check_committed(job: Job, steps: Sequence[Step], commits: Sequence[Commit], journal: Journal) -> None:
    """Raises CorruptRecordError when `commits` are not the first of `steps`."""
    for number, commit in enumerate(commits, 1):
        step = steps[number - 1] if number <= len(steps) else None
        if commit.recipe_sha256 != job.recipe_sha256:
            why = f"is of another recipe, {commit.recipe_sha256[:80]}"
        elif step is None or commit.kind not in _kinds(step):
            what = " or ".join(_kinds(step)) if step else "none"
            why = f"is of a {commit.kind} step, and the plan's step is {what}"
        elif not _names_what_it_made(step, commit):
            why = f"names {len(commit.artifacts)} objects, which are not those of its {commit.kind} step"
        else:
            continue
        raise CorruptRecordError(f"{journal.address(keys.commit(number))}: {why}")


def _kinds(step: Step) -> tuple[str, ...]:
    kind = type(step).__name__.lower()
    return (kind, "skip") if isinstance(step, Draw) and step.attempt else (kind,)


def _names_what_it_made(step: Step, commit: Commit) -> bool:
    """Whether the sequence finds in `commit` what it needs to go on behind `step`."""
    made = commit.artifacts
    match step:
        case Write(role=role) | Read(role="refinement" as role):
            expected = text_artifact(step.number, step.path, role, given=isinstance(step, Read))
            return len(made) == 1 and _but_for_its_content(made[0]) == expected
        case Draw() if commit.kind == "draw":
            chosen = {artifact.variation for artifact in made if artifact.chosen}
            right = chosen == set(range(step.variations)) if step.forks else bool(chosen)
            return bool(made) and all(_is_drawn_by(step, one) for one in made) and (right or step.attempt > 0)
        case _:
            return not made


def _is_drawn_by(step: Draw, artifact: Artifact) -> bool:
    """Whether an image is named and placed as those that `step` draws."""
    seed, width, height = artifact.seed or 0, artifact.width or 0, artifact.height or 0
    expected = image_artifact(step, artifact.variation, seed=seed, width=width, height=height)
    return _but_for_its_content(artifact) == expected


def _but_for_its_content(artifact: Artifact) -> Artifact:
    return replace(artifact, size=0, sha256="", score=None, chosen=True)


def restored(commit: Commit, journal: Journal) -> StepOutput:
    """What a committed step made, as the sequence goes on from it.

    Raises CorruptRecordError when the store no longer holds what was committed.
    """
    if commit.kind == "draw":
        return tuple(_variation(artifact, journal) for artifact in commit.artifacts if artifact.chosen)
    for artifact in commit.artifacts:
        return journal.made(artifact).decode()
    return None


def text_artifact(number: int, path: Path, role: Role, *, given: bool = False) -> Artifact:
    """A text of the step `number`, but for its words."""
    return Artifact(
        kind="text",
        role=role,
        step=number,
        path=dotted(path),
        key=keys.step_text(number, role, path),
        content_type=TEXT_TYPE,
        given=given,
    )


def image_artifact(step: Draw, variation: int, *, seed: int, width: int, height: int) -> Artifact:
    """A variation that `step` drew, but for its bytes and what was found of it; sizes in pixels."""
    branch = step.branch(variation)
    return Artifact(
        kind="image",
        role="image",
        step=step.number,
        path=dotted(branch) if step.forks else "",
        key=keys.step_image(step.number, branch),
        content_type=png.CONTENT_TYPE,
        index=step.index,
        variation=variation,
        attempt=step.attempt,
        seed=seed,
        width=width,
        height=height,
    )


def dotted(path: Path) -> str:
    """A branch of a tree as people read it: 0.1."""
    return ".".join(map(str, path))


def origin_of(run_id: str, artifact: Artifact, recipe_sha256: str) -> dict[str, str]:
    """What an image says of itself, as its text chunks."""
    return {
        "autosequence:run": run_id,
        "autosequence:step": str(artifact.step),
        "autosequence:variation": str(artifact.variation),
        "autosequence:seed": str(artifact.seed),
        "autosequence:recipe-sha256": recipe_sha256,
    }


def _text_object(ready: TextReady) -> PendingObject:
    data = ready.text.encode()
    about = text_artifact(ready.step.number, ready.step.path, ready.role, given=ready.given)
    return PendingObject(about=about, encode=lambda: data, size_estimate=len(data))


def _image_object(job: Job, step: Draw, variation: Variation) -> PendingObject:
    image = variation.image
    about = image_artifact(step, variation.number, seed=variation.seed, width=image.width, height=image.height)
    origin = origin_of(job.run_id, about, job.recipe_sha256)
    return PendingObject(
        about=replace(about, score=variation.score, chosen=variation.chosen),
        encode=partial(png.encode_png, image, origin),
        size_estimate=image.width * image.height * len(image.getbands()),
    )


def _variation(artifact: Artifact, journal: Journal) -> Variation:
    with Image.open(io.BytesIO(journal.made(artifact))) as image:
        picture = image.convert("RGB")
    return Variation(number=artifact.variation, image=picture, seed=artifact.seed or 0, score=artifact.score)
