"""Logistic regression of membership on features of a sample: what several attacks learn with."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression

__all__ = ["Logistic"]

Floats = NDArray[np.float64]


class Logistic:
    """Fitted on features of known members and non-members, each (n, features), finite.

    Features are standardised by the mean and deviation of all known samples; one that does not vary counts for nothing.
    Both groups weigh the same, whatever their sizes. L2 penalty with C = 1. Deterministic.
    """

    def __init__(self, members: ArrayLike, nonmembers: ArrayLike) -> None:
        groups = [_checked(name, given) for name, given in (("members", members), ("nonmembers", nonmembers))]
        if groups[0].shape[1] != groups[1].shape[1]:
            raise ValueError(f"nonmembers: expected {groups[0].shape[1]} features, got {groups[1].shape[1]}")
        known = np.concatenate(groups)
        self.mean = known[0] + (known - known[0]).mean(axis=0)  # equal values have exactly this mean
        deviation = (known - self.mean).std(axis=0)
        varies = deviation > 1e-12 * np.abs(known).max(axis=0)  # less is rounding
        self.scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
        truth = np.repeat([1, 0], [len(group) for group in groups])
        self.model = LogisticRegression(C=1.0, class_weight="balanced", max_iter=1000)
        self.model.fit((known - self.mean) * self.scale, truth)

    def __call__(self, features: ArrayLike) -> Floats:
        """Log odds of being a member, (n,)."""
        given = _checked("features", features)
        if given.shape[1] != len(self.mean):
            raise ValueError(f"features: expected {len(self.mean)} columns, got {given.shape[1]}")
        # Not a matrix product: BLAS may round a row otherwise in other company.
        weighted = (given - self.mean) * self.scale * self.model.coef_[0]
        return np.asarray(weighted.sum(axis=1) + self.model.intercept_[0], dtype=np.float64)


def _checked(name: str, values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"{name}: expected shape (n >= 1, features >= 1), got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite features, got NaN or infinity")
    return array
