"""The ROC curve of an attack's scores and the figures read from it.

Tied scores are one point of the curve, and all points are kept: leaving out collinear ones, as scikit-learn does by
default, can change the true-positive rate at a low false-positive rate. Infinite scores are ranked; NaN is an error.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike

from diffence.metrics.checks import Floats, Ints, checked_scores

Statistic = Literal["auc", "balanced_accuracy_oracle", "tpr_at_fpr", "tnr_at_fnr"]

STATISTICS: tuple[Statistic, ...] = get_args(Statistic)
LOW_RATE = 0.001  # the 0.1 % of "TPR at 0.1 % FPR"


class Roc(NamedTuple):
    """All points of an empirical ROC curve, from (0, 0) to (1, 1).

    fpr, tpr: ascending, each (points,). thresholds: descending, (points,); the first is +inf (nobody is a member).
    """

    fpr: Floats
    tpr: Floats
    thresholds: Floats


def allowed_errors(name: str, rate: float, n: int, strict: bool) -> int:
    """The largest number of errors among n whose share is below `rate` (strict) or at most `rate`."""
    if not 0 <= rate <= 1 or (strict and rate == 0):
        bound = "above 0 and at most 1 (nothing is strictly below 0: use strict=False)" if strict else "from 0 to 1"
        raise ValueError(f"{name}: expected a rate {bound}, got {rate}")
    shares = np.arange(n + 1) / n  # a share and a rate that are equal round to the same float
    return int(np.searchsorted(shares, rate, side="left" if strict else "right")) - 1


# ---- figures from counts -----------------------------------------------------------------------------------------
# tp, fp (points,): true and false positives at every threshold, from "nobody" (0) to "everybody". The sums are exact
# integers, and the divisions those of the bootstrap's replicates, so equal samples have equal figures to the last bit.


def counts(members: ArrayLike, nonmembers: ArrayLike) -> tuple[Ints, Ints, Floats]:
    """tp, fp and the thresholds, +inf first: ties grouped, one point for each distinct score."""
    positive, negative = checked_scores("members", members), checked_scores("nonmembers", nonmembers)
    values, place = np.unique(np.concatenate([positive, negative]), return_inverse=True)
    points = len(values) + 1
    places = len(values) - place  # from 1: place 0 is the threshold above all scores
    tp, fp = (np.bincount(side, minlength=points).cumsum() for side in np.split(places, [len(positive)]))
    return tp, fp, np.append(np.inf, values[::-1])


def point_at_fpr(tp: Ints, fp: Ints, allowed: int) -> int:
    """The point with the most true positives at `allowed` false positives; of those that have as many, the first."""
    most = tp[np.searchsorted(fp, allowed, side="right") - 1]
    return int(np.searchsorted(tp, most, side="left"))


def point_at_fnr(tp: Ints, fp: Ints, allowed: int) -> int:
    """The point with the fewest false positives at `allowed` false negatives; of those that have as few, the last."""
    fewest = fp[np.searchsorted(tp, tp[-1] - allowed, side="left")]
    return int(np.searchsorted(fp, fewest, side="right")) - 1


# ---- metrics -----------------------------------------------------------------------------------------------------


def roc(members: ArrayLike, nonmembers: ArrayLike) -> Roc:
    """Every point of the ROC curve, ties grouped: one for each distinct score, and (0, 0)."""
    tp, fp, thresholds = counts(members, nonmembers)
    return Roc(fp / fp[-1], tp / tp[-1], thresholds)


def auc(members: ArrayLike, nonmembers: ArrayLike) -> float:
    """P(score of a member > score of a non-member) + P(equal) / 2, over all pairs."""
    tp, fp, _ = counts(members, nonmembers)
    twice = np.dot(np.diff(fp), tp[1:] + tp[:-1])  # the trapezoids: ties count one half
    return float(twice / (2.0 * tp[-1] * fp[-1]))


def balanced_accuracy(members: ArrayLike, nonmembers: ArrayLike) -> float:
    """(TPR + TNR) / 2 of decisions made elsewhere: two bool arrays, True = called a member.

    With a threshold from known samples (`calibrate_threshold`) this is the attack accuracy that an attacker reaches.
    """
    for name, decisions in (("members", members), ("nonmembers", nonmembers)):
        if np.asarray(decisions).dtype != np.bool_:
            raise TypeError(
                f"{name}: expected decisions (bool, for example scores >= threshold), got {np.asarray(decisions).dtype}"
            )
    return auc(members, nonmembers)  # of two-valued scores the AUC is (TPR + TNR) / 2


def balanced_accuracy_oracle(members: ArrayLike, nonmembers: ArrayLike) -> float:
    """max over thresholds of 1 - (FPR + FNR) / 2, the threshold chosen on the very samples evaluated.

    The convention of LiRA, HAMP and Diffence. Optimistic by construction: no attacker knows this threshold.
    """
    tp, fp, _ = counts(members, nonmembers)
    gain = (tp * fp[-1] - fp * tp[-1]).max()  # (TPR - FPR), over a common denominator
    return float(0.5 + gain / (2.0 * tp[-1] * fp[-1]))


def tpr_at_fpr(members: ArrayLike, nonmembers: ArrayLike, fpr: float = LOW_RATE, *, strict: bool = True) -> float:
    """The largest TPR among ROC points with FPR < fpr (strict, as LiRA, HAMP and Diffence) or FPR <= fpr.

    With 1000 non-members and 0.001, strict allows no false positive, strict=False one.
    """
    tp, fp, _ = counts(members, nonmembers)
    return float(tp[point_at_fpr(tp, fp, allowed_errors("fpr", fpr, int(fp[-1]), strict))] / tp[-1])


def tnr_at_fnr(members: ArrayLike, nonmembers: ArrayLike, fnr: float = LOW_RATE, *, strict: bool = True) -> float:
    """The mirror image of `tpr_at_fpr`: the largest TNR among ROC points with FNR < fnr (strict) or FNR <= fnr."""
    tp, fp, _ = counts(members, nonmembers)
    return float(1.0 - fp[point_at_fnr(tp, fp, allowed_errors("fnr", fnr, int(tp[-1]), strict))] / fp[-1])
