"""What an attacker sees who is shown labels only, and what such attacks have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from diffence import metrics
from diffence.attacks.base import Attack, Family, Outputs, as_array

__all__ = ["LabelAttack", "LabelOutputs", "VariantLabels"]


@dataclass(frozen=True, eq=False, init=False)
class LabelOutputs(Outputs):
    """The shown labels of n samples, and nothing else of the answers.

    shown: (n,) integers from 0. labels: true classes (n,), or None. classes: how many there are, None for as many as
    occur. The logits are 1 at the shown label and 0 elsewhere, so `predicted` is `shown` and no score can leak in.
    """

    def __init__(
        self,
        shown: ArrayLike | torch.Tensor,
        labels: ArrayLike | torch.Tensor | None = None,
        classes: int | None = None,
    ) -> None:
        given = as_array(shown)
        if given.ndim != 1 or given.size == 0:
            raise ValueError(f"shown: expected shape (n >= 1,), got {given.shape}")
        checked = metrics.checked_labels("shown", given, len(given), classes)
        truth = None if labels is None else metrics.checked_labels("labels", as_array(labels), len(given), classes)
        least = min(int(checked.min()), 0 if truth is None else int(truth.min()))
        if least < 0:
            raise ValueError(f"shown, labels: expected classes from 0, got {least}")
        if classes is None:
            classes = max(2, 1 + int(checked.max()), 0 if truth is None else 1 + int(truth.max()))
        super().__init__(np.eye(classes)[checked], truth)


@dataclass(frozen=True, eq=False, init=False)
class VariantLabels(LabelOutputs):
    """The shown labels of n samples and of changed copies of them.

    variants: (n, queries) integers, the first column those of the samples as they are. labels, classes: as above.
    """

    variants: NDArray[np.int64]

    def __init__(
        self,
        variants: ArrayLike | torch.Tensor,
        labels: ArrayLike | torch.Tensor | None = None,
        classes: int | None = None,
    ) -> None:
        given = as_array(variants)
        if given.ndim != 2 or given.size == 0:
            raise ValueError(f"variants: expected shape (n >= 1, queries >= 1), got {given.shape}")
        checked = metrics.checked_labels("variants", given.reshape(-1), given.size, classes).reshape(given.shape)
        if checked.min() < 0:
            raise ValueError(f"variants: expected classes from 0, got {checked.min()}")
        super().__init__(checked[:, 0], labels, classes)
        object.__setattr__(self, "variants", checked)

    @property
    def bits(self) -> NDArray[np.bool_]:
        """Whether each query's label is the sample's true one, (n, queries)."""
        return np.asarray(self.variants == self.true_labels[:, None])


class LabelAttack(Attack):
    """An attack that is shown labels only. Any number of classes will do: it looks at right and wrong alone."""

    family: ClassVar[Family] = "label-only"

    @property
    def needs_labels(self) -> bool:
        return True

    def _check(self, name: str, outputs: Outputs, classes: int | None = None) -> None:
        super()._check(name, outputs, None)
