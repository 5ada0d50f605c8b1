"""Loss: members have a small one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from diffence.attacks.base import MetricAttack, Outputs

__all__ = ["Loss"]


@dataclass(eq=False)
class Loss(MetricAttack):
    """score = log p_y, minus the cross-entropy, with p_y clamped at 1e-30. Needs labels.

    Yeom et al., CSF 2018, their second adversary; the threshold is fitted. It still ranks samples whose p_y rounds to
    1, and one with p_y = 0 is the least likely member (some releases make it the surest).
    """

    title: ClassVar[str] = "loss"

    def _score(self, outputs: Outputs) -> NDArray[np.float64]:
        return outputs.of_label(outputs.log_p())
