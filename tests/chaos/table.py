"""What a campaign came to, as a table."""

import statistics
from collections import Counter
from collections.abc import Iterator

from tests.chaos.campaign import Outcome


def table(outcome: Outcome) -> str:
    """Faults by kind with their recovery times, and the verdict."""
    return "\n".join(_lines(outcome))


def _lines(outcome: Outcome) -> Iterator[str]:
    scale = outcome.scale
    fleet = f"{scale.workers} workers on {scale.model}, lease {scale.lease_s:g} s"
    yield f"seed {scale.seed}: {fleet}; {outcome.wall_s:.0f} s"
    yield f"{'fault':<34}{'times':>7}{'recovery: median':>18}{'worst':>9}"
    counts = Counter(one.kind for one in outcome.struck)
    for kind in sorted(counts):
        yield f"{kind:<34}{counts[kind]:>7}{_times(outcome.recovery_s.get(kind, []))}"
    kills = [kind for kind in counts if kind.startswith("kill")]
    times = [seconds for kind in kills for seconds in outcome.recovery_s.get(kind, [])]
    yield f"{'all kills':<34}{sum(counts[kind] for kind in kills):>7}{_times(times)}"
    yield f"kills that met no one: {outcome.unmet}"
    yield f"drained workers ended with: {_exits(outcome.drain_exits)}"
    yield f"workers that ended by themselves: {_exits(outcome.own_exits)}"
    verdict = outcome.verdict
    yield (
        f"runs {len(outcome.runs)}, lost {len(verdict.lost)}, doubled {len(verdict.doubled)}, "
        f"differing {len(verdict.differing)}, left behind {len(verdict.left)}"
    )
    yield from verdict.faults()


def _exits(codes: list[int]) -> str:
    return ", ".join(f"{code} ({times} x)" for code, times in sorted(Counter(codes).items())) or "-"


def _times(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):>16.2f} s{max(seconds):>7.2f} s" if seconds else f"{'-':>18}{'-':>9}"
