"""Statistics of the trials: differences of shares with intervals, AUC and calibration error."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 4000
BINS = 10


@dataclass(frozen=True, kw_only=True)
class Gain:
    """How much more often one policy is right than another on the same tasks."""

    difference: float
    low: float
    """Lower bound of the 95 % interval of the difference (paired bootstrap over the tasks)."""
    high: float
    p: float
    """Probability of so uneven a split of the tasks on which the two differ (exact McNemar test)."""


def gain(ours: Sequence[bool], theirs: Sequence[bool], *, seed: int = 0) -> Gain:
    """The gain of `ours` over `theirs`, results of the same tasks in the same order."""
    differences = np.array(ours, float) - np.array(theirs, float)
    drawn = np.random.default_rng(seed).integers(0, len(differences), (RESAMPLES, len(differences)))
    low, high = np.quantile(differences[drawn].mean(axis=1), (0.025, 0.975))
    better, worse = int((differences > 0).sum()), int((differences < 0).sum())
    return Gain(difference=float(differences.mean()), low=float(low), high=float(high), p=mcnemar(better, worse))


def mcnemar(better: int, worse: int) -> float:
    """Two-sided p: twice the probability of at most min(better, worse) heads in better + worse tosses of a coin."""
    tosses = better + worse
    tail = sum(math.comb(tosses, heads) for heads in range(min(better, worse) + 1))
    return min(1.0, tail / 2.0 ** (tosses - 1))


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """The area under the ROC curve: the share of pairs whose positive is higher, ties half; nan without pairs."""
    if not positive or not negative:
        return math.nan
    above = np.subtract.outer(np.array(positive), np.array(negative))
    return float(((above > 0) + 0.5 * (above == 0)).mean())


def calibration_error(scores: Sequence[float], right: Sequence[bool]) -> float:
    """The expected calibration error: the mean distance of scores from the share that is right, in bins of a tenth."""
    values, truth = np.array(scores), np.array(right, float)
    bins = np.minimum((values * BINS).astype(int), BINS - 1)
    gaps = [abs((values - truth)[bins == one].sum()) for one in range(BINS)]
    return float(sum(gaps) / len(values))
