"""Steps to upload, an uploader, and a store that fails as it is told."""

import threading
from collections.abc import Callable

from storage.journal import Artifact, Commit, Journal
from storage.objects.memory import MemoryStore
from storage.uploader import PendingObject, PendingStep, Uploader, UploadLimits


def text_step(step: int, text: str = "words", encode: Callable[[], bytes] | None = None) -> PendingStep:
    about = Artifact(
        kind="text", role="thinking", step=step, key=f"steps/{step:03d}-thinking.txt", content_type="text/plain"
    )
    pending = PendingObject(about=about, encode=encode or text.encode, size_estimate=len(text))
    return PendingStep(step=step, kind="write", objects=(pending,))


def uploader_of(
    journal: Journal,
    committed: list[Commit],
    *,
    max_pending_bytes: int = 2**20,
    spool_bytes: int = 0,
    outage_timeout_s: float = 60,
) -> Uploader:
    return Uploader(
        journal,
        recipe_sha256="cafe",
        on_commit=committed.append,
        limits=UploadLimits(
            pending_bytes=max_pending_bytes, spool_bytes=spool_bytes, outage_timeout_s=outage_timeout_s
        ),
    )


class TroubledStore(MemoryStore):
    """Raises what is given, one error a put; and can lose the answer of puts that it did."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[Exception] = []
        self.answers_lost = False
        self.turn = threading.Lock()

    def put(self, key: str, data: bytes, *, content_type: str, only_if_absent: bool = False) -> None:
        with self.turn:
            if self.errors and not self.answers_lost:
                raise self.errors.pop(0)
            super().put(key, data, content_type=content_type, only_if_absent=only_if_absent)
            if self.errors:
                raise self.errors.pop(0)
