"""Input that every metric checks in the same way: scores, labels, rows of numbers, probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Groups = tuple[ArrayLike, ArrayLike]


def checked_scores(name: str, values: ArrayLike) -> Floats:
    array = np.asarray(values)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name}: expected at least one score in one dimension, got shape {array.shape}")
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected real numbers, got {array.dtype}")
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise ValueError(f"{name}: expected scores without NaN, got {int(np.isnan(array).sum())} NaN")
    return array.astype(np.float64)


def checked_labels(name: str, values: ArrayLike, n: int, classes: int | None = None) -> Ints:
    array = np.asarray(values)
    if array.shape != (n,):
        raise ValueError(f"{name}: expected shape ({n},), got {array.shape}")
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got {array.dtype}")
    if classes is not None and (array.min() < 0 or array.max() >= classes):
        raise ValueError(f"{name}: expected classes 0 to {classes - 1}, got {array.min()} to {array.max()}")
    return array.astype(np.int64)


def checked_rows(name: str, values: ArrayLike) -> Floats:
    array = np.asarray(values)
    if array.ndim != 2 or len(array) == 0 or array.shape[1] < 2:
        raise ValueError(f"{name}: expected shape (n >= 1, classes >= 2), got {array.shape}")
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name}: expected real numbers, got {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    return array.astype(np.float64)


def checked_probabilities(name: str, rows: Floats) -> Floats:
    off = np.abs(rows.sum(axis=1) - 1).max()
    if rows.min() < 0 or off > 1e-3:
        raise ValueError(
            f"{name}: expected probabilities (not negative, rows summing to 1 within 0.001); "
            f"smallest is {rows.min():.6g}, a sum is off by {off:.3g}"
        )
    return rows
