"""Prove at start-up that a store honours conditional puts, which commits rest on."""

import secrets
import threading
from concurrent.futures import ThreadPoolExecutor

from storage.errors import ObjectExistsError, StoreRefusedError, StoreUnavailableError
from storage.objects import ObjectStore


def probe(store: ObjectStore, *, folder: str = "probe/", rounds: int = 2, writers: int = 4) -> None:
    """Prove that of several writers who create one object at once exactly one wins; commits rest on it.

    Leaves nothing behind. Raises StoreRefusedError when several win, StoreUnavailableError when the store is away.
    """
    with ThreadPoolExecutor(writers) as pool:
        for number in range(rounds):
            key = f"{folder}{secrets.token_hex(8)}"
            barrier = threading.Barrier(writers)

            def create(writer: int, key: str = key, barrier: threading.Barrier = barrier) -> int | None:
                barrier.wait()
                try:
                    store.put(key, b"writer %d" % writer, content_type="text/plain", only_if_absent=True)
                except ObjectExistsError:
                    return None
                return writer

            try:
                winners = [writer for writer in pool.map(create, range(writers)) if writer is not None]
                stored = store.get(key)
            finally:
                store.delete(key)
            if not winners:  # the answer to the one that won was lost on its way, and it asked again
                raise StoreUnavailableError(
                    f"{store.address(key)}: {writers} writers created it, and none heard that it won"
                )
            if len(winners) != 1 or stored != b"writer %d" % winners[0]:
                raise StoreRefusedError(
                    f"{store.address(key)}: {writers} writers created one object at once with If-None-Match: *, and "
                    f"{len(winners)} of them succeeded (round {number + 1} of {rounds}); this store can't keep two "
                    "workers off one run. A store with conditional puts is needed (AWS S3, SeaweedFS 4.x)"
                )
