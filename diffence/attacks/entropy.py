"""Entropy: members' predictions have little."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from diffence.attacks.base import MetricAttack, Outputs

__all__ = ["Entropy"]


@dataclass(eq=False)
class Entropy(MetricAttack):
    """score = sum_i p_i log p_i, minus the entropy of the prediction; p clamped at 1e-30 in the logarithm. No labels.

    Salem et al., NDSS 2019, their third attacker; Song and Mittal, USENIX Security 2021.
    """

    title: ClassVar[str] = "entropy"
    uses_labels: ClassVar[bool] = False

    def _score(self, outputs: Outputs) -> NDArray[np.float64]:
        return np.asarray((outputs.probabilities * outputs.log_p()).sum(axis=1))
