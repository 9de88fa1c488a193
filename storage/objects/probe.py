"""Checks at start-up that a store supports conditional puts, which commits require."""

import secrets
import threading
from concurrent.futures import ThreadPoolExecutor

from storage.errors import ObjectExistsError, StoreRefusedError, StoreUnavailableError
from storage.objects import ObjectStore


def probe(store: ObjectStore, *, folder: str = "probe/", rounds: int = 2, writers: int = 4) -> None:
    """Check that exactly one of several writers that create an object at once succeeds.

    The objects are deleted. Raises StoreRefusedError when several succeed, StoreUnavailableError when the store is
    unavailable.
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
            if not winners:  # the response to the one that succeeded was lost, and its put was repeated
                raise StoreUnavailableError(
                    f"{store.address(key)}: {writers} writers created it, and the response to the first was lost"
                )
            if len(winners) != 1 or stored != b"writer %d" % winners[0]:
                raise StoreRefusedError(
                    f"{store.address(key)}: {writers} writers created one object at once with If-None-Match: *, and "
                    f"{len(winners)} of them succeeded (round {number + 1} of {rounds}); this store can't keep two "
                    "workers of one run apart. Use a store with conditional puts (AWS S3, SeaweedFS 4.x)"
                )
