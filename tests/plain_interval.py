"""The interval search of scenario 1 in plain NumPy: slow, short, and the specification of the core's."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def candidate_pairs(a: float, b: float, mode: str) -> list[tuple[float, float]]:
    """The (low, high) pairs of edges over the range between a and b."""
    a, b = min(a, b), max(a, b)
    step = (b - a) / 20
    if not step > 0:
        return [(a, a)]
    edges = np.arange(a, b + step, step) if mode == "official" else np.array([*(a + (b - a) * np.arange(20) / 20), b])
    return [(edges[i], edges[j]) for i in range(len(edges)) for j in range(i + 1, len(edges))]


def chosen_phi(phi: Array, match: Array, low: float, high: float) -> Array:
    """Of each image's matching columns, the first inside the interval, else the first of the nearest."""
    distance = np.maximum(np.maximum(low - phi, phi - high), 0)
    distance[~match] = np.inf
    return np.asarray(phi[np.arange(len(phi)), distance.argmin(axis=1)])


def jensen_shannon(members: Array, nonmembers: Array, mode: str) -> float:
    """Divergence (paper) or distance (official) of two histograms of 100 bins."""
    spanned = nonmembers if mode == "official" else np.concatenate([members, nonmembers])
    counts = [np.histogram(group, bins=100, range=(spanned.min(), spanned.max()))[0] for group in (members, nonmembers)]
    p, q = (np.maximum(count, 1e-19) / np.maximum(count, 1e-19).sum() for count in counts)
    m = (p + q) / 2
    divergence = max((np.sum(p * np.log(p / m)) + np.sum(q * np.log(q / m))) / 2, 0.0)
    return float(np.sqrt(divergence)) if mode == "official" else float(divergence)


def plain_search(
    phi: Array, match: Array, member: Array, mode: str = "paper", phi_original: Array | None = None
) -> dict[str, Any]:
    """The same arguments and the same answer as diffence._core.search_interval."""
    pairs = candidate_pairs(phi[member][match[member]].min(), phi[~member][match[~member]].max(), mode)
    if mode == "official":
        assert phi_original is not None
        phi = np.column_stack([phi, phi_original])
        match = np.column_stack([match, np.ones(len(phi), dtype=bool)])
    else:
        some = match.any(axis=1)
        phi, match, member = phi[some], match[some], member[some]
    divergences: list[float] = []
    best = 0
    for low, high in pairs:
        chosen = chosen_phi(phi, match, low, high)
        divergences.append(jensen_shannon(chosen[member], chosen[~member], mode))
        if divergences[-1] < divergences[best] - 1e-12:  # equal up to rounding: the first one stays
            best = len(divergences) - 1
    low, high = pairs[best]
    lows, highs = np.array(pairs).T
    return {
        "low": low,
        "high": high,
        "divergence": divergences[best],
        "best": best,
        "lows": lows,
        "highs": highs,
        "divergences": np.array(divergences),
    }
