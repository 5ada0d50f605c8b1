"""Augmentation: is the label still right when the image is moved or turned?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffence import metrics
from diffence.attacks.base import Outputs
from diffence.attacks.labels import LabelAttack, VariantLabels
from diffence.attacks.logistic import Logistic
from diffence.attacks.perturb import Padding, checked_count, checked_images, rotated, translated
from diffence.attacks.target import Images, Target
from diffence.progress import tqdm

__all__ = ["Augmentation"]

Kind = Literal["translations", "rotations"]
Combine = Literal["sum", "logistic"]


@dataclass(eq=False)
class Augmentation(LabelAttack):
    """Choquette-Choo et al., ICML 2021: which augmented copies are still classified rightly. Needs labels.

    kind: "translations": the image and all shifts by whole pixels with |down| + |right| = d: 4 d + 1 queries.
        "rotations": 2 d + 1 queries, by -d, ..., d whole degrees about the centre, bilinear; the first query is the
        image as it is in both. d: None for 1 pixel, or 4 degrees.
    padding: what comes in at the edges, "zero" (black, as the paper) or "edge" (the nearest pixel).
    combine: "sum": score = number of right labels, 0 to queries. "logistic": log odds of a logistic regression on the
        bits, fitted to the known samples.
    """

    kind: Kind = "translations"
    d: int | None = None
    padding: Padding = "zero"
    combine: Combine = "sum"
    progress: bool = False
    requires: ClassVar[type[Outputs]] = VariantLabels

    def __post_init__(self) -> None:
        for name, allowed in (("kind", Kind), ("padding", Padding), ("combine", Combine)):
            if getattr(self, name) not in get_args(allowed):
                raise ValueError(f"{name}: expected one of {get_args(allowed)}, got {getattr(self, name)!r}")
        if self.d is None:
            self.d = 1 if self.kind == "translations" else 4
        checked_count("d", self.d)

    @property
    def name(self) -> str:
        return self.kind if self.combine == "sum" else f"{self.kind} ({self.combine})"

    @property
    def query(self) -> tuple[object, ...]:
        return ("labels of augmentations", self.kind, self.d, self.padding)

    @property
    def changes(self) -> Sequence[tuple[int, int] | int]:
        """What is asked, in this order: shifts (down, right) in pixels, or degrees; the first is no change."""
        d = self.d or 0
        if self.kind == "rotations":
            return [0, *(degrees for degrees in range(-d, d + 1) if degrees)]
        steps = range(-d, d + 1)
        return [(0, 0), *((down, right) for down in steps for right in steps if abs(down) + abs(right) == d)]

    def collect(self, target: Target, images: Images, labels: ArrayLike | None = None) -> VariantLabels:
        """The labels of all copies: 4 d + 1 or 2 d + 1 queries an image."""
        given, _ = checked_images(images)
        shown = []
        for change in tqdm(self.changes, self.name, unit="copy", disable=not self.progress, leave=False):
            if isinstance(change, tuple):
                copies = translated(given, change[0], change[1], self.padding)
            else:
                copies = rotated(given, change, self.padding) if change else given
            shown.append(target.labels(copies))
        return VariantLabels(np.stack(shown, axis=1), labels)

    def most_queries(self, values: int) -> int:
        return len(self.changes)

    def _check(self, name: str, outputs: Outputs, classes: int | None = None) -> None:
        super()._check(name, outputs, classes)
        if isinstance(outputs, VariantLabels) and outputs.variants.shape[1] != len(self.changes):
            raise ValueError(
                f"{name}: {self.name} expects {len(self.changes)} queries a sample, got {outputs.variants.shape[1]}"
            )

    def _fit(self, members: Outputs, nonmembers: Outputs, targets: tuple[Outputs, Outputs] | None) -> None:
        if self.combine == "logistic":
            self.regression_ = Logistic(_bits(members), _bits(nonmembers))
        self.threshold_ = metrics.calibrate_threshold(self._score(members), self._score(nonmembers))

    def _score(self, outputs: Outputs) -> NDArray[np.float64]:
        if self.combine == "sum":
            return np.asarray(_bits(outputs).sum(axis=1))
        if not hasattr(self, "regression_"):
            raise RuntimeError(f"{self.name}: call fit(members, nonmembers) before score")
        return self.regression_(_bits(outputs))


def _bits(outputs: Outputs) -> NDArray[np.float64]:
    assert isinstance(outputs, VariantLabels)
    return outputs.bits.astype(np.float64)
