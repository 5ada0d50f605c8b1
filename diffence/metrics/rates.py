"""Rates with exact intervals, and what it takes to prove one."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from diffence.metrics.checks import checked_scores
from diffence.metrics.curve import LOW_RATE, allowed_errors, counts, point_at_fnr, point_at_fpr


class Share(NamedTuple):
    """`seen` of n samples, as a share, with its exact (Clopper-Pearson) 95 % interval."""

    value: float
    low: float
    high: float
    seen: int
    n: int


class RateEstimate(NamedTuple):
    """A point of the ROC curve as a claim: "called a member when score >= threshold" finds `rate` at `error`.

    threshold: +inf where nobody may be called a member. rate, error: TPR and FPR, or TNR and FNR. The threshold was
    chosen on the samples counted, so the intervals are those of the two shares as if it had been given: for a claim
    about an attacker who does not see these samples, take it from known ones.
    """

    threshold: float
    rate: Share
    error: Share


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact two-sided interval of a share of which `successes` of `trials` were seen."""
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(
            f"successes, trials: expected 0 <= successes <= trials, trials >= 1; got {successes}, {trials}"
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a value between 0 and 1, got {confidence}")
    tail = (1 - confidence) / 2
    low = stats.beta.ppf(tail, successes, trials - successes + 1) if successes > 0 else 0.0
    high = stats.beta.ppf(1 - tail, successes + 1, trials - successes) if successes < trials else 1.0
    return float(low), float(high)


def _share(count: int, n: int) -> Share:
    return Share(count / n, *clopper_pearson(count, n), count, n)


def _allowed(name: str, rate: float, n: int, strict: bool) -> int:
    return allowed_errors(name, rate, n, strict and rate != 0)


def rate_at(members: ArrayLike, nonmembers: ArrayLike, fpr: float = LOW_RATE, *, strict: bool = True) -> RateEstimate:
    """The largest TPR with FPR < fpr (strict) or FPR <= fpr, with the FPR reached; of equal points the lowest FPR.

    rate: true positives among the members; error: false positives among the non-members. fpr = 0: no false positive,
    strict or not; its interval then says what FPR the non-members at hand cannot exclude (`nonmembers_needed`).
    """
    tp, fp, thresholds = counts(members, nonmembers)
    point = point_at_fpr(tp, fp, _allowed("fpr", fpr, int(fp[-1]), strict))
    return RateEstimate(
        float(thresholds[point]), _share(int(tp[point]), int(tp[-1])), _share(int(fp[point]), int(fp[-1]))
    )


def negative_rate_at(
    members: ArrayLike, nonmembers: ArrayLike, fnr: float = LOW_RATE, *, strict: bool = True
) -> RateEstimate:
    """The mirror image of `rate_at`: the largest TNR with FNR within fnr, with the FNR reached.

    rate: true negatives among the non-members; error: false negatives among the members.
    """
    tp, fp, thresholds = counts(members, nonmembers)
    point = point_at_fnr(tp, fp, _allowed("fnr", fnr, int(tp[-1]), strict))
    tn, fn = int(fp[-1] - fp[point]), int(tp[-1] - tp[point])
    return RateEstimate(float(thresholds[point]), _share(tn, int(fp[-1])), _share(fn, int(tp[-1])))


def tpr_interval(
    members: ArrayLike, nonmembers: ArrayLike, fpr: float = LOW_RATE, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of the TPR at a false-positive rate of `fpr` in the population, whatever the scores' distributions are.

    Which threshold has that rate is not known either: of n non-members, a number between two binomial quantiles lies
    above it. low and high are the Clopper-Pearson ends of the TPR above the order statistics which these name; half of
    1 - confidence is for the threshold and half for the share. So it covers at least as often as it says, ties or not.
    low is 0 where no non-member need lie above the threshold (fewer than `nonmembers_needed(fpr, 1 - tail)`, tail =
    (1 - confidence) / 4). Measured, n + n normal scores, in percent: it covers 99 to 100; Clopper-Pearson at the
    sample's own threshold 24 to 75; the bootstrap 72 to 88 where n fpr is 1, 95 where it is 5 or more, and is half to
    two thirds as wide.
    """
    if not 0 < fpr < 1:
        raise ValueError(f"fpr: expected a rate between 0 and 1, got {fpr}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a value between 0 and 1, got {confidence}")
    positive = checked_scores("members", members)
    falling = np.sort(checked_scores("nonmembers", nonmembers))[::-1]
    n, tail = len(falling), (1 - confidence) / 4
    fewest = int(stats.binom.ppf(tail, n, fpr))  # the smallest k with P(K <= k) >= tail, so P(K < k) < tail
    most = int(stats.binom.isf(tail, n, fpr))
    low, high = 0.0, 1.0
    if fewest > 0:
        low, _ = clopper_pearson(int((positive > falling[fewest - 1]).sum()), len(positive), 1 - 2 * tail)
    if most < n:
        _, high = clopper_pearson(int((positive > falling[most]).sum()), len(positive), 1 - 2 * tail)
    return low, high


def tnr_interval(
    members: ArrayLike, nonmembers: ArrayLike, fnr: float = LOW_RATE, *, confidence: float = 0.95
) -> tuple[float, float]:
    """The mirror image of `tpr_interval`: of the TNR at a false-negative rate of `fnr`."""
    mirrored = -checked_scores("nonmembers", nonmembers), -checked_scores("members", members)
    return tpr_interval(*mirrored, fnr, confidence=confidence)


def nonmembers_needed(rate: float, confidence: float = 0.95) -> int:
    """How many non-members without a single false positive prove FPR <= rate, one-sided: 2995 for 0.1 % at 95 %.

    The smallest n with (1 - rate)^n <= 1 - confidence. With fewer, a claim about this rate rests on nothing seen.
    """
    if not 0 < rate < 1:
        raise ValueError(f"rate: expected a value between 0 and 1, got {rate}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a value between 0 and 1, got {confidence}")
    return math.ceil(math.log1p(-confidence) / math.log1p(-rate) - 1e-9)  # 1e-9: for quotients that are whole
