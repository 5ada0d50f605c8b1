"""Noise robustness: how much Gaussian noise does the right label survive?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from diffence import metrics
from diffence.attacks.base import Outputs, as_array
from diffence.attacks.labels import LabelAttack, LabelOutputs
from diffence.attacks.perturb import checked_count, checked_images, generators, restored
from diffence.attacks.target import Images, Target
from diffence.progress import tqdm

__all__ = ["NoiseRobustness", "NoiseShares"]

WINDOW = 1024  # images whose generators and noise are held at once


@dataclass(frozen=True, eq=False, init=False)
class NoiseShares(LabelOutputs):
    """The shown labels of n samples, and the share of noised copies that kept the right one.

    shares: (n, levels of noise), 0 to 1. The rest: see `LabelOutputs`.
    """

    shares: NDArray[np.float64]

    def __init__(
        self,
        shown: ArrayLike | torch.Tensor,
        shares: ArrayLike | torch.Tensor,
        labels: ArrayLike | torch.Tensor | None = None,
        classes: int | None = None,
    ) -> None:
        super().__init__(shown, labels, classes)
        values = np.asarray(as_array(shares), dtype=np.float64)
        if values.ndim != 2 or len(values) != len(self) or values.shape[1] == 0:
            raise ValueError(f"shares: expected shape ({len(self)}, levels >= 1), got {values.shape}")
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError("shares: expected numbers from 0 to 1")
        object.__setattr__(self, "shares", values)


@dataclass(eq=False)
class NoiseRobustness(LabelAttack):
    """The share of copies with Gaussian noise that keep the right label: the score, 0 to 1. Needs labels.

    Choquette-Choo et al., ICML 2021. sigma: the noise's deviation in units of [0, 1] images, or several, over which the
    score is the mean; noised images are clipped, and rounded where images are uint8. draws: copies at each sigma (up to
    2,500 in the paper). The noise depends on the seed and the image's content alone: splitting a set changes nothing,
    and all levels scale the same draws.
    """

    seed: int = 0
    sigma: float | tuple[float, ...] = 0.1
    draws: int = 100
    progress: bool = False
    requires: ClassVar[type[Outputs]] = NoiseShares
    name: ClassVar[str] = "noise"

    def __post_init__(self) -> None:
        checked_count("seed", self.seed, 0)
        checked_count("draws", self.draws)
        if not self.levels or not all(math.isfinite(level) and level > 0 for level in self.levels):
            raise ValueError(f"sigma: expected a positive number, or several, got {self.sigma!r}")

    @property
    def levels(self) -> tuple[float, ...]:
        """sigma as a tuple."""
        return tuple(map(float, np.atleast_1d(self.sigma)))

    @property
    def query(self) -> tuple[object, ...]:
        return ("labels under noise", self.seed, self.levels, self.draws)

    def most_queries(self, values: int) -> int:
        return 1 + self.draws * len(self.levels)

    def collect(self, target: Target, images: Images, labels: ArrayLike | None = None) -> NoiseShares:
        """1 + draws x levels queries an image. The true labels are needed: ValueError where they are None."""
        given, values = checked_images(images)
        if labels is None:
            raise ValueError("labels: the true labels are needed here, got None")
        truth = metrics.checked_labels("labels", as_array(labels), len(given))
        kept = np.zeros((len(given), len(self.levels)))
        with tqdm(total=len(given) * self.draws, desc=self.name, disable=not self.progress, leave=False) as bar:
            for start in range(0, len(given), WINDOW):
                window = slice(start, start + WINDOW)
                random = generators(values[window], self.seed, "noise")
                for _ in range(self.draws):
                    noise = np.stack([rng.standard_normal(given.shape[1:], np.float32) for rng in random])
                    for place, level in enumerate(self.levels):
                        noised = restored(values[window] + np.float32(level) * noise, given.dtype)
                        kept[window, place] += target.labels(noised) == truth[window]
                    bar.update(len(random))
        return NoiseShares(target.labels(given), kept / self.draws, truth)

    def _check(self, name: str, outputs: Outputs, classes: int | None = None) -> None:
        super()._check(name, outputs, classes)
        if isinstance(outputs, NoiseShares) and outputs.shares.shape[1] != len(self.levels):
            raise ValueError(f"{name}: expected {len(self.levels)} levels of noise, got {outputs.shares.shape[1]}")

    def _score(self, outputs: Outputs) -> NDArray[np.float64]:
        assert isinstance(outputs, NoiseShares)
        return np.asarray(outputs.shares.mean(axis=1))
