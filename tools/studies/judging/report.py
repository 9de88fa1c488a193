"""The tables of the trials, as text."""

from collections.abc import Iterator, Sequence
from statistics import mean

from tools.studies.judging.figures import auc, calibration_error, gain
from tools.studies.judging.tasks import FIRST, POLICIES, WORDINGS
from tools.studies.judging.trial import Trial


def report(trials: Sequence[Trial]) -> str:
    """The tables of the trials of one kind: the gain of each policy, then the quality of the judges."""
    lines = [f"{trials[0].kind}: {len(trials)} tasks, {sum(len(one.right) for one in trials)} images drawn"]
    lines += ["", "  judged by     policy               right   against first: gain [95 %]      p       images a task"]
    lines += [f"  {line}" for line in _policies(trials)]
    lines += ["", "  judged by     AUC of all   within a task   mean of right   of wrong   calibration error"]
    lines += [f"  {line}" for line in _judges(trials)]
    return "\n".join(lines)


def _policies(trials: Sequence[Trial]) -> Iterator[str]:
    kind = trials[0].kind
    match, *_ = WORDINGS[kind]
    first = [one.outcomes[match.name][FIRST.name][0] for one in trials]
    yield f"{'nothing':<14}{FIRST.name:<20}{mean(first):>6.1%}{'':37}1.0"
    for wording in WORDINGS[kind]:
        for policy in sorted(POLICIES, key=lambda policy: (policy.retries, policy.variations)):
            if policy == FIRST or policy.name not in trials[0].outcomes[wording.name]:
                continue
            found = [one.outcomes[wording.name][policy.name] for one in trials]
            ours = [right for right, _ in found]
            more = gain(ours, first)
            between = f"{more.difference:+.1%} [{more.low:+.1%}, {more.high:+.1%}]"
            images = mean(drawn for _, drawn in found)
            yield f"{wording.name:<14}{policy.name:<20}{mean(ours):>6.1%}   {between:<26}{more.p:>8.4f}{images:>10.1f}"
    for count in (2, 4):
        best = [any(list(one.right.values())[:count]) for one in trials]
        yield f"{'the checker':<14}{f'best of {count}':<20}{mean(best):>6.1%}   {mean(best) - mean(first):+.1%}"


def _judges(trials: Sequence[Trial]) -> Iterator[str]:
    for wording in WORDINGS[trials[0].kind]:
        by_task = [[(score, one.right[seed]) for seed, score in one.scores[wording.name].items()] for one in trials]
        pairs = [pair for of_task in by_task for pair in of_task]
        good, bad = _split(pairs)
        error = calibration_error(*zip(*pairs, strict=True))
        yield (
            f"{wording.name:<14}{auc(good, bad):>10.2f}{_within(by_task):>16.2f}{_mean(good):>16.3f}{_mean(bad):>11.3f}"
            f"{error:>20.2f}"
        )


def _within(by_task: Sequence[Sequence[tuple[float, bool]]]) -> float:
    """The AUC over pairs of a right and a wrong image of the same task: how well a judge selects."""
    areas, weights = [], []
    for pairs in by_task:
        good, bad = _split(pairs)
        if good and bad:
            areas.append(auc(good, bad) * len(good) * len(bad))
            weights.append(len(good) * len(bad))
    return sum(areas) / sum(weights) if weights else float("nan")


def _split(pairs: Sequence[tuple[float, bool]]) -> tuple[list[float], list[float]]:
    return [score for score, right in pairs if right], [score for score, right in pairs if not right]


def _mean(scores: Sequence[float]) -> float:
    return mean(scores) if scores else float("nan")
