"""Several answers about one sample, and what an attacker reads off them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from diffence import metrics
from diffence.attacks.base import Outputs, as_array

__all__ = ["AnswerOutputs", "answer_features"]

Floats = NDArray[np.float64]
QUANTILES = (0.25, 0.5, 0.75)


@dataclass(frozen=True, eq=False, init=False)
class AnswerOutputs(Outputs):
    """k answers to each of n samples: the same image asked again, or copies that hardly differ.

    answers: (n, k, classes) logits, finite; the first is the one to the image as it is, and `logits`. labels: true
    classes (n,), or None.
    """

    answers: Floats

    def __init__(self, answers: ArrayLike | torch.Tensor, labels: ArrayLike | torch.Tensor | None = None) -> None:
        given = as_array(answers)
        if given.ndim != 3 or given.size == 0:
            raise ValueError(f"answers: expected shape (n >= 1, k >= 1, classes >= 2), got {given.shape}")
        rows = metrics.checked_rows("answers", given.reshape(-1, given.shape[2])).reshape(given.shape)
        super().__init__(rows[:, 0], labels)
        object.__setattr__(self, "answers", rows)

    def phi(self, k: int | None = None, *, of_shown: bool = False) -> Floats:
        """log(p / (1 - p)) of the true label, or of the one that is shown, in the first k answers: (n, k)."""
        rows = self.answers[:, :k]
        flat = rows.reshape(-1, rows.shape[2])
        labels = None if of_shown else np.repeat(self.true_labels, rows.shape[1])
        return metrics.phi(flat, labels).reshape(rows.shape[:2])

    def right(self, k: int | None = None) -> Floats:
        """The share of the first k answers that show the true label, (n,)."""
        shown = self.answers[:, :k].argmax(axis=2)
        return np.asarray((shown == self.true_labels[:, None]).mean(axis=1))


def answer_features(outputs: AnswerOutputs, k: int, *, label_free: bool = False) -> Floats:
    """(n, 8): mean, smallest, largest, deviation and quartiles of phi over the first k answers, and the share right.

    phi is that of the true label; label_free: that of the label shown, and the last column is the share of answers that
    show the first answer's label. Equal answers give exactly the features of one answer.
    """
    phi = outputs.phi(k, of_shown=label_free)
    apart = phi - phi[:, :1]  # sums of equal numbers round, sums of zeros do not
    mean = apart.mean(axis=1)
    deviation = np.sqrt(np.square(apart - mean[:, None]).mean(axis=1))
    if label_free:
        shown = outputs.answers[:, :k].argmax(axis=2)
        agreeing = (shown == shown[:, :1]).mean(axis=1)
    else:
        agreeing = outputs.right(k)
    quantiles = phi[:, 0] + np.quantile(apart, QUANTILES, axis=1)
    return np.column_stack([phi[:, 0] + mean, phi.min(axis=1), phi.max(axis=1), deviation, *quantiles, agreeing])
