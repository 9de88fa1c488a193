"""Collects the contents of a run's page during the run, and reads at its end what earlier attempts left."""

import io
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from PIL import Image

from core.events import Event, ImageReady, TextReady
from core.sequence import StepOutput
from recipes.canonical import to_document
from storage import keys
from storage.journal import Artifact, Commit, Journal, Manifest
from storage.page import render_page
from storage.thumbnails import thumbnail
from worker.jobs.artifacts import expected_artifacts
from worker.jobs.job import Job


class PageBuilder:
    """The texts and thumbnails of one run, by the keys of their artifacts.

    Thumbnails of drawn images are made in the background, while the next step is generated.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._wanted = job.recipe.output.page
        self._texts: dict[str, str] = {}
        self._thumbnails: dict[str, bytes] = {}
        self._pending: dict[str, Future[bytes]] = {}
        self._background = ThreadPoolExecutor(1, thread_name_prefix="thumbnails")
        self._known: set[str] = set()

    def add_input(self, index: int) -> None:
        """Add an image of the initial context, from 0. Decodes each content once, one at a time."""
        if self._wanted:
            image = self._job.inputs[index]
            first = keys.input_image(self._job.inputs.index(image), image.extension)
            shown = self._thumbnails.get(first) or thumbnail(image.decode())
            self._thumbnails[keys.input_image(index, image.extension)] = shown

    def add(self, event: Event) -> None:
        """Add the output of a step of this process."""
        match event:
            case TextReady(step=step, role=role, text=text):
                self._add_text(keys.step_text(step.number, role, step.path), text)
            case ImageReady(step=draw, variations=variations):
                artifacts = expected_artifacts(draw, self._job.recipe)
                for one in variations if self._wanted else ():
                    key = artifacts[one.number].key
                    self._pending[key] = self._background.submit(thumbnail, one.image)
                self._known.update(artifacts[one.number].key for one in variations)

    def add_restored(self, commit: Commit, output: StepOutput) -> None:
        """Add the output of a committed step, which was read to continue from it."""
        if isinstance(output, str):
            self._add_text(commit.artifacts[0].key, output)
        elif isinstance(output, tuple):
            selected = [artifact for artifact in commit.artifacts if artifact.selected]
            for artifact, one in zip(selected, output, strict=True):
                self._add_image(artifact.key, one.image)

    def missing(self, commits: Iterable[Commit]) -> list[Artifact]:
        """The artifacts that an earlier attempt left and that were not read to continue from them.

        Without a page they are those that the sequence continued from: each is compared with its commit once.
        """
        artifacts = (artifact for commit in commits for artifact in commit.artifacts)
        return [one for one in artifacts if one.key not in self._known and (self._wanted or one.selected)]

    def read(self, artifact: Artifact, journal: Journal) -> None:
        """Add a missing artifact. Safe to call in several threads."""
        data = journal.read_artifact(artifact)
        if artifact.kind == "text":
            self._add_text(artifact.key, data.decode())
        elif self._wanted:
            with Image.open(io.BytesIO(data)) as image:
                self._add_image(artifact.key, image)

    def render(self, manifest: Manifest) -> bytes:
        """The page, UTF-8. Nothing may be missing."""
        drawn = {key: pending.result() for key, pending in self._pending.items()}
        return render_page(manifest, to_document(self._job.recipe), self._texts, {**self._thumbnails, **drawn})

    def _add_text(self, key: str, text: str) -> None:
        self._known.add(key)
        self._texts[key] = text

    def _add_image(self, key: str, image: Image.Image) -> None:
        self._known.add(key)
        if self._wanted:
            self._thumbnails[key] = thumbnail(image)
