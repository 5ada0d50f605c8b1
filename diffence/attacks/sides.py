"""Centre and spread of the shadows' signals, apart for those that were trained on a sample and those that were not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Centre", "Side", "Spread", "summarise"]

Floats = NDArray[np.float64]
Centre = Literal["median", "mean"]

_BLOCK = 1024  # samples at once: a block of 256 shadows stays in the processor's cache


@dataclass(frozen=True, eq=False)
class Side:
    """Of n samples and some queries, the shadows on one side. Where count is 0, the others mean nothing.

    count: (n,) shadows of each sample. centre: (n, queries) their median or mean. mean, variance: (n, queries), the
    variance around the mean, divided by count.
    """

    count: NDArray[np.int64]
    centre: Floats
    mean: Floats
    variance: Floats

    @property
    def empty(self) -> NDArray[np.bool_]:
        return np.asarray(self.count == 0)

    @property
    def deviation(self) -> Floats:
        """(n, queries)"""
        return np.sqrt(self.variance)

    def spread(self, raw: bool = False) -> Spread:
        """What stands for all samples alike; needs one that is not empty."""
        own = ~self.empty
        count, centre, mean, variance = self.count[own, None], self.centre[own], self.mean[own], self.variance[own]
        total = count.sum()
        # Of the values around `around`, whose own mean is `shift`: all from the sums of each sample.
        around = np.zeros_like(centre) if raw else centre
        shift = (count * (mean - around)).sum(axis=0) / total
        pooled = np.sqrt((count * (variance + (mean - around - shift) ** 2)).sum(axis=0) / total)
        return Spread(pooled, centre.mean(axis=0), np.sqrt(variance).mean(axis=0))


@dataclass(frozen=True, eq=False)
class Spread:
    """Over all samples, each (queries,). deviation: of the residuals, or of the raw values; centre, own_deviation: the
    means of the samples' own, which stand in for those of a sample without shadows on that side.
    """

    deviation: Floats
    centre: Floats
    own_deviation: Floats


def summarise(signals: Floats, chosen: NDArray[np.bool_], centre: Centre, cut: bool = False) -> Side:
    """signals (n, shadows, queries) of the shadows `chosen` (n, shadows), however many each sample has.

    cut: leave out the last of every sample down to the smallest count, as published code does.
    """
    if cut:
        chosen = chosen & (chosen.cumsum(axis=1) <= chosen.sum(axis=1).min())
    n, _, queries = signals.shape
    count = chosen.sum(axis=1)
    found = {name: np.empty((n, queries)) for name in ("centre", "mean", "variance")}
    for start in range(0, n, _BLOCK):
        block = slice(start, start + _BLOCK)
        mask, number = chosen[block], np.maximum(count[block], 1)
        weights = mask.astype(np.float64)
        for query in range(queries):
            values = signals[block, :, query]
            mean = np.einsum("ns,ns->n", values, weights) / number
            away = values - mean[:, None]
            found["mean"][block, query] = mean
            found["variance"][block, query] = np.einsum("ns,ns,ns->n", away, away, weights) / number
            if centre == "median":
                mean = _medians(values, mask, number)
            found["centre"][block, query] = mean
    return Side(count, found["centre"], found["mean"], found["variance"])


def _medians(values: Floats, mask: NDArray[np.bool_], number: NDArray[np.int64]) -> Floats:
    """The median of each row's chosen values; `number` of them, or 1 where there is none."""
    # What is not chosen goes to the end as infinity; a row's chosen ones then lie at its beginning, sorted.
    ranked = np.sort(np.where(mask, values, np.inf), axis=1)
    rows = np.arange(len(ranked))
    return np.asarray((ranked[rows, (number - 1) // 2] + ranked[rows, number // 2]) / 2)
