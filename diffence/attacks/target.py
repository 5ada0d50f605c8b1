"""The attacked model as a black box: what an attacker can ask, whatever stands behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from diffence import metrics
from diffence.attacks.base import Outputs, as_array

__all__ = ["Images", "Target"]

Images = NDArray[Any]  # (n, C, H, W), uint8 or float in [0, 1], as the asked function takes them


@dataclass(frozen=True, eq=False)
class Target:
    """A model behind its interface.

    ask: images -> logits (n, classes), as an array or a tensor. ask_labels: images -> the shown classes (n,), where
    that is cheaper than all of `ask`; the classes must be those of `ask`. rekey: makes the same target with other
    secret noise, where its answers depend on some; None where asking twice is deterministic for good.
    """

    ask: Callable[[Images], ArrayLike | torch.Tensor]
    ask_labels: Callable[[Images], ArrayLike | torch.Tensor] | None = None
    rekey: Callable[[], Target] | None = None

    def __call__(self, images: Images) -> NDArray[np.float64]:
        """Logits (n, classes) of images (n, C, H, W); ValueError where the answer is anything else."""
        rows = metrics.checked_rows("target", as_array(self.ask(images)))
        if len(rows) != len(images):
            raise ValueError(f"target: expected an answer for each of {len(images)} images, got {len(rows)}")
        return rows

    def labels(self, images: Images) -> NDArray[np.int64]:
        """The class that is shown for each image, (n,)."""
        if self.ask_labels is None:
            return np.asarray(self(images).argmax(axis=1))
        return metrics.checked_labels("target", as_array(self.ask_labels(images)), len(images))

    def rekeyed(self) -> Target:
        """The same target with fresh noise; ValueError where it has none."""
        if self.rekey is None:
            raise ValueError("target: its answers depend on no secret noise, so there is nothing to draw anew")
        return self.rekey()

    def outputs(self, images: Images, labels: ArrayLike | None) -> Outputs:
        """One answer to each image, as attacks on arrays take it."""
        return Outputs(self(images), labels)
