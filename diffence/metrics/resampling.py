"""Bootstrap intervals, of one attack and of differences on the same samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from diffence.metrics.checks import Floats, Groups, Ints, checked_labels, checked_scores
from diffence.metrics.curve import FIGURES, LOW_RATE, STATISTICS, Ranked, Statistic, _auc


class Estimate(NamedTuple):
    """A figure, its 95 % interval and the number of samples that it was computed from."""

    value: float
    low: float
    high: float
    n: int


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
        positive, negative = checked_scores("members", members), checked_scores("nonmembers", nonmembers)
        self.strata = _strata(len(positive), len(negative), groups)
        self.together = Ranked(positive, negative)
        self.within = [Ranked(positive[ours], negative[theirs]) for ours, theirs in self.strata]
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
                values.append(FIGURES[name](*counts, rate, strict))
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
