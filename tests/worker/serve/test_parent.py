"""The parent of a worker ends soon, whatever its threads wait for."""

import threading

import pytest

from storage.redis.reconcile import Reconciler
from worker.serve import parent
from worker.serve.parent import ReconcilerThread


class Waiting(Reconciler):
    """Its search waits for Redis."""

    def __init__(self) -> None:
        self.began, self.redis_is_back = threading.Event(), threading.Event()
        self.ended = False

    def elect(self, ttl_s: float) -> bool:
        del ttl_s
        self.began.set()
        self.redis_is_back.wait(30)
        self.ended = True
        return False


def test_a_search_that_waits_for_redis_does_not_delay_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent, "STOP_TIMEOUT_S", 0.05)
    reconciler = Waiting()
    thread = ReconcilerThread(reconciler, interval_s=0.01)
    thread.start()
    assert reconciler.began.wait(30)
    thread.stop()
    assert not reconciler.ended
    reconciler.redis_is_back.set()
