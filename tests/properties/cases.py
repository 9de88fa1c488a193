"""Runs a great many cases of one kind: counts what was accepted and what refused, and stops at what is neither."""

import contextlib
import random
import resource
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

LONGEST_CASE_S: Final = 10
"""Of computing: only what hangs meets it."""
MOST_GROWTH_BYTES: Final = 512 * 2**20

Case: TypeAlias = Callable[[random.Random], bool]
"""Does one thing with something drawn; whether it was accepted. Raises only for a fault of the program."""


class Surprise(AssertionError):  # noqa: N818 (it says what happened)
    """A case did neither what it should nor say why not: names the case, so that it can be done again."""


class Hang(Exception):  # noqa: N818 (it says what happened)
    """A case computed for far too long."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What many cases of one kind came to."""

    kind: str
    cases: int
    accepted: int
    wall_s: float
    slowest_s: float
    grown_bytes: int
    """How much the process's peak memory grew meanwhile."""


def run_cases(kind: str, case: Case, *, count: int, seed: int) -> Tally:
    """`count` cases, drawn from `seed`. Raises Surprise."""
    began, before, accepted, slowest_s = time.monotonic(), _peak_bytes(), 0, 0.0
    with warnings.catch_warnings(), _watchdog():
        warnings.simplefilter("error")
        for number in range(count):
            started = time.thread_time()
            signal.setitimer(signal.ITIMER_PROF, LONGEST_CASE_S)
            try:
                accepted += case(random.Random(f"{kind}/{seed}/{number}"))
            except Exception as error:
                words = f"{kind}, seed {seed}, case {number}: {type(error).__name__}: {str(error)[:500]}"
                raise Surprise(words) from error
            slowest_s = max(slowest_s, time.thread_time() - started)
    grown_bytes = _peak_bytes() - before
    if grown_bytes > MOST_GROWTH_BYTES:
        raise Surprise(f"{kind}, seed {seed}: memory grew by {grown_bytes:,} bytes")
    wall_s = time.monotonic() - began
    return Tally(kind=kind, cases=count, accepted=accepted, wall_s=wall_s, slowest_s=slowest_s, grown_bytes=grown_bytes)


def refused(call: Callable[[], object], *documented: type[Exception], naming: str = "") -> bool:
    """Whether `call()` raises one of the errors it may, in words, with what they must name. Any other gets out."""
    try:
        call()
    except documented as error:
        words = str(error)
        if not words.strip() or naming not in words:
            raise AssertionError(f"{type(error).__name__} does not name {naming!r}: {words[:300]!r}") from error
        return True
    return False


@contextlib.contextmanager
def _watchdog() -> Iterator[None]:
    def bark(*_: object) -> None:
        raise Hang(f"computed for more than {LONGEST_CASE_S} s")

    before = signal.signal(signal.SIGPROF, bark)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
