"""Runs all property tests, lives of runs and cases by their kinds, and counts them in a table."""

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.properties.broken_images import image_case, reference_case
from tests.properties.broken_recipes import data_case, file_case, name_case, request_case, set_case, text_case
from tests.properties.broken_records import bucket_case, redis_case
from tests.properties.cases import Case, Tally, run_cases
from tests.properties.life import LifeOfRuns, live
from tests.properties.whole_recipes import load_whole_recipes
from worker.local.services import LocalServices

WHOLE: Final = "whole recipe"
SHARES: Final[Mapping[str, int]] = {
    "recipe file": 12,
    "recipe as text": 10,
    "recipe as data": 25,
    "--set": 15,
    "name": 10,
    "task's arguments": 15,
    "image file": 12,
    "image reference": 10,
    "run in S3": 4,
    "run in Redis": 15,
    WHOLE: 2,
}
"""How often each kind of case comes, for others so many times."""
EXAMPLES_AT_ONCE: Final = 4
LEAST_WHOLE: Final = 200
"""Whole recipes at least: which ones hypothesis makes depends on the modules that are loaded, and most are refused."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much."""

    seed: int
    steps: int
    """Of lives of runs, at least."""
    shares: int
    """Cases: each kind's share, so many times."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What all of it came to; that it is there says that everything held."""

    scale: Scale
    steps: Counter[str] = field(default_factory=Counter)
    """Of lives, by what happened."""
    lives_s: float = 0.0
    tallies: tuple[Tally, ...] = ()

    @property
    def cases(self) -> int:
        return sum(tally.cases for tally in self.tallies)


def kinds(folder: Path) -> dict[str, Case]:
    """The kinds of cases; `folder` is theirs to write to."""
    return {
        "recipe file": file_case(folder),
        "recipe as text": text_case,
        "recipe as data": data_case,
        "--set": set_case,
        "name": name_case,
        "task's arguments": request_case,
        "image file": image_case,
        "image reference": reference_case(folder),
        "run in S3": bucket_case,
        "run in Redis": redis_case,
    }


def run_lives(services: LocalServices, folder: Path, scale: Scale) -> Outcome:
    """Lives until there were so many steps. Raises what broke, with the seed and the steps."""
    began, number = time.monotonic(), scale.seed
    LifeOfRuns.counts.clear()
    with _without_warnings("worker"):
        while LifeOfRuns.counts.total() < scale.steps:
            try:
                live(services, folder, examples=EXAMPLES_AT_ONCE, number=number)
            except BaseException as error:
                error.add_note(f"lives of runs: seed {number}, {EXAMPLES_AT_ONCE} examples")
                raise
            number += 1
    return Outcome(scale=scale, steps=Counter(LifeOfRuns.counts), lives_s=time.monotonic() - began)


@contextlib.contextmanager
def _without_warnings(logger: str) -> Iterator[None]:
    """Log errors alone: what would be warned of happens here on purpose."""
    log = logging.getLogger(logger)
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def run_all_cases(folder: Path, scale: Scale) -> tuple[Tally, ...]:
    """Every kind of case, so often as its share says. Raises Surprise."""
    found = []
    for kind, case in kinds(folder).items():
        found.append(run_cases(kind, case, count=SHARES[kind] * scale.shares, seed=scale.seed))
    began = time.monotonic()
    examples = max(LEAST_WHOLE, SHARES[WHOLE] * scale.shares)
    made, accepted = load_whole_recipes(examples=examples, number=scale.seed)
    wall_s = time.monotonic() - began
    whole = Tally(kind=WHOLE, cases=made, accepted=accepted, wall_s=wall_s, slowest_s=0.0, grown_bytes=0)
    return (*found, whole)


def table(outcome: Outcome) -> str:
    """What happened and how often."""
    return "\n".join([*_lives(outcome), *_cases(outcome)])


def _lives(outcome: Outcome) -> Iterator[str]:
    if not outcome.steps:
        return
    yield f"seed {outcome.scale.seed}: {outcome.steps.total():,} steps in {outcome.lives_s:.0f} s; every promise held"
    for kind, times in sorted(outcome.steps.items()):
        yield f"  {kind:<36}{times:>8,}"


def _cases(outcome: Outcome) -> Iterator[str]:
    if not outcome.tallies:
        return
    wall_s = sum(tally.wall_s for tally in outcome.tallies)
    counted = f"{outcome.cases:,} cases in {wall_s:.0f} s"
    yield f"seed {outcome.scale.seed}: {counted}; each was accepted, or refused in words"
    yield f"  {'kind':<20}{'cases':>9}{'accepted':>10}{'wall':>9}{'slowest':>11}{'memory':>11}"
    for tally in outcome.tallies:
        slowest = f"{tally.slowest_s * 1000:.0f} ms" if tally.slowest_s else "-"
        memory = f"+{tally.grown_bytes / 2**20:.0f} MiB"
        counted = f"{tally.kind:<20}{tally.cases:>9,}{tally.accepted:>10,}"
        yield f"  {counted}{tally.wall_s:>7.0f} s{slowest:>11}{memory:>11}"
