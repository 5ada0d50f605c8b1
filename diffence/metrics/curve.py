"""The ROC curve of an attack's scores and the figures read from it.

Tied scores are one point of the curve, and all points are kept: leaving out collinear ones, as scikit-learn does by
default, can change the true-positive rate at a low false-positive rate. Infinite scores are ranked; NaN is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from diffence.metrics.checks import Floats, Ints, checked_scores

Statistic = Literal["auc", "balanced_accuracy_oracle", "tpr_at_fpr", "tnr_at_fnr"]

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
# tp, fp (rows, points): true and false positives at every threshold, from "nobody" (0) to "everybody"; one row a
# resample. Plain estimates and bootstrap replicates run the same code. The sums are exact integers.


def _auc(tp: Ints, fp: Ints, rate: float, strict: bool) -> Floats:
    twice: Ints = np.einsum(
        "rp,rp->r", np.diff(fp, axis=1), tp[:, 1:] + tp[:, :-1]
    )  # the trapezoids: ties count one half
    return np.asarray(twice / (2.0 * tp[:, -1] * fp[:, -1]))


def _oracle(tp: Ints, fp: Ints, rate: float, strict: bool) -> Floats:
    gain = (tp * fp[:, -1:] - fp * tp[:, -1:]).max(axis=1)  # (TPR - FPR), over a common denominator
    return np.asarray(0.5 + gain / (2.0 * tp[:, -1] * fp[:, -1]))


def _tpr(tp: Ints, fp: Ints, rate: float, strict: bool) -> Floats:
    allowed = allowed_errors("fpr", rate, int(fp[0, -1]), strict)
    last = (fp <= allowed).sum(axis=1) - 1
    return np.take_along_axis(tp, last[:, None], axis=1)[:, 0] / tp[:, -1]


def _tnr(tp: Ints, fp: Ints, rate: float, strict: bool) -> Floats:
    members = int(tp[0, -1])
    first = (members - tp > allowed_errors("fnr", rate, members, strict)).sum(axis=1)
    return 1.0 - np.take_along_axis(fp, first[:, None], axis=1)[:, 0] / fp[:, -1]


FIGURES: dict[Statistic, Callable[[Ints, Ints, float, bool], Floats]] = {
    "auc": _auc,
    "balanced_accuracy_oracle": _oracle,
    "tpr_at_fpr": _tpr,
    "tnr_at_fnr": _tnr,
}
STATISTICS: tuple[Statistic, ...] = tuple(FIGURES)


class Ranked:
    """Two groups of samples, each sample known by the place of its score among the distinct scores, best first."""

    def __init__(self, members: Floats, nonmembers: Floats) -> None:
        values, place = np.unique(np.concatenate([members, nonmembers]), return_inverse=True)
        self.thresholds = np.append(np.inf, values[::-1])
        places = len(values) - place  # from 1: place 0 is the threshold above all scores
        self.members, self.nonmembers = places[: len(members)], places[len(members) :]

    def __len__(self) -> int:
        return len(self.members) + len(self.nonmembers)

    def counts(self, members: Ints | None = None, nonmembers: Ints | None = None) -> tuple[Ints, Ints]:
        """tp, fp of resamples given as indices (rows, n) of the samples; without indices, of the samples themselves."""
        return self._cumulative(self.members, members), self._cumulative(self.nonmembers, nonmembers)

    def _cumulative(self, places: Ints, index: Ints | None) -> Ints:
        chosen = places[None] if index is None else places[index]
        rows, points = len(chosen), len(self.thresholds)
        flat = (chosen + points * np.arange(rows)[:, None]).ravel()
        return np.bincount(flat, minlength=rows * points).reshape(rows, points).cumsum(axis=1)


def _figure(
    statistic: Statistic, members: ArrayLike, nonmembers: ArrayLike, rate: float = LOW_RATE, strict: bool = True
) -> float:
    tp, fp = Ranked(checked_scores("members", members), checked_scores("nonmembers", nonmembers)).counts()
    return float(FIGURES[statistic](tp, fp, rate, strict)[0])


# ---- metrics -----------------------------------------------------------------------------------------------------


def roc(members: ArrayLike, nonmembers: ArrayLike) -> Roc:
    """Every point of the ROC curve, ties grouped: one for each distinct score, and (0, 0)."""
    ranked = Ranked(checked_scores("members", members), checked_scores("nonmembers", nonmembers))
    tp, fp = ranked.counts()
    return Roc(fp[0] / fp[0, -1], tp[0] / tp[0, -1], ranked.thresholds)


def auc(members: ArrayLike, nonmembers: ArrayLike) -> float:
    """P(score of a member > score of a non-member) + P(equal) / 2, over all pairs."""
    return _figure("auc", members, nonmembers)


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
    return _figure("balanced_accuracy_oracle", members, nonmembers)


def tpr_at_fpr(members: ArrayLike, nonmembers: ArrayLike, fpr: float = LOW_RATE, *, strict: bool = True) -> float:
    """The largest TPR among ROC points with FPR < fpr (strict, as LiRA, HAMP and Diffence) or FPR <= fpr.

    With 1000 non-members and 0.001, strict allows no false positive, strict=False one.
    """
    return _figure("tpr_at_fpr", members, nonmembers, fpr, strict)


def tnr_at_fnr(members: ArrayLike, nonmembers: ArrayLike, fnr: float = LOW_RATE, *, strict: bool = True) -> float:
    """The mirror image of `tpr_at_fpr`: the largest TNR among ROC points with FNR < fnr (strict) or FNR <= fnr."""
    return _figure("tnr_at_fnr", members, nonmembers, fnr, strict)
