"""The interval search against plain NumPy (plain_interval.py), in both modes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_interval import Array, candidate_pairs, plain_search

from diffence import _core

MODES = ("paper", "official")


def both(phi: Array, match: Array, member: Array, original: Array, mode: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    given_original = original if mode == "official" else None
    return (
        _core.search_interval(phi, match, member, mode=mode, phi_original=given_original),
        plain_search(phi, match, member, mode, given_original),
    )


def check(got: dict[str, Any], expected: dict[str, Any]) -> None:
    np.testing.assert_array_equal(got["lows"], expected["lows"])
    np.testing.assert_array_equal(got["highs"], expected["highs"])
    np.testing.assert_allclose(got["divergences"], expected["divergences"], rtol=0, atol=1e-12)
    assert (got["best"], got["low"], got["high"]) == (expected["best"], expected["low"], expected["high"])
    assert got["divergence"] == got["divergences"][got["best"]]


def random_phi(
    rng: np.random.Generator, images: int, n: int, shift: float, agree: float
) -> tuple[Array, Array, Array, Array]:
    """phi, match, member and phi_original as a classifier that leaks gives them."""
    member = rng.random(images) < 0.5
    member[:2] = True, False
    own = rng.normal(4 + shift * member, 2)[:, None]
    phi = own + rng.normal(0, 1.5, (images, n))
    match = rng.random((images, n)) < agree
    match[:2] = True
    return phi, match, member, own[:, 0] + shift


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("images", "n", "shift", "agree"),
    [(400, 30, 2.0, 0.9), (300, 5, 1.0, 0.3), (150, 1, 0.0, 1.0), (60, 10, 9.0, 0.7), (60, 3, -6.0, 0.5), (2, 4, 1, 1)],
)
def test_equals_plain_numpy(mode: str, images: int, n: int, shift: float, agree: float) -> None:
    for seed in range(3):
        check(*both(*random_phi(np.random.default_rng(seed), images, n, shift, agree), mode))


@pytest.mark.parametrize("mode", MODES)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_equals_plain_numpy_on_ties(mode: str, data: st.DataObject) -> None:
    """Few images, phi on a coarse grid: ties, values on edges of bins and intervals, empty and inverted ranges."""
    images, n = data.draw(st.integers(2, 8)), data.draw(st.integers(1, 4))
    grid = st.integers(-24, 24).map(lambda step: step / 8)
    phi = np.array(data.draw(st.lists(grid, min_size=images * n, max_size=images * n))).reshape(images, n)
    match = np.array(data.draw(st.lists(st.booleans(), min_size=images * n, max_size=images * n))).reshape(images, n)
    member = np.array(data.draw(st.lists(st.booleans(), min_size=images, max_size=images)))
    original = np.array(data.draw(st.lists(grid, min_size=images, max_size=images)))
    member[:2] = True, False
    match[:2, 0] = True
    check(*both(phi, match, member, original, mode))


@pytest.mark.parametrize("mode", MODES)
def test_values_on_the_edges_of_bins(mode: str) -> None:
    """Where the division that finds a bin rounds to the wrong side, the bin's edge decides, as in numpy.histogram."""
    rng = np.random.default_rng(2)
    for low, high in zip(rng.normal(-3, 2, 20), rng.normal(6, 2, 20), strict=True):
        edges = np.linspace(low, high, 101)
        values = np.concatenate([[low, high], edges, np.nextafter(edges[1:], -np.inf)])
        member = np.arange(len(values)) >= 2
        check(*both(values[:, None], np.ones((len(values), 1), dtype=bool), member, values, mode))


def test_official_edges_are_numpy_arange() -> None:
    rng = np.random.default_rng(5)
    edges = []
    for a, b in zip(rng.normal(-3, 2, 500), rng.normal(6, 2, 500), strict=True):
        if a < b:
            got = _core.search_interval(
                [[a], [b]], [[True], [True]], [True, False], mode="official", phi_original=[a, b]
            )
            lows, highs = np.array(candidate_pairs(a, b, "official")).T
            np.testing.assert_array_equal(got["lows"], lows)
            np.testing.assert_array_equal(got["highs"], highs)
            edges.append(len(np.unique(np.concatenate([lows, highs]))))
    assert set(edges) == {21, 22}
    assert 0.05 < np.mean(np.array(edges) == 22) < 0.3  # the release: roughly one range in seven


def test_paper_edges_are_exact() -> None:
    a, b = -1.7, 6.123456789
    got = _core.search_interval([[a], [b]], [[True], [True]], [True, False])
    assert len(got["lows"]) == 210
    assert (got["lows"].min(), got["highs"].max()) == (a, b)


def test_the_interval_makes_the_groups_alike() -> None:
    """Members can answer like non-members only with their low draws: the search must find those."""
    rng = np.random.default_rng(0)
    member = np.arange(600) < 300
    low, high = rng.uniform(1, 2, (600, 10)), rng.uniform(6, 8, (600, 10))
    phi = np.where((rng.random((600, 10)) < 0.5) | ~member[:, None], low, high)
    phi[~member, 9] = 9.0  # stretches the range up to where there is nothing to choose
    match = np.ones_like(phi, dtype=bool)
    found = _core.search_interval(phi, match, member)
    assert found["low"] < 2
    assert found["high"] < 6
    first = found["divergences"][-1]  # the last pair: the top of the range
    assert found["divergence"] < first / 3


def test_left_out_and_degenerate_cases() -> None:
    phi = np.array([[1.0, 2.0], [99.0, 98.0], [1.5, 0.5], [-60.0, -50.0]])
    match = np.array([[True, True], [False, False], [True, True], [False, False]])
    member = np.array([True, True, False, False])
    with_silent = _core.search_interval(phi, match, member)
    without = _core.search_interval(phi[[0, 2]], match[[0, 2]], member[[0, 2]])
    np.testing.assert_array_equal(with_silent["divergences"], without["divergences"])

    alike = _core.search_interval(np.full((4, 3), 2.5), np.ones((4, 3), dtype=bool), member)
    assert (alike["low"], alike["high"], alike["divergence"], len(alike["lows"])) == (2.5, 2.5, 0.0, 1)

    apart = _core.search_interval([[8.0], [9.0], [1.0], [2.0]], np.ones((4, 1), dtype=bool), member)
    assert (apart["lows"].min(), apart["highs"].max()) == (2.0, 8.0)  # the gap between the groups


def test_errors_name_the_argument() -> None:
    phi, match, member = np.array([[1.0], [2.0]]), np.ones((2, 1), dtype=bool), np.array([True, False])
    with pytest.raises(ValueError, match="phi"):
        _core.search_interval([[1.0], [np.nan]], match, member)
    with pytest.raises(ValueError, match="phi"):
        _core.search_interval([[1.0], [np.inf]], match, member)
    with pytest.raises(ValueError, match="member"):
        _core.search_interval(phi, match, [True, True])
    with pytest.raises(ValueError, match=r"match.*non-members"):
        _core.search_interval(phi, [[True], [False]], member)
    with pytest.raises(ValueError, match="phi_original"):
        _core.search_interval(phi, match, member, mode="official")
    with pytest.raises(ValueError, match="phi_original"):
        _core.search_interval(phi, match, member, phi_original=[1.0, 2.0])
    with pytest.raises(ValueError, match="match"):
        _core.search_interval(phi, np.ones((2, 2), dtype=bool), member)
