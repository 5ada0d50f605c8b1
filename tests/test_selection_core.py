"""phi and the choice among draws, against plain models of both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import logsumexp

from diffence import _core

Array = NDArray[Any]


def plain_phi(logits: Array) -> Array:
    rows = np.arange(len(logits))
    top = logits.argmax(axis=1)
    others = logits.copy()
    others[rows, top] = -np.inf
    return np.asarray(logits[rows, top] - logsumexp(others, axis=1))


def released_phi(logits: Array) -> Array:
    """The arithmetic of the authors' release: float32 exponentials, float64 probabilities, a floor of 1e-45."""
    rows = np.arange(len(logits))
    single = logits.astype(np.float32)
    p = np.exp(single - single.max(axis=1, keepdims=True)).astype(np.float64)
    p /= p.sum(axis=1, keepdims=True)
    top = p.argmax(axis=1)
    p_top = p[rows, top].copy()
    p[rows, top] = 0
    return np.asarray(np.log(p_top + 1e-45) - np.log(p.sum(axis=1) + 1e-45))


def random_logits(scale: float, classes: int = 10, rows: int = 500) -> Array:
    return np.random.default_rng(classes).normal(0, scale, (rows, classes)).astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
@pytest.mark.parametrize("scale", [0.1, 3.0, 50.0, 1e4])
def test_phi_paper(classes: int, scale: float) -> None:
    logits = random_logits(scale, classes)
    phi, predicted = _core.phi(logits)
    np.testing.assert_allclose(phi, plain_phi(logits), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(predicted, logits.argmax(axis=1))
    if scale < 10:  # log(p / (1 - p)) itself, where it can be computed that way
        p = np.exp(logits - logsumexp(logits, axis=1, keepdims=True)).max(axis=1)
        np.testing.assert_allclose(phi, np.log(p / (1 - p)), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
@pytest.mark.parametrize("scale", [0.1, 3.0, 20.0, 1e4])
def test_phi_official(classes: int, scale: float) -> None:
    logits = random_logits(scale, classes)
    phi, predicted = _core.phi(logits, "official")
    # Where float32 underflows gradually, one more unit in the last place of an exponential is a large step of phi.
    expected = released_phi(logits)
    regular = expected < 85
    np.testing.assert_allclose(phi[regular], expected[regular], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(phi[~regular], expected[~regular], atol=0.7)
    np.testing.assert_array_equal(predicted, logits.argmax(axis=1))
    assert phi.max() <= 103.6164
    assert phi.min() >= -np.log(classes - 1) - 1e-6


def test_phi_by_hand() -> None:
    phi, predicted = _core.phi([[1000.0, 0.0, -1000.0], [0.0, 0.0, 0.0], [-5.0, 7.0, 7.0]])
    np.testing.assert_allclose(phi, [1000.0, -np.log(2), -np.log1p(np.exp(-12))], rtol=1e-15)
    np.testing.assert_array_equal(predicted, [0, 0, 1])
    phi, _ = _core.phi([[1000.0, 0.0, -1000.0], [0.0, 0.0, 0.0]], "official")
    np.testing.assert_allclose(phi, [-np.log(1e-45), -np.log(2)], rtol=1e-7)


def test_phi_is_invariant_to_a_shift_and_follows_a_permutation() -> None:
    logits = random_logits(4.0)
    order = np.random.default_rng(1).permutation(10)
    phi, predicted = _core.phi(logits)
    np.testing.assert_allclose(_core.phi(logits + 64)[0], phi, rtol=1e-11, atol=1e-11)
    permuted_phi, permuted_class = _core.phi(logits[:, order])
    np.testing.assert_allclose(permuted_phi, phi, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(order[permuted_class], predicted)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("mode", ["paper", "official"])
def test_phi_names_the_bad_row(bad: float, mode: Any) -> None:
    logits = random_logits(1.0, 3, 7)
    logits[4, 2] = bad
    with pytest.raises(ValueError, match=r"logits row 4, class 2"):
        _core.phi(logits, mode)


def test_phi_refuses_one_class() -> None:
    with pytest.raises(ValueError, match="logits"):
        _core.phi([[1.0], [2.0]])


def plain_select(phi: Array, predicted: Array, label: int, low: float, high: float) -> tuple[int, int]:
    def distance(j: int) -> float:
        return max(low - float(phi[j]), float(phi[j]) - high, 0.0)

    agreeing = [j for j in range(len(phi)) if predicted[j] == label]
    inside = [j for j in agreeing if low <= phi[j] <= high]
    if inside:
        return inside[0], _core.INSIDE
    if agreeing:
        return min(agreeing, key=distance), _core.NEAREST
    return min(range(len(phi)), key=distance), _core.FALLBACK


@settings(deadline=None, max_examples=200)
@given(
    seed=st.integers(0, 2**32 - 1),
    images=st.integers(1, 6),
    n=st.integers(1, 6),
    coarse=st.booleans(),
    ends=st.tuples(st.floats(-3, 3), st.floats(-3, 3)),
    open_end=st.sampled_from(["", "low", "high", "both"]),
)
def test_select_is_the_plain_model(
    seed: int, images: int, n: int, coarse: bool, ends: tuple[float, float], open_end: str
) -> None:
    rng = np.random.default_rng(seed)
    phi = rng.integers(-6, 7, (images, n)) / 2 if coarse else rng.normal(0, 2, (images, n))
    predicted = rng.integers(0, 3, (images, n))
    labels = rng.integers(0, 3, images)
    low, high = (round(end * 2) / 2 if coarse else end for end in sorted(ends))
    low = -np.inf if open_end in ("low", "both") else low
    high = np.inf if open_end in ("high", "both") else high
    draw, outcome = _core.select(phi, predicted, labels, (low, high))
    for i in range(images):
        assert (draw[i], outcome[i]) == plain_select(phi[i], predicted[i], labels[i], low, high)


def test_no_interval_is_scenario_3() -> None:
    rng = np.random.default_rng(3)
    phi, predicted, labels = rng.normal(size=(200, 5)), rng.integers(0, 3, (200, 5)), rng.integers(0, 3, 200)
    for one, other in zip(
        _core.select(phi, predicted, labels), _core.select(phi, predicted, labels, (-np.inf, np.inf)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_official_rules_on_hand_made_logits() -> None:
    """The release: the original is the last row and always survives; the first inside wins, else the row whose phi is
    nearest to the interval's middle."""
    #                 phi: 2 (class 0)  4 (class 0)  9 (class 1)  original 6.5
    logits = np.array([[2.0, 0.0], [4.0, 0.0], [0.0, 9.0], [6.5, 0.0]])
    phi, predicted = _core.phi(logits, "official")
    np.testing.assert_allclose(phi, [2, 4, 9, 6.5], atol=1e-5)
    cases = {
        (3.0, 5.0): (1, _core.INSIDE),
        (1.0, 5.0): (0, _core.INSIDE),
        (8.0, 10.0): (3, _core.NEAREST),  # the reconstruction at 9 has another class; nearest is the original
        (6.0, 7.0): (3, _core.INSIDE),  # only the original is inside
        (2.9, 3.0): (0, _core.NEAREST),
        (4.5, 5.5): (1, _core.NEAREST),
    }
    for (low, high), expected in cases.items():
        draw, outcome = _core.select(phi[None], predicted[None], [0], (low, high))
        assert (draw[0], outcome[0]) == expected, (low, high)


def test_nearest_to_the_interval_is_nearest_to_its_middle() -> None:
    rng = np.random.default_rng(8)
    phi = rng.normal(0, 4, (3000, 7))
    agree = np.zeros((3000, 7), dtype=np.int64)
    draw, outcome = _core.select(phi, agree, agree[:, 0], (0.3, 0.9))
    outside = outcome == _core.NEAREST
    assert 100 < outside.sum() < 2900
    np.testing.assert_array_equal(draw[outside], np.abs(phi - 0.6).argmin(axis=1)[outside])


def test_select_errors() -> None:
    phi, predicted = np.array([[0.0, 1.0], [np.nan, 2.0]]), np.zeros((2, 2), dtype=np.int64)
    with pytest.raises(ValueError, match=r"phi is NaN at image 1, draw 0"):
        _core.select(phi, predicted, [0, 0])
    for bad in [(1.0, 0.0), (np.nan, 1.0), (0.0, np.nan)]:
        with pytest.raises(ValueError, match="interval"):
            _core.select(phi[:1], predicted[:1], [0], bad)
    with pytest.raises(ValueError, match="labels"):
        _core.select(phi[:1], predicted[:1], [-1])
    with pytest.raises(ValueError, match="predicted"):
        _core.select(phi[:1], predicted, [0])
