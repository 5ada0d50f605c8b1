"""Figures of a classifier's outputs: calibration error, phi, and the divergence of two histograms."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from diffence.metrics.checks import Floats, checked_labels, checked_probabilities, checked_rows, checked_scores


def ece(
    outputs: ArrayLike, labels: ArrayLike, *, kind: Literal["logits", "probabilities"] = "logits", bins: int = 10
) -> float:
    """Expected calibration error: sum over bins of (share of samples) |accuracy - mean confidence|.

    outputs (n, classes), of the `kind` said; labels (n,). Equal bins of the largest probability, closed on the right.
    """
    rows = checked_rows("outputs", outputs)
    truth = checked_labels("labels", labels, len(rows), rows.shape[1])
    if bins < 1:
        raise ValueError(f"bins: expected at least 1, got {bins}")
    if kind == "logits":
        probabilities = special.softmax(rows, axis=1)
    elif kind == "probabilities":
        probabilities = checked_probabilities("outputs", rows)
    else:
        raise ValueError(f"kind: expected 'logits' or 'probabilities', got {kind!r}")
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == truth
    place = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    return float(np.abs(np.bincount(place, correct - confidence)).sum() / len(rows))


def phi(logits: ArrayLike, labels: ArrayLike | None = None) -> Floats:
    """z_y - logsumexp of the other logits = log(p_y / (1 - p_y)), (n,); y is the first maximum where labels is None.

    logits (n, classes), labels (n,). The paper's equation 2, in float64 and without a cap.
    """
    rows = checked_rows("logits", logits)
    chosen = rows.argmax(axis=1) if labels is None else checked_labels("labels", labels, *rows.shape)
    index = chosen[:, None]
    others = rows.copy()
    np.put_along_axis(others, index, -np.inf, axis=1)
    return np.asarray(np.take_along_axis(rows, index, axis=1)[:, 0] - special.logsumexp(others, axis=1))


def js_divergence(p: ArrayLike, q: ArrayLike) -> float:
    """Jensen-Shannon divergence of two histograms (bins,), natural logarithm: 0 to log 2. Counts are normalised."""
    shares = []
    for name, values in (("p", p), ("q", q)):
        counts = checked_scores(name, values)
        if counts.min() < 0 or not 0 < counts.sum() < np.inf:
            raise ValueError(f"{name}: expected finite counts or probabilities, not negative and not all 0")
        shares.append(counts / counts.sum())
    if shares[0].shape != shares[1].shape:
        raise ValueError(f"p, q: expected equally many bins, got {len(shares[0])} and {len(shares[1])}")
    middle = (shares[0] + shares[1]) / 2
    return float(sum(special.rel_entr(share, middle).sum() for share in shares) / 2)
