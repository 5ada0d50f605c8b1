"""How well an attack tells members from non-members, and how sure one can be of that figure.

Everywhere: `members` and `nonmembers` are an attack's scores of the two groups, each of shape (n,), larger = more
likely a member. Members are the positive class, and a sample is called a member when its score >= the threshold.
Tied scores are one point of the ROC curve, and all points are kept: leaving out collinear ones, as scikit-learn does by
default, can change the true-positive rate at a low false-positive rate. Infinite scores are ranked; NaN is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

__all__ = [
    "LOW_RATE",
    "STATISTICS",
    "Estimate",
    "Roc",
    "auc",
    "balanced_accuracy",
    "balanced_accuracy_oracle",
    "bootstrap",
    "calibrate_class_thresholds",
    "calibrate_threshold",
    "clopper_pearson",
    "ece",
    "gap_floor",
    "js_divergence",
    "paired_bootstrap",
    "phi",
    "roc",
    "tnr_at_fnr",
    "tpr_at_fpr",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Groups = tuple[ArrayLike, ArrayLike]
Statistic = Literal["auc", "balanced_accuracy_oracle", "tpr_at_fpr", "tnr_at_fnr"]

LOW_RATE = 0.001  # the 0.1 % of "TPR at 0.1 % FPR"


class Estimate(NamedTuple):
    """A figure, its 95 % interval and the number of samples that it was computed from."""

    value: float
    low: float
    high: float
    n: int


class Roc(NamedTuple):
    """All points of an empirical ROC curve, from (0, 0) to (1, 1).

    fpr, tpr: ascending, each (points,). thresholds: descending, (points,); the first is +inf (nobody is a member).
    """

    fpr: Floats
    tpr: Floats
    thresholds: Floats


# ---- checked input -----------------------------------------------------------------------------------------------


def _scores(name: str, values: ArrayLike) -> Floats:
    array = np.asarray(values)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name}: expected at least one score in one dimension, got shape {array.shape}")
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected real numbers, got {array.dtype}")
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise ValueError(f"{name}: expected scores without NaN, got {int(np.isnan(array).sum())} NaN")
    return array.astype(np.float64)


def checked_labels(name: str, values: ArrayLike, n: int, classes: int | None = None) -> Ints:
    array = np.asarray(values)
    if array.shape != (n,):
        raise ValueError(f"{name}: expected shape ({n},), got {array.shape}")
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got {array.dtype}")
    if classes is not None and (array.min() < 0 or array.max() >= classes):
        raise ValueError(f"{name}: expected classes 0 to {classes - 1}, got {array.min()} to {array.max()}")
    return array.astype(np.int64)


def checked_rows(name: str, values: ArrayLike) -> Floats:
    array = np.asarray(values)
    if array.ndim != 2 or len(array) == 0 or array.shape[1] < 2:
        raise ValueError(f"{name}: expected shape (n >= 1, classes >= 2), got {array.shape}")
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name}: expected real numbers, got {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    return array.astype(np.float64)


def checked_probabilities(name: str, rows: Floats) -> Floats:
    off = np.abs(rows.sum(axis=1) - 1).max()
    if rows.min() < 0 or off > 1e-3:
        raise ValueError(
            f"{name}: expected probabilities (not negative, rows summing to 1 within 0.001); "
            f"smallest is {rows.min():.6g}, a sum is off by {off:.3g}"
        )
    return rows


def _allowed(name: str, rate: float, n: int, strict: bool) -> int:
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
    allowed = _allowed("fpr", rate, int(fp[0, -1]), strict)
    last = (fp <= allowed).sum(axis=1) - 1
    return np.take_along_axis(tp, last[:, None], axis=1)[:, 0] / tp[:, -1]


def _tnr(tp: Ints, fp: Ints, rate: float, strict: bool) -> Floats:
    members = int(tp[0, -1])
    first = (members - tp > _allowed("fnr", rate, members, strict)).sum(axis=1)
    return 1.0 - np.take_along_axis(fp, first[:, None], axis=1)[:, 0] / fp[:, -1]


_FIGURES: dict[Statistic, Callable[[Ints, Ints, float, bool], Floats]] = {
    "auc": _auc,
    "balanced_accuracy_oracle": _oracle,
    "tpr_at_fpr": _tpr,
    "tnr_at_fnr": _tnr,
}
STATISTICS: tuple[Statistic, ...] = tuple(_FIGURES)


class _Ranked:
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
    tp, fp = _Ranked(_scores("members", members), _scores("nonmembers", nonmembers)).counts()
    return float(_FIGURES[statistic](tp, fp, rate, strict)[0])


# ---- metrics -----------------------------------------------------------------------------------------------------


def roc(members: ArrayLike, nonmembers: ArrayLike) -> Roc:
    """Every point of the ROC curve, ties grouped: one for each distinct score, and (0, 0)."""
    ranked = _Ranked(_scores("members", members), _scores("nonmembers", nonmembers))
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


def calibrate_threshold(members: ArrayLike, nonmembers: ArrayLike) -> float:
    """The threshold that an attacker takes from known samples (Song and Mittal, USENIX Security 2021).

    Candidates are all scores, members first, in the order given; the one with the largest
    (share of members >= it + share of non-members < it) / 2 is chosen, the first of equals.
    """
    positive, negative = _scores("members", members), _scores("nonmembers", nonmembers)
    candidates = np.concatenate([positive, negative])
    tpr = (len(positive) - np.searchsorted(np.sort(positive), candidates, side="left")) / len(positive)
    tnr = np.searchsorted(np.sort(negative), candidates, side="left") / len(negative)
    return float(candidates[np.argmax(tpr + tnr)])


def calibrate_class_thresholds(
    members: ArrayLike, nonmembers: ArrayLike, member_labels: ArrayLike, nonmember_labels: ArrayLike, classes: int
) -> tuple[Floats, Ints]:
    """`calibrate_threshold` in each class -> thresholds (classes,), known samples of each class (classes, 2).

    A class without a known member or without a known non-member gets the threshold of all classes together. The counts
    (members, non-members) say how much each threshold is worth: with ten samples a class it is mostly noise.
    """
    positive, negative = _scores("members", members), _scores("nonmembers", nonmembers)
    positive_labels = checked_labels("member_labels", member_labels, len(positive), classes)
    negative_labels = checked_labels("nonmember_labels", nonmember_labels, len(negative), classes)
    counts = np.stack([np.bincount(labels, minlength=classes) for labels in (positive_labels, negative_labels)], axis=1)
    thresholds = np.full(classes, calibrate_threshold(positive, negative))
    for label in np.flatnonzero(counts.min(axis=1)):
        thresholds[label] = calibrate_threshold(positive[positive_labels == label], negative[negative_labels == label])
    return thresholds, counts


def gap_floor(train_accuracy: float, test_accuracy: float) -> float:
    """(1 + train accuracy - test accuracy) / 2: what labels alone give away. An attack below adds nothing to them."""
    for name, accuracy in (("train_accuracy", train_accuracy), ("test_accuracy", test_accuracy)):
        if not 0 <= accuracy <= 1:
            raise ValueError(f"{name}: expected a share from 0 to 1, got {accuracy}")
    return (1 + train_accuracy - test_accuracy) / 2


def ece(
    outputs: ArrayLike, labels: ArrayLike, *, kind: Literal["logits", "probabilities"] = "logits", bins: int = 10
) -> float:
    """Expected calibration error: sum over bins of (share of samples) |accuracy - mean confidence|.

    outputs (n, classes), of the `kind` said; labels (n,). Equal bins of the largest probability, closed on the right.
    """
    rows = checked_rows("outputs", outputs)
    truth = checked_labels("labels", labels, len(rows), rows.shape[1])
    if bins < 1:
        raise ValueError(f"bins: expected at least 1, got {bins}")
    if kind == "logits":
        probabilities = special.softmax(rows, axis=1)
    elif kind == "probabilities":
        probabilities = checked_probabilities("outputs", rows)
    else:
        raise ValueError(f"kind: expected 'logits' or 'probabilities', got {kind!r}")
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == truth
    place = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    return float(np.abs(np.bincount(place, correct - confidence)).sum() / len(rows))


def phi(logits: ArrayLike, labels: ArrayLike | None = None) -> Floats:
    """z_y - logsumexp of the other logits = log(p_y / (1 - p_y)), (n,); y is the first maximum where labels is None.

    logits (n, classes), labels (n,). The paper's equation 2, in float64 and without a cap.
    """
    rows = checked_rows("logits", logits)
    chosen = rows.argmax(axis=1) if labels is None else checked_labels("labels", labels, *rows.shape)
    index = chosen[:, None]
    others = rows.copy()
    np.put_along_axis(others, index, -np.inf, axis=1)
    return np.asarray(np.take_along_axis(rows, index, axis=1)[:, 0] - special.logsumexp(others, axis=1))


def js_divergence(p: ArrayLike, q: ArrayLike) -> float:
    """Jensen-Shannon divergence of two histograms (bins,), natural logarithm: 0 to log 2. Counts are normalised."""
    shares = []
    for name, values in (("p", p), ("q", q)):
        counts = _scores(name, values)
        if counts.min() < 0 or not 0 < counts.sum() < np.inf:
            raise ValueError(f"{name}: expected finite counts or probabilities, not negative and not all 0")
        shares.append(counts / counts.sum())
    if shares[0].shape != shares[1].shape:
        raise ValueError(f"p, q: expected equally many bins, got {len(shares[0])} and {len(shares[1])}")
    middle = (shares[0] + shares[1]) / 2
    return float(sum(special.rel_entr(share, middle).sum() for share in shares) / 2)


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


# ---- bootstrap ---------------------------------------------------------------------------------------------------


def _strata(members: int, nonmembers: int, groups: Groups | None) -> list[tuple[Ints, Ints]]:
    """Positions of the members and of the non-members of each group; one group of all where groups is None."""
    if groups is None:
        return [(np.arange(members), np.arange(nonmembers))]
    positive = checked_labels("groups[0]", groups[0], members)
    negative = checked_labels("groups[1]", groups[1], nonmembers)
    names = np.unique(positive)
    if not np.array_equal(names, np.unique(negative)):
        raise ValueError("groups: expected members and non-members in every group")
    return [(np.flatnonzero(positive == name), np.flatnonzero(negative == name)) for name in names]


class _Sample:
    """The scores that are resampled: ranked all together and, where they come from several groups, in each of them."""

    def __init__(self, members: ArrayLike, nonmembers: ArrayLike, groups: Groups | None) -> None:
        positive, negative = _scores("members", members), _scores("nonmembers", nonmembers)
        self.strata = _strata(len(positive), len(negative), groups)
        self.together = _Ranked(positive, negative)
        self.within = [_Ranked(positive[ours], negative[theirs]) for ours, theirs in self.strata]
        self.sizes = [(len(ours), len(theirs)) for ours, theirs in self.strata]

    def figures(
        self, statistics: Sequence[Statistic], draws: list[tuple[Ints, Ints]], pooled: bool, rate: float, strict: bool
    ) -> Floats:
        """(statistics, rows); draws: for each group (rows, members) and (rows, non-members), positions inside it."""
        members, nonmembers = (
            np.concatenate([own[side][draw[side]] for own, draw in zip(self.strata, draws, strict=True)], axis=1)
            for side in (0, 1)
        )
        counts = self.together.counts(members, nonmembers)
        by_group = len(self.within) > 1 and not pooled
        values = []
        for name in statistics:
            if name == "auc" and by_group:
                parts = [
                    _auc(*ranked.counts(*draw), rate, strict) for ranked, draw in zip(self.within, draws, strict=True)
                ]
                values.append(np.average(parts, axis=0, weights=[ours * theirs for ours, theirs in self.sizes]))
            else:
                values.append(_FIGURES[name](*counts, rate, strict))
        return np.stack(values)

    def draws(self, resamples: int, seed: int) -> Iterator[list[tuple[Ints, Ints]]]:
        """Resamples in blocks. They depend on the sizes of the groups and the seed alone: that is what makes pairs."""
        if resamples < 1:
            raise ValueError(f"resamples: expected at least 1, got {resamples}")
        rng = np.random.default_rng(seed)
        block = max(1, 2**20 // sum(map(sum, self.sizes)))  # some MiB at a time
        for start in range(0, resamples, block):
            rows = min(block, resamples - start)
            yield [
                (rng.integers(ours, size=(rows, ours)), rng.integers(theirs, size=(rows, theirs)))
                for ours, theirs in self.sizes
            ]

    def identity(self) -> list[tuple[Ints, Ints]]:
        return [(np.arange(ours)[None], np.arange(theirs)[None]) for ours, theirs in self.sizes]


def _estimates(
    statistics: Sequence[Statistic], values: Floats, replicates: Floats, n: int, oracle_limits: tuple[float, float]
) -> dict[str, Estimate]:
    estimates: dict[str, Estimate] = {}
    for name, value, own in zip(statistics, values, replicates, strict=True):
        low, high = np.percentile(own, [2.5, 97.5])
        if name == "balanced_accuracy_oracle":
            # The maximum over thresholds is too large, and that of a resample is too large once more: percentiles add
            # up both (measured: at AUC 0.5 and 1000 + 1000 samples they cover in 1 % of the cases, mirrored in 89 %).
            low, high = np.clip([2 * value - high, 2 * value - low], *oracle_limits)
        estimates[name] = Estimate(float(value), float(low), float(high), n)
    return estimates


def bootstrap(
    members: ArrayLike,
    nonmembers: ArrayLike,
    statistics: Sequence[Statistic] = STATISTICS,
    *,
    seed: int,
    resamples: int = 1000,
    groups: Groups | None = None,
    pooled: bool = False,
    rate: float = LOW_RATE,
    strict: bool = True,
) -> dict[str, Estimate]:
    """Each statistic with its 95 % bootstrap interval; members and non-members are resampled apart.

    The interval is the percentiles'; for the oracle accuracy, which is biased upwards, they are mirrored at the value.
    Below some thousand samples that of a rate at 0.1 % is rough, for it rests on one or two samples.

    groups: for repeats, two integer arrays that name the classifier which scored each member and each non-member.
    Resampling keeps to the groups. Different classifiers' scores have no common scale, so the AUC is the share of right
    pairs among all pairs of one classifier; `pooled=True` counts the pairs across classifiers too. The statistics
    that pick a threshold on the samples evaluated pick one for all groups: one each would make them too large, and
    a rate of 0.1 % cannot be seen in a small group. rate, strict: of `tpr_at_fpr` and `tnr_at_fnr`.
    """
    sample = _Sample(members, nonmembers, groups)

    def figures(draws: list[tuple[Ints, Ints]]) -> Floats:
        return sample.figures(statistics, draws, pooled, rate, strict)

    replicates = np.concatenate([figures(draws) for draws in sample.draws(resamples, seed)], axis=1)
    value = figures(sample.identity())[:, 0]
    return _estimates(statistics, value, replicates, len(sample.together), (0.5, 1.0))


def paired_bootstrap(
    defended: tuple[ArrayLike, ArrayLike],
    undefended: tuple[ArrayLike, ArrayLike],
    statistics: Sequence[Statistic] = STATISTICS,
    *,
    seed: int,
    resamples: int = 1000,
    groups: Groups | None = None,
    pooled: bool = False,
    rate: float = LOW_RATE,
    strict: bool = True,
) -> dict[str, Estimate]:
    """defended - undefended of each statistic, with its interval: each resample takes the same samples from both.

    defended, undefended: (members, nonmembers) scores of the same samples in the same order. The rest as `bootstrap`.
    """
    pair = [_Sample(*scores, groups) for scores in (defended, undefended)]
    if pair[0].sizes != pair[1].sizes:
        raise ValueError(
            "defended, undefended: expected scores of the same samples, "
            f"got (members, non-members) {pair[0].sizes} and {pair[1].sizes}"
        )

    def change(draws: list[tuple[Ints, Ints]]) -> Floats:
        after, before = (sample.figures(statistics, draws, pooled, rate, strict) for sample in pair)
        return after - before

    replicates = np.concatenate([change(draws) for draws in pair[0].draws(resamples, seed)], axis=1)
    return _estimates(statistics, change(pair[0].identity())[:, 0], replicates, len(pair[0].together), (-0.5, 0.5))
