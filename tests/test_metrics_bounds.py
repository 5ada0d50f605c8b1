"""Lower bounds of epsilon: published vectors, exactness by enumeration, and what is refused."""

from __future__ import annotations

import itertools
import math
from typing import Any, get_args

import numpy as np
import pytest
from scipy import stats

from diffence import metrics
from diffence.metrics.bounds import RatioMethod

METHODS = get_args(RatioMethod)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((473, 511, 755, 950), (1.01166194, 1.01189079, 1.01148934, 1.01167669)),
        ((2, 697, 213, 313), (0.00220470, 0.00310880, 0.00162322, 0.00233503)),
        ((1000, 10, 10, 10000), (589.27335593, 568.32659563, 613.58766147, 592.63264572)),
        ((0, 511, 755, 950), (0, 0.00021568, 0, 0)),
        ((2, 697, 0, 313), (0.13325535, 0.17571862, 0.18481008, 0.08081083)),
        ((473, 0, 755, 950), (2.15959024, 2.15883995, 2.15787013, 2.15959827)),
    ],
)
def test_vectors(counts: tuple[int, int, int, int], expected: tuple[float, ...]) -> None:
    """attacks.md 9.6 (printed by tensorflow/privacy), at the default alpha of 0.05."""
    for method, value in zip(METHODS, expected, strict=False):
        assert metrics.ratio_bound(*counts, method) == pytest.approx(value, rel=2e-8, abs=5e-9), method


def test_vectors_of_a_perfect_attack() -> None:
    found = {method: metrics.ratio_bound(500, 0, 0, 500, method, 0.01) for method in METHODS}
    assert math.log(found["clopper_pearson"]) == pytest.approx(4.541916, abs=5e-7)
    assert found["katz"] == pytest.approx(37.31696140, abs=5e-9)
    assert found["adjusted_log"] == pytest.approx(37.35421695, abs=5e-9)
    assert found["bailey"] == pytest.approx(108.47420518, abs=5e-9)
    assert found["inverse_sinh"] == pytest.approx(35.46128691, abs=5e-9)


def test_vectors_of_scores() -> None:
    """attacks.md 9.5 and 9.6: log ratios of the adjusted method at the thresholds 9.5, 8.5, 5.5 and 0.5."""
    members, nonmembers = np.array([9, 4, 5, 0]), np.array([3, 8, 6, 1, 2, 7])
    positive, negative = [], []
    for threshold in (9.5, 8.5, 5.5, 0.5):
        tp, fp = int((members >= threshold).sum()), int((nonmembers >= threshold).sum())
        positive.append(math.log(metrics.ratio_bound(tp, 4 - tp, fp, 6 - fp, "adjusted_log")))
        negative.append(math.log(metrics.ratio_bound(6 - fp, fp, 4 - tp, tp, "adjusted_log")))
    np.testing.assert_allclose(positive[1:], [-1.02310327, -1.72826789, -0.66577858], atol=5e-9)
    np.testing.assert_allclose(negative, [-0.29368152, -0.16314973, -1.09474300, -3.95577741], atol=5e-9)


@pytest.mark.parametrize(("tpr", "fpr"), [(0.3, 0.3), (0.5, 0.1), (0.9, 0.05), (0.05, 0.02)])
def test_the_exact_bound_is_right_as_often_as_it_says(tpr: float, fpr: float) -> None:
    """By enumeration of all counts of 16 + 16 trials: the bound lies above the true ratio in at most 5 %."""
    n = 16
    wrong = 0.0
    for tp, fp in itertools.product(range(n + 1), repeat=2):
        if metrics.ratio_bound(tp, n - tp, fp, n - fp) > tpr / fpr:
            wrong += float(stats.binom.pmf(tp, n, tpr) * stats.binom.pmf(fp, n, fpr))
    assert wrong <= 0.05


@pytest.mark.parametrize("method", METHODS)
def test_every_count_has_a_finite_bound(method: RatioMethod) -> None:
    """Full and empty counts included; and more right answers never make a lower bound smaller."""
    for members, nonmembers in ((1, 1), (3, 5), (8, 2)):
        for fp in range(nonmembers + 1):
            bounds = [metrics.ratio_bound(tp, members - tp, fp, nonmembers - fp, method) for tp in range(members + 1)]
            assert all(math.isfinite(bound) and bound >= 0 for bound in bounds)
            assert bounds[0] < 1


def test_epsilon_of_a_known_mechanism() -> None:
    """Randomised response with epsilon 1, which a threshold reads perfectly: the bound comes near and stays below."""
    epsilon, n, rng = 1.0, 20_000, np.random.default_rng(3)
    truth = math.exp(epsilon) / (1 + math.exp(epsilon))
    members, nonmembers = rng.random(n) < truth, rng.random(n) < 1 - truth
    found = metrics.epsilon_lower_bound(members, nonmembers, [0.5])
    assert 0.9 < found.value < 1
    assert found.looked_at == 2
    # Several thresholds cost: each is taken at a smaller alpha.
    more = metrics.epsilon_lower_bound(members, nonmembers, [0.5, 0.6, 0.7, 0.8])
    assert more.looked_at == 8
    assert 0.85 < more.value < found.value
    # The wrong way around only the inverted ratios see it.
    assert metrics.epsilon_lower_bound(nonmembers, members, [0.5]).value == 0
    inverted = metrics.epsilon_lower_bound(nonmembers, members, [0.5], inverted=True)
    assert inverted.direction in ("fpr/tpr", "fnr/tnr")
    assert 0.85 < inverted.value < found.value


def test_epsilon_is_the_best_of_thresholds_and_directions() -> None:
    rng = np.random.default_rng(4)
    members, nonmembers = rng.normal(2, 1, 400), rng.normal(0, 1, 300)
    thresholds = [0.0, 1.0, 2.5]
    found = metrics.epsilon_lower_bound(members, nonmembers, thresholds, alpha=0.1)
    bounds = {}
    for threshold in thresholds:
        tp, fp = int((members >= threshold).sum()), int((nonmembers >= threshold).sum())
        for name, counts in (
            ("tpr/fpr", (tp, 400 - tp, fp, 300 - fp)),
            ("tnr/fnr", (300 - fp, fp, 400 - tp, tp)),
        ):
            bounds[threshold, name] = math.log(metrics.ratio_bound(*counts, alpha=0.1 / 6))
    best = max(bounds, key=lambda key: bounds[key])
    assert found == (pytest.approx(bounds[best]), *best, 6)


def test_epsilon_of_nothing_is_zero() -> None:
    """A random score: the bound exceeds 0 in at most 5 % of the cases."""
    above = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        found = metrics.epsilon_lower_bound(rng.normal(size=100), rng.normal(size=100), [-1, 0, 1])
        assert found.value >= 0
        above += found.value > 0
    assert above <= 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tp": -1}, "tp, fn, fp, tn: expected counts .*got -1, 1, 1 and 1"),
        ({"tp": 0, "fn": 0}, "tp, fn, fp, tn: expected counts with a member and a non-member"),
        ({"method": "wald"}, "method: expected one of katz, .*'wald'"),
        ({"alpha": 0.0}, "alpha: expected a value between 0 and 1, got 0"),
        ({"alpha": 5}, "alpha: expected a value between 0 and 1, got 5"),
    ],
)
def test_ratio_bound_refuses(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        metrics.ratio_bound(**{"tp": 1, "fn": 1, "fp": 1, "tn": 1} | change)


def test_epsilon_refuses() -> None:
    with pytest.raises(ValueError, match=r"^thresholds: expected at least one"):
        metrics.epsilon_lower_bound([1.0], [0.0], [])
    with pytest.raises(ValueError, match=r"^members: expected scores without NaN"):
        metrics.epsilon_lower_bound([np.nan], [0.0], [0.5])
    with pytest.raises(ValueError, match=r"^alpha: "):
        metrics.epsilon_lower_bound([1.0], [0.0], [0.5], alpha=2)
