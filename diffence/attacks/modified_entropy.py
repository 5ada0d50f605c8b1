"""Modified entropy: entropy that knows the true label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from diffence.attacks.base import MetricAttack, Outputs

__all__ = ["ModifiedEntropy"]


@dataclass(eq=False)
class ModifiedEntropy(MetricAttack):
    """score = (1 - p_y) log p_y + sum_{i != y} p_i log(1 - p_i), the argument of each logarithm clamped at 1e-30.

    Song and Mittal, USENIX Security 2021, with the sign turned. Needs labels. It grows with p_y and falls with every
    other p_i; without the clamp a confident mistake is infinite.
    """

    title: ClassVar[str] = "modified entropy"

    def _score(self, outputs: Outputs) -> NDArray[np.float64]:
        log_not_p = outputs.log_not_p()
        terms = outputs.probabilities * log_not_p
        np.put_along_axis(terms, outputs.true_labels[:, None], 0.0, axis=1)
        right = np.exp(outputs.of_label(log_not_p)) * outputs.of_label(outputs.log_p())
        return np.asarray(right + terms.sum(axis=1))
