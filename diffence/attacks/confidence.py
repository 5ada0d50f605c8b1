"""Confidence: members have a large one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffence.attacks.base import MetricAttack, Outputs

__all__ = ["Confidence"]


@dataclass(eq=False)
class Confidence(MetricAttack):
    """score = p_y, the probability of the true label; needs labels. No logarithm, no clamp.

    Song and Mittal, USENIX Security 2021; as in HAMP and Diffence. top=True: the largest probability
    instead, which needs no labels (Salem et al., NDSS 2019, their third attacker).
    """

    top: bool = False

    @property
    def title(self) -> str:
        return "top confidence" if self.top else "confidence"

    @property
    def uses_labels(self) -> bool:
        return not self.top

    def _score(self, outputs: Outputs) -> NDArray[np.float64]:
        probabilities = outputs.probabilities
        return np.asarray(probabilities.max(axis=1)) if self.top else outputs.of_label(probabilities)
