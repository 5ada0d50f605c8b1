"""Fallback detection: which answers are not re-drawn when the image hardly changes?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from diffence.attacks.answers import AnswerOutputs
from diffence.attacks.near_duplicate import NearDuplicates
from diffence.attacks.repeat import AnswersAttack
from diffence.attacks.target import Images, Target

__all__ = ["FallbackDetection"]

Floats = NDArray[np.float64]
FLOOR = 1e-12  # of a variance or a squared distance before its logarithm is taken: equal answers


@dataclass(eq=False)
class FallbackDetection(AnswersAttack):
    """Which samples does the defense treat in another way, and what do they say then? Needs labels.

    A defense that shows the unprotected answer where it cannot do better (fallback "original", mode "official") shows
    one that barely moves between near-duplicates, while re-drawn ones do; and it does so for the unusual images that
    membership inference is best at. One that exchanges two values instead (fallback "swap") shows vectors whose other
    classes change rank from copy to copy. Both also tell how often reconstructions keep the label, which is itself
    different for members. Logistic regression on: the logarithm of the variance of phi over the copies; `stillness`;
    the share of answers whose runner-up class is the usual one; phi of the true label, the same times the first, and
    whether the label is right.
    score: log odds of being a member.

    k, seed, pixels, flip, asked: of `NearDuplicates`, whose collection it shares.
    """

    k: int = 15
    seed: int = 0
    pixels: int = 3
    flip: bool = False
    asked: int | None = None
    progress: bool = False
    name: ClassVar[str] = "fallback detection"

    def __post_init__(self) -> None:
        self._copies()

    def _copies(self) -> NearDuplicates:
        return NearDuplicates(
            k=self.k, seed=self.seed, pixels=self.pixels, flip=self.flip, asked=self.asked, progress=self.progress
        )

    @property
    def _used(self) -> int:
        return self.k + 1

    @property
    def query(self) -> tuple[object, ...]:
        return self._copies().query

    def most_queries(self, values: int) -> int:
        return self._copies().most_queries(values)

    def collect(self, target: Target, images: Images, labels: ArrayLike | None = None) -> AnswerOutputs:
        """1 + `asked`, or 1 + k, queries an image."""
        return self._copies().collect(target, images, labels)

    def stillness(self, outputs: AnswerOutputs) -> Floats:
        """(n,) larger = less moved between near-duplicates, so more likely shown without protection.

        - log10 of the distance (root mean square over the classes) between the log probabilities that are shown for the
        image itself and for the nearest of its copies: one copy that falls back too is enough. No labels and no `fit`
        are needed.
        """
        log_p = special.log_softmax(outputs.answers[:, : self.k + 1], axis=2)
        apart = np.square(log_p[:, 1:] - log_p[:, :1]).mean(axis=2).min(axis=1)
        return np.asarray(-0.5 * np.log10(apart + FLOOR))

    def _features(self, outputs: AnswerOutputs) -> Floats:
        shown = outputs.phi(self.k + 1, of_shown=True)
        variance = np.log10(shown.var(axis=1) + FLOOR)
        phi = outputs.phi(1)[:, 0]
        runner_up = np.argsort(outputs.answers[:, : self.k + 1], axis=2, kind="stable")[:, :, -2]
        usual = (runner_up[:, :, None] == runner_up[:, None, :]).mean(axis=2).max(axis=1)
        return np.column_stack([variance, self.stillness(outputs), usual, phi, phi * variance, outputs.right(1)])
