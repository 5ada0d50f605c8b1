"""Metrics against scikit-learn, plain Python, published vectors and known distributions."""

from __future__ import annotations

import itertools
import math
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from diffence import metrics

SIX_MEMBERS, SIX_NONMEMBERS = [0.45, 0.9, 0.99], [0.1, 0.6, 0.2]

few_values = st.integers(-4, 4).map(lambda value: value / 2)  # so that ties are the rule
tied_scores = hnp.arrays(np.float64, st.integers(1, 40), elements=few_values)
any_scores = hnp.arrays(np.float64, st.integers(1, 30), elements=st.floats(-1e6, 1e6))


def sk_roc(members: NDArray[Any], nonmembers: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    truth = np.repeat([1, 0], [len(members), len(nonmembers)])
    fpr, tpr, _ = sk.roc_curve(truth, np.concatenate([members, nonmembers]), drop_intermediate=False)
    return fpr, tpr


def plain_song_mittal(members: NDArray[Any], nonmembers: NDArray[Any]) -> float:
    """The rule of attacks.md section 2, word for word."""
    threshold, best = 0.0, 0.0
    for value in [*members, *nonmembers]:
        right = 0.5 * (sum(members >= value) / len(members) + sum(nonmembers < value) / len(nonmembers))
        if right > best:
            threshold, best = float(value), right
    return threshold


# ---- plain figures -----------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(tied_scores, tied_scores)
def test_equals_scikit_learn_with_ties(members: NDArray[Any], nonmembers: NDArray[Any]) -> None:
    fpr, tpr = sk_roc(members, nonmembers)
    curve = metrics.roc(members, nonmembers)
    np.testing.assert_array_equal(curve.fpr, fpr)
    np.testing.assert_array_equal(curve.tpr, tpr)
    truth = np.repeat([1, 0], [len(members), len(nonmembers)])
    expected = sk.roc_auc_score(truth, np.concatenate([members, nonmembers]))
    assert metrics.auc(members, nonmembers) == pytest.approx(expected, abs=1e-12)
    assert metrics.balanced_accuracy_oracle(members, nonmembers) == pytest.approx(max(1 - (fpr + 1 - tpr) / 2))
    for rate in (0.001, 0.1, 0.25, 0.5, 1.0):
        for strict, within in ((True, np.less), (False, np.less_equal)):
            found = metrics.tpr_at_fpr(members, nonmembers, rate, strict=strict)
            assert found == pytest.approx(tpr[within(fpr, rate)].max(), abs=1e-12)
            fnr = (len(members) - np.rint(tpr * len(members))) / len(members)
            found = metrics.tnr_at_fnr(members, nonmembers, rate, strict=strict)
            assert found == pytest.approx(1 - fpr[within(fnr, rate)].min(), abs=1e-12)


@settings(deadline=None)
@given(any_scores, any_scores)
def test_auc_is_the_share_of_right_pairs(members: NDArray[Any], nonmembers: NDArray[Any]) -> None:
    pairs = np.sign(members[:, None] - nonmembers).mean()
    assert metrics.auc(members, nonmembers) == pytest.approx((1 + pairs) / 2, abs=1e-12)
    assert metrics.auc(nonmembers, members) == pytest.approx((1 - pairs) / 2, abs=1e-12)


@settings(deadline=None)
@given(tied_scores, tied_scores, st.sampled_from([0.001, 0.05, 0.2, 0.5, 1.0]), st.booleans())
def test_tnr_is_tpr_mirrored(members: NDArray[Any], nonmembers: NDArray[Any], rate: float, strict: bool) -> None:
    mirrored = metrics.tpr_at_fpr(-nonmembers, -members, rate, strict=strict)
    assert metrics.tnr_at_fnr(members, nonmembers, rate, strict=strict) == pytest.approx(mirrored, abs=1e-12)


@settings(deadline=None)
@given(any_scores, any_scores)
def test_monotone_transforms_change_nothing(members: NDArray[Any], nonmembers: NDArray[Any]) -> None:
    ranks = stats.rankdata(np.concatenate([members, nonmembers]))
    curve, ranked = metrics.roc(members, nonmembers), metrics.roc(ranks[: len(members)], ranks[len(members) :])
    np.testing.assert_array_equal(curve.fpr, ranked.fpr)
    np.testing.assert_array_equal(curve.tpr, ranked.tpr)


FIGURES = [metrics.auc, metrics.balanced_accuracy_oracle, metrics.tpr_at_fpr, metrics.tnr_at_fnr]
TRANSFORMS = [np.exp, np.arctan, lambda scores: scores**3, lambda scores: 7 * scores - 3, stats.norm.cdf]


@settings(deadline=None)
@given(tied_scores, tied_scores, st.sampled_from(TRANSFORMS))
def test_monotone_transforms_change_no_figure(members: NDArray[Any], nonmembers: NDArray[Any], transform: Any) -> None:
    """Nor a replicate, nor the counts of a rate: only the order of scores tells."""
    moved = transform(members), transform(nonmembers)
    for figure in FIGURES:
        assert figure(*moved) == figure(members, nonmembers)
    assert metrics.rate_at(*moved, 0.2)[1:] == metrics.rate_at(members, nonmembers, 0.2)[1:]
    values, found = metrics.replicates([(members, nonmembers), moved], seed=1, resamples=5, rate=0.2)
    np.testing.assert_array_equal(values[0], values[1])
    np.testing.assert_array_equal(found[0], found[1])


@settings(deadline=None)
@given(tied_scores, tied_scores)
def test_swapping_the_groups_mirrors(members: NDArray[Any], nonmembers: NDArray[Any]) -> None:
    assert metrics.auc(nonmembers, members) == pytest.approx(1 - metrics.auc(members, nonmembers), abs=1e-12)
    assert metrics.auc(-members, -nonmembers) == pytest.approx(1 - metrics.auc(members, nonmembers), abs=1e-12)
    assert metrics.balanced_accuracy_oracle(-nonmembers, -members) == pytest.approx(
        metrics.balanced_accuracy_oracle(members, nonmembers), abs=1e-12
    )


@settings(deadline=None)
@given(tied_scores, tied_scores, st.integers(2, 4), st.randoms())
def test_order_and_duplicates_change_nothing(
    members: NDArray[Any], nonmembers: NDArray[Any], times: int, random: Any
) -> None:
    """Every sample as often as every other, in any order: the same curve. (With <=: a share stays the share it is.)"""
    many = [np.repeat(own, times) for own in (members, nonmembers)]
    for own in many:
        random.shuffle(own)
    np.testing.assert_array_equal(metrics.roc(*many), metrics.roc(members, nonmembers))
    assert metrics.auc(*many) == pytest.approx(metrics.auc(members, nonmembers), abs=1e-12)
    for rate in (0.0, 0.25, 1.0):
        expected = metrics.tpr_at_fpr(members, nonmembers, rate, strict=False)
        assert metrics.tpr_at_fpr(*many, rate, strict=False) == expected


@pytest.mark.parametrize(("members", "nonmembers"), [(1, 1), (1, 30), (30, 1), (20, 30)])
def test_polarity(members: int, nonmembers: int) -> None:
    """attacks.md 9.7: separable scores give 1 everywhere, constant ones an AUC of 0.5; also of one sample."""
    for figure in FIGURES:
        assert figure(np.ones(members), np.zeros(nonmembers)) == 1
    constant = np.full(members, 0.3), np.full(nonmembers, 0.3)
    assert [figure(*constant) for figure in FIGURES] == [0.5, 0.5, 0, 0]
    estimates = metrics.bootstrap(*constant, seed=1, resamples=20)
    assert {name: found[:3] for name, found in estimates.items()} == {
        "auc": (0.5, 0.5, 0.5),
        "balanced_accuracy_oracle": (0.5, 0.5, 0.5),
        "tpr_at_fpr": (0, 0, 0),
        "tnr_at_fnr": (0, 0, 0),
    }


def test_random_scores_are_at_chance_within_the_interval() -> None:
    """In 95 of 100 cases, give or take."""
    held = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        found = metrics.bootstrap(rng.random(200), rng.random(300), ("auc",), seed=seed, resamples=300)["auc"]
        held += found.low <= 0.5 <= found.high
    assert held >= 90


def test_six_samples() -> None:
    """attacks.md 9.4 (printed by SACRO-ML; the last two computed)."""
    members, nonmembers = np.array(SIX_MEMBERS), np.array(SIX_NONMEMBERS)
    called = metrics.balanced_accuracy(members >= 0.5, nonmembers >= 0.5)
    assert called == pytest.approx(2 / 3)  # TPR 2/3, TNR 2/3
    assert metrics.auc(members, nonmembers) == pytest.approx(8 / 9)
    for rate, expected in ((0.0, 2 / 3), (0.001, 2 / 3), (0.1, 2 / 3), (0.4, 1.0), (1.0, 1.0)):
        assert metrics.tpr_at_fpr(members, nonmembers, rate, strict=False) == pytest.approx(expected)
        if rate > 0:
            assert metrics.tpr_at_fpr(members, nonmembers, rate) == pytest.approx(expected)
    assert metrics.balanced_accuracy_oracle(members, nonmembers) == pytest.approx(5 / 6)


def test_roc_has_all_points() -> None:
    """attacks.md 9.5 (printed by tensorflow/privacy): the counts at every threshold."""
    curve = metrics.roc([9, 4, 5, 0], [3, 8, 6, 1, 2, 7])
    np.testing.assert_array_equal(curve.tpr * 4, [0, 1, 1, 1, 1, 2, 3, 3, 3, 3, 4])
    np.testing.assert_array_equal(curve.fpr * 6, [0, 0, 1, 2, 3, 3, 3, 4, 5, 6, 6])
    np.testing.assert_array_equal(curve.thresholds, [np.inf, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0])


def test_collinear_points_are_kept() -> None:
    """Without them "the last point with FPR < 0.5" would have TPR 0, not 0.4."""
    members, nonmembers = np.arange(5.0), np.arange(5.0)
    assert metrics.tpr_at_fpr(members, nonmembers, 0.5) == pytest.approx(0.4)


@pytest.mark.parametrize(("strict", "allowed"), [(True, 0), (False, 1)])
def test_strict_with_a_thousand_nonmembers(strict: bool, allowed: int) -> None:
    nonmembers = np.arange(1000.0)
    members = np.array([2000.0, 998.5, 997.5, -1.0])
    expected = [1 / 4, 2 / 4][allowed]
    assert metrics.tpr_at_fpr(members, nonmembers, strict=strict) == expected
    assert metrics.tnr_at_fnr(-nonmembers, -members, strict=strict) == expected
    # One non-member more, and strict allows the one false positive too: 1 / 1001 < 0.001.
    assert metrics.tpr_at_fpr(members, np.append(nonmembers, -5.0), strict=True) == 2 / 4


def test_a_tie_with_the_best_nonmember_is_not_below_the_rate() -> None:
    assert metrics.tpr_at_fpr([1.0, 1.0, 2.0], np.linspace(0, 1, 1000)) == pytest.approx(1 / 3)


def test_rate_zero_is_for_non_strict_only() -> None:
    with pytest.raises(ValueError, match=r"^fpr: .*strict=False"):
        metrics.tpr_at_fpr(SIX_MEMBERS, SIX_NONMEMBERS, 0.0)
    with pytest.raises(ValueError, match=r"^fnr: .*1\.5"):
        metrics.tnr_at_fnr(SIX_MEMBERS, SIX_NONMEMBERS, 1.5, strict=False)


def test_infinite_scores_are_ranked() -> None:
    assert metrics.auc([np.inf, 0.0], [-np.inf, 0.0]) == pytest.approx(7 / 8)


@settings(deadline=None)
@given(tied_scores, tied_scores)
def test_calibration_is_song_and_mittals(members: NDArray[Any], nonmembers: NDArray[Any]) -> None:
    assert metrics.calibrate_threshold(members, nonmembers) == plain_song_mittal(members, nonmembers)


def test_the_first_of_equal_thresholds_wins() -> None:
    # Both 3 and 1 give 3/4; the order of the members decides.
    assert metrics.calibrate_threshold([3.0, 1.0], [2.0, 0.0]) == 3.0
    assert metrics.calibrate_threshold([1.0, 3.0], [2.0, 0.0]) == 1.0


def test_thresholds_per_class() -> None:
    rng = np.random.default_rng(5)
    member_labels, nonmember_labels = rng.integers(0, 3, 60), rng.integers(0, 3, 50)
    member_labels[0] = 4  # a class with a known member only; class 3 has nobody
    members = rng.normal(0.5, 1, 60) + 10 * member_labels
    nonmembers = rng.normal(0, 1, 50) + 10 * nonmember_labels
    thresholds, counts = metrics.calibrate_class_thresholds(members, nonmembers, member_labels, nonmember_labels, 5)
    for label in range(3):
        ours, theirs = members[member_labels == label], nonmembers[nonmember_labels == label]
        assert thresholds[label] == plain_song_mittal(ours, theirs)
        assert tuple(counts[label]) == (len(ours), len(theirs))
    assert counts[3:].tolist() == [[0, 0], [1, 0]]
    assert set(thresholds[3:]) == {plain_song_mittal(members, nonmembers)}


@settings(deadline=None)
@given(hnp.arrays(bool, st.integers(1, 20)), hnp.arrays(bool, st.integers(1, 20)))
def test_balanced_accuracy_of_decisions(members: NDArray[Any], nonmembers: NDArray[Any]) -> None:
    expected = (members.mean() + 1 - nonmembers.mean()) / 2
    assert metrics.balanced_accuracy(members, nonmembers) == pytest.approx(expected, abs=1e-12)


def test_gap_floor() -> None:
    assert metrics.gap_floor(0.984, 0.814) == pytest.approx(0.585)
    with pytest.raises(ValueError, match=r"^test_accuracy: "):
        metrics.gap_floor(0.9, 81.4)


# ---- calibration error, phi, divergence, rates -------------------------------------------------------------------

FOUR = np.array([[0.95, 0.05], [0.95, 0.05], [0.85, 0.15], [0.55, 0.45]])


def test_ece_vector() -> None:
    labels = np.array([0, 1, 0, 0])
    assert metrics.ece(FOUR, labels, kind="probabilities") == pytest.approx(0.375)
    assert metrics.ece(np.log(FOUR), labels) == pytest.approx(0.375)
    assert metrics.ece(FOUR, labels) != pytest.approx(0.375)  # read as logits, as was said


@settings(deadline=None)
@given(st.integers(1, 15), st.integers(0, 2**32 - 1))
def test_ece_is_its_definition(bins: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Confidences on and off the edges of the bins.
    confidence = np.concatenate([rng.uniform(0.5, 1, 20), np.arange(5, 11) / 10])
    rows = np.stack([confidence, 1 - confidence], axis=1)
    labels = rng.integers(0, 2, len(rows))
    correct, expected, edges = rows.argmax(1) == labels, 0.0, np.linspace(0, 1, bins + 1)
    for low, high in itertools.pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert metrics.ece(rows, labels, kind="probabilities", bins=bins) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outputs": FOUR * 100, "kind": "probabilities"}, "^outputs: expected probabilities"),
        ({"outputs": -FOUR, "kind": "probabilities"}, "^outputs: expected probabilities"),
        ({"outputs": FOUR[0]}, r"^outputs: expected shape \(n >= 1, classes >= 2\), got \(2,\)"),
        ({"outputs": FOUR * np.nan}, "^outputs: expected finite"),
        ({"labels": [0, 1, 2, 0]}, "^labels: expected classes 0 to 1, got 0 to 2"),
        ({"labels": [0, 1]}, r"^labels: expected shape \(4,\), got \(2,\)"),
        ({"bins": 0}, "^bins: "),
        ({"kind": "softmax"}, "^kind: .*'softmax'"),
    ],
)
def test_ece_refuses(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.ece(**({"outputs": FOUR, "labels": [0, 1, 0, 0]} | change))


def test_phi_vectors() -> None:
    """attacks.md 9.2 and 9.3."""
    rows = [[1.0, 2.0, -3.0], [-1.0, 1.0, 0.0]]
    np.testing.assert_allclose(metrics.phi(rows, [1, 2]), [0.98185009, -1.12692802], atol=5e-9)
    probabilities = np.log([[0.1, 0.85, 0.05], [0.1, 0.5, 0.4]])
    np.testing.assert_allclose(metrics.phi(probabilities, [1, 2]), [1.73460106, -0.40546511], atol=5e-9)
    np.testing.assert_allclose(metrics.phi([[1.0, 2.0, -3.0]]), [0.9818500721], atol=5e-11)
    np.testing.assert_allclose(metrics.phi(np.log([[0.7, 0.2, 0.1]])), [0.8472978604], atol=5e-11)
    assert metrics.phi([[1000.0, 0.0, -1000.0]])[0] == 1000.0
    assert metrics.phi([[0.0, 0.0]])[0] == 0.0


@pytest.mark.parametrize(
    ("p", "q", "divergence", "distance"),
    [
        ([1, 0], [0, 1], 0.6931471806, 0.8325546112),
        ([1, 2, 3], [3, 2, 1], 0.0872080240, 0.2953100472),
        ([0.2, 0.8], [2, 8], 0.0, 0.0),
    ],
)
def test_js_divergence(p: list[float], q: list[float], divergence: float, distance: float) -> None:
    assert metrics.js_divergence(p, q) == pytest.approx(divergence, abs=5e-11)
    assert math.sqrt(metrics.js_divergence(p, q)) == pytest.approx(distance, abs=1e-8)


@pytest.mark.parametrize(
    ("p", "q", "message"),
    [
        ([0, 0], [1, 0], "^p: "),
        ([1, 0], [1, -1], "^q: "),
        ([1, 0], [1, 0, 0], "^p, q: "),
        ([1, np.inf], [1, 1], "^p: "),
    ],
)
def test_js_divergence_refuses(p: list[float], q: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.js_divergence(p, q)


@pytest.mark.parametrize(
    ("trials", "successes", "low", "high"),
    [
        (1000, 1, 0.0025, 0.5559),
        (2000, 2, 0.0121, 0.3608),
        (5000, 5, 0.0325, 0.2332),
        (10000, 10, 0.0480, 0.1838),
        (25000, 25, 0.0647, 0.1476),
        (1000, 0, 0.0, 0.3682),
        (2000, 0, 0.0, 0.1843),
    ],
)
def test_clopper_pearson_table(trials: int, successes: int, low: float, high: float) -> None:
    found = np.array(metrics.clopper_pearson(successes, trials)) * 100
    np.testing.assert_allclose(found, [low, high], atol=5.1e-5)
    mirrored = metrics.clopper_pearson(trials - successes, trials)
    np.testing.assert_allclose(mirrored, [1 - high / 100, 1 - low / 100], atol=5.1e-7)


def test_zero_false_positives_prove_the_rate_from_2995_nonmembers_on() -> None:
    assert metrics.clopper_pearson(0, 2994, confidence=0.9)[1] > 0.001  # two-sided 90 % is one-sided 95 %
    assert metrics.clopper_pearson(0, 2995, confidence=0.9)[1] <= 0.001
    with pytest.raises(ValueError, match=r"^successes, trials: "):
        metrics.clopper_pearson(3, 2)
    with pytest.raises(ValueError, match=r"^confidence: "):
        metrics.clopper_pearson(1, 2, confidence=95)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("rate", [0.001, 0.05, 0.3, 1.0])
def test_rate_at_is_the_metric_with_counts(rate: float, strict: bool) -> None:
    rng = np.random.default_rng(1)
    members, nonmembers = np.round(rng.normal(0.5, 1, 300), 2), np.round(rng.normal(0, 1, 500), 2)
    found = metrics.rate_at(members, nonmembers, rate, strict=strict)
    assert found.rate.value == metrics.tpr_at_fpr(members, nonmembers, rate, strict=strict)
    assert found.rate.seen == (members >= found.threshold).sum()
    assert found.error.seen == (nonmembers >= found.threshold).sum()
    assert (found.rate.n, found.error.n) == (300, 500)
    assert found.error.value < rate or (not strict and found.error.value == rate)
    for share in found[1:]:
        assert share[1:3] == metrics.clopper_pearson(share.seen, share.n)
    mirrored = metrics.negative_rate_at(-nonmembers, -members, rate, strict=strict)
    assert mirrored[1:] == found[1:]
    assert mirrored.error.seen == (-nonmembers < mirrored.threshold).sum()
    tnr = metrics.negative_rate_at(members, nonmembers, rate, strict=strict)
    assert tnr.rate.value == pytest.approx(metrics.tnr_at_fnr(members, nonmembers, rate, strict=strict), abs=1e-15)


def test_rate_at_takes_the_lowest_error_of_equal_rates() -> None:
    """Both 5 and 2 find two of three members within one false positive of four; 5 makes none."""
    found = metrics.rate_at([9.0, 5.0, 1.0], [2.0, 1.0, 0.0, 0.0], 0.3)
    assert (found.threshold, found.rate.seen, found.error.seen) == (5.0, 2, 0)
    # Both 9 and 3 reject two of three non-members within one false negative of four; 3 makes none.
    mirrored = metrics.negative_rate_at([3.0, 9.0, 9.0, 9.0], [1.0, 2.5, 10.0], 0.3)
    assert (mirrored.threshold, mirrored.rate.seen, mirrored.error.seen) == (3.0, 2, 0)


@pytest.mark.parametrize("strict", [True, False])
def test_rate_at_zero(strict: bool) -> None:
    found = metrics.rate_at([3.0, 2.0, 1.0], [2.0, 0.0], 0.0, strict=strict)
    assert found == (
        3.0,
        metrics.Share(1 / 3, *metrics.clopper_pearson(1, 3), 1, 3),
        (0.0, 0.0, found.error.high, 0, 2),
    )
    nobody = metrics.rate_at([1.0], [2.0], 0.0, strict=strict)
    assert (nobody.threshold, nobody.rate.seen, nobody.error.seen) == (np.inf, 0, 0)
    mirrored = metrics.negative_rate_at([3.0, 2.0, 1.0], [2.0, 0.0], 0.0, strict=strict)
    assert (mirrored.threshold, mirrored.rate.seen, mirrored.error.seen) == (1.0, 1, 0)
    with pytest.raises(ValueError, match=r"^fpr: .*-0\.1"):
        metrics.rate_at([1.0], [2.0], -0.1)


def test_rate_at_without_a_false_positive_proves_nothing_below_its_bound() -> None:
    """attacks.md section 1: of 1000 non-members none, and the FPR may be 0.3682 %."""
    found = metrics.rate_at(np.arange(1000) + 1000.0, np.arange(1000.0))
    assert (found.rate.value, found.error.seen) == (1.0, 0)
    assert found.error.high == pytest.approx(0.003682, abs=5e-7)


def test_nonmembers_needed() -> None:
    assert metrics.nonmembers_needed(0.001) == 2995
    assert metrics.nonmembers_needed(0.5, 0.75) == 2
    for rate, confidence in itertools.product([0.5, 0.1, 0.01, 1e-3, 1e-5], [0.5, 0.9, 0.95, 0.99]):
        n = metrics.nonmembers_needed(rate, confidence)
        assert metrics.clopper_pearson(0, n, 2 * confidence - 1 or 1e-12)[1] <= rate * (1 + 1e-9)
        assert n == 1 or metrics.clopper_pearson(0, n - 1, 2 * confidence - 1 or 1e-12)[1] > rate
    for bad in (0.0, 1.0, -0.1, np.nan):
        with pytest.raises(ValueError, match=r"^rate: expected a value between 0 and 1"):
            metrics.nonmembers_needed(bad)
        with pytest.raises(ValueError, match=r"^confidence: expected a value between 0 and 1"):
            metrics.nonmembers_needed(0.5, bad)


# ---- bad scores, refused by every metric -------------------------------------------------------------------------

PAIRED = [
    metrics.roc,
    metrics.auc,
    metrics.balanced_accuracy_oracle,
    metrics.tpr_at_fpr,
    metrics.tnr_at_fnr,
    metrics.calibrate_threshold,
    metrics.rate_at,
    metrics.negative_rate_at,
    lambda members, nonmembers: metrics.bootstrap(members, nonmembers, seed=0, resamples=2),
]


@pytest.mark.parametrize("metric", PAIRED)
@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ([], ValueError, r"at least one score in one dimension, got shape \(0,\)"),
        ([[0.1, 0.2]], ValueError, r"one dimension, got shape \(1, 2\)"),
        (0.5, ValueError, r"one dimension, got shape \(\)"),
        ([0.5, np.nan], ValueError, "without NaN, got 1 NaN"),
        (["a", "b"], TypeError, "real numbers, got <U1"),
        ([1 + 2j], TypeError, "real numbers, got complex128"),
    ],
)
def test_bad_scores_are_refused_by_name(metric: Any, bad: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^members: expected .*{message}"):
        metric(bad, SIX_NONMEMBERS)
    with pytest.raises(error, match=f"^nonmembers: expected .*{message}"):
        metric(SIX_MEMBERS, bad)


def test_scores_are_not_decisions() -> None:
    with pytest.raises(TypeError, match=r"^members: expected decisions .* got float64"):
        metrics.balanced_accuracy(SIX_MEMBERS, SIX_NONMEMBERS)
