"""Bootstrap intervals, replicates, groups, and exact intervals of rates: against plain Python and in simulations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from diffence import metrics

SIX_MEMBERS, SIX_NONMEMBERS = [0.45, 0.9, 0.99], [0.1, 0.6, 0.2]


def normal_scores(auc: float, members: int, nonmembers: int, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return rng.normal(math.sqrt(2) * stats.norm.ppf(auc), 1, members), rng.normal(0, 1, nonmembers)


def test_the_interval_of_the_oracle_is_not_biased_twice() -> None:
    """Where there is nothing to find, the true value is 0.5; plain percentiles hold it in about 1 % of the cases."""
    covered = 0
    for seed in range(40):
        found = metrics.bootstrap(*normal_scores(0.5, 500, 500, seed), seed=seed, resamples=200)
        oracle = found["balanced_accuracy_oracle"]
        assert 0.5 <= oracle.low <= oracle.value <= oracle.high
        covered += oracle.low <= 0.5
    assert covered >= 30


def test_replicates_are_the_metrics_of_resamples() -> None:
    """The counted replicates equal the metrics of explicitly resampled scores, drawn by the same generator."""
    rng = np.random.default_rng(6)
    members, nonmembers = rng.integers(0, 9, 70) + 1.0, rng.integers(0, 9, 90) * 1.0
    found = metrics.bootstrap(members, nonmembers, seed=7, resamples=50, rate=0.1)
    draw = np.random.default_rng(7)
    ours, theirs = draw.integers(70, size=(50, 70)), draw.integers(90, size=(50, 90))
    resamples = [(members[a], nonmembers[b]) for a, b in zip(ours, theirs, strict=True)]
    for name in ("auc", "tpr_at_fpr", "tnr_at_fnr"):
        single = getattr(metrics, name)
        rate = () if name == "auc" else (0.1,)
        low, high = np.percentile([single(*pair, *rate) for pair in resamples], [2.5, 97.5])
        assert (found[name].low, found[name].high) == (pytest.approx(low), pytest.approx(high))
        assert found[name].value == single(members, nonmembers, *rate)
    low, high = np.percentile([metrics.balanced_accuracy_oracle(*pair) for pair in resamples], [2.5, 97.5])
    oracle = found["balanced_accuracy_oracle"]
    assert oracle[:3] == pytest.approx((oracle.value, 2 * oracle.value - high, 2 * oracle.value - low))


def test_the_seed_decides() -> None:
    scores = normal_scores(0.7, 50, 60, seed=8)
    first = metrics.bootstrap(*scores, seed=1, resamples=100)
    assert metrics.bootstrap(*scores, seed=1, resamples=100) == first
    assert metrics.bootstrap(*scores, seed=2, resamples=100) != first
    with pytest.raises(ValueError, match=r"^resamples: "):
        metrics.bootstrap(*scores, seed=1, resamples=0)


def test_pairs_are_pairs() -> None:
    """A difference of nothing is exactly nothing; one of nearly equal scores is much surer than two apart."""
    before = normal_scores(0.75, 400, 400, seed=9)
    for change in metrics.paired_bootstrap(before, before, seed=1, resamples=200).values():
        assert change[:3] == (0.0, 0.0, 0.0)
    rng = np.random.default_rng(10)
    after = tuple(own + rng.normal(0, 0.4, 400) for own in before)
    paired = metrics.paired_bootstrap(after, before, ("auc",), seed=1)["auc"]
    apart = metrics.bootstrap(*before, ("auc",), seed=1)["auc"]
    assert paired.value == pytest.approx(metrics.auc(*after) - metrics.auc(*before))
    assert paired.low < paired.value < paired.high < 0
    assert paired.high - paired.low < 0.6 * (apart.high - apart.low)


def test_pairs_must_be_of_the_same_samples() -> None:
    before, after = normal_scores(0.7, 30, 40, 1), normal_scores(0.7, 30, 41, 1)
    with pytest.raises(ValueError, match=r"^defended, undefended: .*\(30, 41\) and \(30, 40\)"):
        metrics.paired_bootstrap(after, before, seed=0, resamples=2)


def groups_of(sizes: list[tuple[int, int]]) -> tuple[NDArray[Any], NDArray[Any]]:
    return tuple(np.repeat(np.arange(len(sizes)), [size[side] for size in sizes]) for side in (0, 1))  # type: ignore[return-value]


def test_auc_of_groups_counts_pairs_of_one_classifier() -> None:
    sizes = [(40, 60), (90, 30), (55, 55)]
    parts = [normal_scores(0.7, *size, seed=seed) for seed, size in enumerate(sizes)]
    # Each classifier has a scale of its own.
    shifted = [(ours + 5 * place, theirs + 5 * place) for place, (ours, theirs) in enumerate(parts)]
    members, nonmembers = (np.concatenate([part[side] for part in shifted]) for side in (0, 1))
    found = metrics.bootstrap(members, nonmembers, seed=1, groups=groups_of(sizes), resamples=300)
    expected = np.average([metrics.auc(*part) for part in parts], weights=[a * b for a, b in sizes])
    assert found["auc"].value == pytest.approx(expected)
    assert found["tpr_at_fpr"].value == metrics.tpr_at_fpr(members, nonmembers)  # one threshold for all
    pooled = metrics.bootstrap(members, nonmembers, seed=1, groups=groups_of(sizes), resamples=300, pooled=True)
    assert pooled["auc"].value == metrics.auc(members, nonmembers)
    assert pooled["tpr_at_fpr"] == found["tpr_at_fpr"]
    # Resampling within groups leaves out the spread between them.
    ignored = metrics.bootstrap(members, nonmembers, seed=1, resamples=300)
    assert pooled["auc"].high - pooled["auc"].low < 0.7 * (ignored["auc"].high - ignored["auc"].low)


def test_one_group_is_no_group() -> None:
    scores = normal_scores(0.7, 50, 60, seed=8)
    same = metrics.bootstrap(*scores, seed=1, resamples=50, groups=(np.full(50, 3), np.full(60, 3)))
    assert same == metrics.bootstrap(*scores, seed=1, resamples=50)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (([0, 0, 1], [0, 0, 0]), "^groups: expected members and non-members in every group"),
        (([0, 0], [0, 0, 0]), r"^groups\[0\]: expected shape \(3,\), got \(2,\)"),
        (([0, 0, 0], [0, 0]), r"^groups\[1\]: expected shape \(3,\), got \(2,\)"),
    ],
)
def test_bad_groups_are_refused(groups: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.bootstrap(SIX_MEMBERS, SIX_NONMEMBERS, seed=0, resamples=2, groups=groups)


@pytest.mark.parametrize(("n", "fpr"), [(400, 0.01), (1000, 0.01), (1000, 0.001)])
def test_intervals_of_rates_cover_whatever_the_threshold(n: int, fpr: float) -> None:
    """At least 95 %: that of the share alone, at the sample's own threshold, covers a quarter to three quarters."""
    rng = np.random.default_rng(n)
    truth = stats.norm.sf(stats.norm.isf(fpr) - 2.0)
    covered, naive = 0, 0
    for _ in range(200):
        members, nonmembers = rng.normal(2, 1, n), rng.normal(0, 1, n)
        low, high = metrics.tpr_interval(members, nonmembers, fpr)
        value = metrics.tpr_at_fpr(members, nonmembers, fpr)
        assert low <= value <= high
        covered += low <= truth <= high
        ends = metrics.clopper_pearson(round(value * n), n)
        naive += ends[0] <= truth <= ends[1]
    assert covered >= 190
    assert naive < 160


def test_intervals_of_rates_with_ties_and_their_mirror() -> None:
    rng = np.random.default_rng(0)
    members, nonmembers = rng.normal(1, 1, 500), rng.normal(0, 1, 700)
    assert metrics.tnr_interval(members, nonmembers, 0.05) == metrics.tpr_interval(-nonmembers, -members, 0.05)
    # Two values, the larger with a population FPR of one half: nobody can be called a member at 1 %.
    coarse = rng.integers(2, size=800)
    assert metrics.tpr_interval(np.ones(500), coarse, 0.01)[0] == 0
    assert metrics.tpr_interval(np.full(500, 2.0), coarse, 0.01)[0] > 0.98
    needed = metrics.nonmembers_needed(0.01, 1 - 0.05 / 4)
    assert metrics.tpr_interval(np.ones(99), np.zeros(needed), 0.01)[0] > 0.9
    assert metrics.tpr_interval(np.ones(99), np.zeros(needed - 1), 0.01)[0] == 0
    assert metrics.tpr_interval([1.0], [0.0], 0.01)[1] == 1
    for wrong in (0.0, 1.0, -0.1):
        with pytest.raises(ValueError, match="fpr: expected a rate between"):
            metrics.tpr_interval(members, nonmembers, wrong)
    with pytest.raises(ValueError, match="confidence"):
        metrics.tpr_interval(members, nonmembers, 0.1, confidence=1.0)
    with pytest.raises(ValueError, match="members"):
        metrics.tpr_interval([np.nan], nonmembers, 0.1)
