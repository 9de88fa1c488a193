"""What the steps of a sequence make, on its way to the store and back."""

import io
from functools import partial

from PIL import Image

from core.events import Forgotten, ImageReady, ItemRead, StepEnded, TextReady
from core.protocol import Item, Picture, Text
from storage import keys, png
from storage.journal import Commit, Journal
from storage.uploader import PendingObject, PendingStep
from worker.job import Job

TEXT_TYPE = "text/plain; charset=utf-8"


def pending_step(job: Job, ended: StepEnded) -> PendingStep:
    """The step that just ended, as what is to be stored of it."""
    number = ended.step.number
    match ended:
        case TextReady():
            return PendingStep(step=number, kind="read" if ended.given else "write", objects=(_text_object(ended),))
        case ImageReady():
            return PendingStep(step=number, kind="draw", objects=(_image_object(job, ended),))
        case ItemRead():
            return PendingStep(step=number, kind="read")
        case Forgotten():
            return PendingStep(step=number, kind="forget")


def restored_item(commit: Commit, journal: Journal) -> Item | None:
    """What a committed step made, as the sequence goes on from it; None when it made nothing of its own."""
    if not commit.artifacts:
        return None
    (artifact,) = commit.artifacts
    data = journal.get(artifact.key)
    if artifact.kind == "text":
        return Text(data.decode(), thought=artifact.role == "thinking")
    with Image.open(io.BytesIO(data)) as image:
        return Picture(image.convert("RGB"))


def origin_of(run_id: str, step: int, seed: int | None, recipe_sha256: str) -> dict[str, str]:
    """What an image says of itself, as its text chunks."""
    return {
        "autosequence:run": run_id,
        "autosequence:step": str(step),
        "autosequence:seed": str(seed),
        "autosequence:recipe-sha256": recipe_sha256,
    }


def _text_object(ready: TextReady) -> PendingObject:
    data = ready.text.encode()
    return PendingObject(
        kind="text",
        role=ready.role,
        key=keys.step_text(ready.step.number, ready.role),
        content_type=TEXT_TYPE,
        encode=lambda: data,
        size_estimate=len(data),
        given=ready.given,
    )


def _image_object(job: Job, ready: ImageReady) -> PendingObject:
    image = ready.image
    origin = origin_of(job.run_id, ready.step.number, ready.seed, job.recipe_sha256)
    return PendingObject(
        kind="image",
        role="image",
        key=keys.step_image(ready.step.number),
        content_type=png.CONTENT_TYPE,
        encode=partial(png.encode_png, image, origin),
        size_estimate=image.width * image.height * len(image.getbands()),
        index=ready.index,
        seed=ready.seed,
        width=image.width,
        height=image.height,
    )
