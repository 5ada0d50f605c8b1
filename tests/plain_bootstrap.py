"""The figures of resamples in plain NumPy: slow, short, and the specification of the core's."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def plain_roc(members: Array, nonmembers: Array) -> tuple[Array, Array]:
    """True and false positives at every threshold, from above all places (0 is the best) to below all."""
    places = np.arange(len(members) + len(nonmembers))
    tp = np.array([0, *((members[:, None] <= places).sum(axis=0))])
    fp = np.array([0, *((nonmembers[:, None] <= places).sum(axis=0))])
    return tp, fp


def plain_counts(
    members: Array,
    nonmembers: Array,
    member_draws: Array,
    nonmember_draws: Array,
    *,
    false_positives: int,
    false_negatives: int,
) -> Array:
    """The same arguments and the same answer as diffence._core.bootstrap."""
    counts = np.zeros((4, len(members), len(member_draws)), dtype=np.int64)
    for pair, (ours, theirs) in enumerate(zip(members, nonmembers, strict=True)):
        for row, (chosen, others) in enumerate(zip(member_draws, nonmember_draws, strict=True)):
            tp, fp = plain_roc(ours[chosen], theirs[others])
            counts[0, pair, row] = np.sum(np.diff(fp) * (tp[1:] + tp[:-1]))  # trapezoids: ties count one half
            counts[1, pair, row] = np.max(tp * len(others) - fp * len(chosen))
            counts[2, pair, row] = tp[fp <= false_positives].max()
            counts[3, pair, row] = fp[len(chosen) - tp <= false_negatives].min()
    return counts
