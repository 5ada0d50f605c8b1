"""Near-duplicates: images that nobody can tell apart, but that draw new noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from diffence.attacks.answers import AnswerOutputs
from diffence.attacks.perturb import checked_count, checked_images, near_duplicates
from diffence.attacks.repeat import AnswersAttack
from diffence.attacks.target import Images, Target
from diffence.progress import tqdm

__all__ = ["NearDuplicates"]


@dataclass(eq=False)
class NearDuplicates(AnswersAttack):
    """The image and k copies that differ by one grey level in a few places; the features of `RepeatQueries`.

    Noise that is keyed by the image's content is drawn anew for every copy, while what the classifier knows of the
    image stays: this is what repeated queries are to fresh noise. score: log odds of being a member. Needs labels.

    pixels: values (of any channel) that go up or down by one level of 255, places and signs by the seed and the image's
        content. flip: every second copy is mirrored as well, for classifiers that do not mind.
    label_free: phi of the shown label; no labels needed.
    asked: how many copies `collect` asks about, None for k. Attacks with different k and equal `asked` share one
        collection, of which each uses the image and the first k copies (`ladder`).
    """

    k: int = 15
    seed: int = 0
    pixels: int = 3
    flip: bool = False
    label_free: bool = False
    asked: int | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        checked_count("k", self.k)
        checked_count("seed", self.seed, 0)
        checked_count("pixels", self.pixels)
        if self.asked is not None:
            checked_count("asked", self.asked, self.k)

    @classmethod
    def ladder(cls, ks: Sequence[int] = (3, 15, 63), **options: Any) -> list[Self]:
        """An attack for each k; all of them share one collection of the largest."""
        if not ks:
            raise ValueError("ks: expected at least one k, got none")
        return [cls(k=k, asked=max(ks), **options) for k in ks]

    @property
    def name(self) -> str:
        kind = ("flip, " if self.flip else "") + ("label-free, " if self.label_free else "")
        return f"near-duplicates ({kind}k = {self.k})"

    @property
    def query(self) -> tuple[object, ...]:
        return ("near-duplicates", self.asked or self.k, self.seed, self.pixels, self.flip)

    @property
    def _used(self) -> int:
        return self.k + 1

    def most_queries(self, values: int) -> int:
        return 1 + (self.asked or self.k)

    def collect(self, target: Target, images: Images, labels: ArrayLike | None = None) -> AnswerOutputs:
        """1 + `asked`, or 1 + k, queries an image."""
        given, _ = checked_images(images)
        copies = near_duplicates(given, self.asked or self.k, pixels=self.pixels, flip=self.flip, seed=self.seed)
        progress = tqdm([given, *copies], "near-duplicates", unit="copy", disable=not self.progress, leave=False)
        return AnswerOutputs(np.stack([target(own) for own in progress], axis=1), labels)
