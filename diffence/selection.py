"""phi, the choice of a reconstruction, and the search for the interval: the paper's section 3, computed by the core.

Equation 2: phi(p) = log(p / (1 - p)) with p the largest probability; on logits z_top - logsumexp of the others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from diffence import _core
from diffence.backends import Mode

__all__ = ["FALLBACK", "INSIDE", "NEAREST", "phi", "search_interval", "select", "swap_label"]

INSIDE, NEAREST, FALLBACK = _core.INSIDE, _core.NEAREST, _core.FALLBACK


def phi(logits: torch.Tensor | ArrayLike, mode: Mode = "paper") -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """phi and the predicted class (the first maximum) of each row of `logits` (..., classes), classes >= 2.

    mode "paper": log-sum-exp in float64, no cap. mode "official": the release's float32 exponentials with a floor
    of 1e-45. Raises ValueError for a logit that is not finite.
    """
    if isinstance(logits, torch.Tensor):
        logits = logits.detach().to("cpu", torch.float64).numpy()
    array = np.asarray(logits, dtype=np.float64)
    if array.ndim == 0:
        raise ValueError("logits: expected at least one dimension (..., classes), got a scalar")
    values, predicted = _core.phi(np.ascontiguousarray(array.reshape(-1, array.shape[-1])), mode)
    return values.reshape(array.shape[:-1]), predicted.reshape(array.shape[:-1])


def select(
    phi: ArrayLike, predicted: ArrayLike, labels: ArrayLike, interval: tuple[float, float] | None = None
) -> tuple[NDArray[np.int32], NDArray[np.int8]]:
    """The draw that answers for each image, and how it was found.

    phi, predicted: (B, n) of the reconstructions in draw order; labels: (B,) classes to keep; interval: closed, None
    for scenario 3 (everything that agrees is acceptable). -> draw (B,) and outcome (B,): INSIDE, the first agreeing
    draw inside; NEAREST, none inside, the agreeing draw nearest to the interval; FALLBACK, no draw agrees, the draw
    whose phi is nearest. Draws are independent and identically distributed, so the first is the uniform choice.
    """
    return _core.select(phi, predicted, labels, interval)


def search_interval(
    phi: ArrayLike,
    match: ArrayLike,
    member: ArrayLike,
    *,
    mode: Mode = "paper",
    phi_original: ArrayLike | None = None,
) -> dict[str, Any]:
    """Scenario 1: the interval whose chosen phi differ least between members and non-members.

    phi (B, n) float64, match (B, n) and member (B,) bool. Every pair of edges of a grid of 20 equal steps over
    [min phi of members, max phi of non-members] is tried; for each, the selection is made and the Jensen-Shannon
    divergence of the chosen phi of the two groups taken over 100 bins. The first minimum wins. mode "official"
    reproduces the release's edges, bins and distance, and takes `phi_original` (B,) as the last candidate.
    -> "low", "high", "divergence", "best" and the arrays "lows", "highs", "divergences" of all pairs.
    """
    return _core.search_interval(phi, match, member, mode=mode, phi_original=phi_original)


def swap_label(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The fallback "swap": each row's largest value exchanged with that of its label, so that the label wins.

    logits (B, classes) of a reconstruction that disagrees; labels (B,). Only the two values trade places, whether the
    label came second or later; the others stay. Where the largest value occurs more than once, the label's is raised
    to the next representable number, so that it is the only maximum. No value of the original's logits is used.
    """
    swapped = logits.clone()
    rows = torch.arange(len(logits), device=logits.device)
    top = logits.argmax(1)
    swapped[rows, top] = logits[rows, labels]
    swapped[rows, labels] = logits[rows, top]
    best = swapped[rows, labels]
    tied = (swapped == best[:, None]).sum(1) > 1
    if tied.any():
        above = torch.full_like(best[tied], float("inf"))
        swapped[rows[tied], labels[tied]] = torch.nextafter(best[tied], above)
    return swapped
