"""Correctness: the gap attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from diffence.attacks.base import Attack, Family, Outputs

__all__ = ["Correctness"]


@dataclass(eq=False)
class Correctness(Attack):
    """A sample that is classified rightly is called a member: score 1 if argmax = y, else 0. Needs labels.

    Yeom et al., CSF 2018, their first adversary (the gap attack). The threshold is 1 by definition, nothing is fitted;
    balanced accuracy and AUC are both the gap floor, (1 + train accuracy - test accuracy) / 2. No logarithm, no clamp.
    """

    family: ClassVar[Family] = "label-only"
    name: ClassVar[str] = "correctness"
    needs_labels: ClassVar[bool] = True

    def _score(self, outputs: Outputs) -> NDArray[np.float64]:
        return np.asarray(outputs.predicted == outputs.true_labels, dtype=np.float64)

    def _fit(self, members: Outputs, nonmembers: Outputs, targets: tuple[Outputs, Outputs] | None) -> None:
        self.threshold_ = 1.0
