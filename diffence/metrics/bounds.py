"""Lower bounds of epsilon, of differential privacy, from what an attack gets right."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

from numpy.typing import ArrayLike
from scipy import stats

from diffence.metrics.checks import checked_scores
from diffence.metrics.rates import clopper_pearson

RatioMethod = Literal["katz", "adjusted_log", "bailey", "inverse_sinh", "clopper_pearson"]
Direction = Literal["tpr/fpr", "tnr/fnr", "fpr/tpr", "fnr/tnr"]


class EpsilonBound(NamedTuple):
    """epsilon >= value with confidence 1 - alpha, from this threshold and direction; looked_at: how many there were."""

    value: float
    threshold: float
    direction: Direction
    looked_at: int


def ratio_bound(
    tp: int, fn: int, fp: int, tn: int, method: RatioMethod = "clopper_pearson", alpha: float = 0.05
) -> float:
    """A lower bound of TPR / FPR, one-sided at level alpha, from the counts of a threshold that was fixed beforehand.

    epsilon >= log of it. Asymptotic: "katz", "adjusted_log" (half a count added everywhere), "bailey", "inverse_sinh".
    Exact: "clopper_pearson", the lower end of TPR over the upper end of FPR, alpha / 2 each; take it for claims. No
    true positive gives 0. Full and empty counts are moved by half a count where a formula would divide by 0.
    """
    if min(tp, fn, fp, tn) < 0 or tp + fn < 1 or fp + tn < 1:
        raise ValueError(
            f"tp, fn, fp, tn: expected counts with a member and a non-member, got {tp}, {fn}, {fp} and {tn}"
        )
    if method not in get_args(RatioMethod):
        raise ValueError(f"method: expected one of {', '.join(get_args(RatioMethod))}, got {method!r}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha: expected a value between 0 and 1, got {alpha}")
    members, nonmembers = tp + fn, fp + tn
    if method == "clopper_pearson":
        low, _ = clopper_pearson(tp, members, 1 - alpha)
        _, high = clopper_pearson(fp, nonmembers, 1 - alpha)
        return low / high
    right, wrong = float(tp), float(fp)
    if fn == 0 and tn == 0:
        right, wrong = right - 0.5, wrong - 0.5
    z = float(stats.norm.ppf(alpha))
    if method == "adjusted_log":
        right, wrong, whole, other = right + 0.5, wrong + 0.5, members + 0.5, nonmembers + 0.5
        spread = 1 / right - 1 / whole + 1 / wrong - 1 / other
        return right / whole / (wrong / other) * math.exp(z * math.sqrt(spread))
    if tp == 0:
        return 0.0
    if fp == 0:
        wrong = z * z if method == "inverse_sinh" else 0.5
    if method == "inverse_sinh":
        spread = 1 / right - 1 / members + 1 / wrong - 1 / nonmembers
        return right / members / (wrong / nonmembers) * math.exp(2 * math.asinh(z / 2 * math.sqrt(max(spread, 0.0))))
    if method == "bailey" and right == members:
        right -= 0.5
    tpr, fpr = right / members, wrong / nonmembers
    miss, reject = (1 - tpr) / right, (1 - fpr) / wrong
    if method == "katz":
        return tpr / fpr * math.exp(z * math.sqrt(miss + reject))
    root = math.sqrt(max(miss + reject - z * z * miss * reject / 9, 0.0))
    return tpr / fpr * max((1 + z / 3 * root) / (1 - z * z * reject / 9), 0.0) ** 3


def epsilon_lower_bound(
    members: ArrayLike,
    nonmembers: ArrayLike,
    thresholds: ArrayLike,
    *,
    method: RatioMethod = "clopper_pearson",
    alpha: float = 0.05,
    inverted: bool = False,
) -> EpsilonBound:
    """The best lower bound of epsilon over thresholds and directions, which holds with confidence 1 - alpha.

    thresholds (k,): fixed beforehand, for example at quantiles of known samples' scores; ones chosen on the samples
    evaluated make the bound void. Directions: TPR / FPR and TNR / FNR; inverted: FPR / TPR and FNR / TNR too, which
    an attack worse than chance needs. Each bound is taken at alpha / (thresholds x directions), Bonferroni's correction
    for looking at all of them: few thresholds make a better bound than many. Never below 0, which always holds.

    The scores must be independent trials: one sample of each of many training runs, or many samples whose membership
    was decided by a coin each, where a bound from one run also needs that the samples do not influence each other.
    """
    positive, negative = checked_scores("members", members), checked_scores("nonmembers", nonmembers)
    levels = checked_scores("thresholds", thresholds)
    directions = 4 if inverted else 2
    looked_at = len(levels) * directions
    best = EpsilonBound(0.0, float(levels[0]), "tpr/fpr", looked_at)
    for threshold in levels:
        tp, fp = int((positive >= threshold).sum()), int((negative >= threshold).sum())
        for direction, counts in _directions(tp, len(positive) - tp, fp, len(negative) - fp):
            if direction in ("tpr/fpr", "tnr/fnr") or inverted:
                ratio = ratio_bound(*counts, method, alpha / looked_at)
                if ratio > 1 and math.log(ratio) > best.value:
                    best = EpsilonBound(math.log(ratio), float(threshold), direction, looked_at)
    return best


def _directions(tp: int, fn: int, fp: int, tn: int) -> Iterator[tuple[Direction, tuple[int, int, int, int]]]:
    yield "tpr/fpr", (tp, fn, fp, tn)
    yield "tnr/fnr", (tn, fp, fn, tp)
    yield "fpr/tpr", (fp, tn, tp, fn)
    yield "fnr/tnr", (fn, tp, tn, fp)
