"""Timing: how long does an answer take?"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from diffence import metrics
from diffence.attacks.base import Attack, Family, Outputs, as_array
from diffence.attacks.perturb import checked_count, checked_images
from diffence.attacks.target import Images, Target
from diffence.progress import tqdm

__all__ = ["TimedOutputs", "Timing"]


@dataclass(frozen=True, eq=False, init=False)
class TimedOutputs(Outputs):
    """Answers and the time that each took. seconds: (n,) finite, not negative. logits, labels: see `Outputs`."""

    seconds: NDArray[np.float64]

    def __init__(
        self,
        logits: ArrayLike | torch.Tensor,
        seconds: ArrayLike | torch.Tensor,
        labels: ArrayLike | torch.Tensor | None = None,
    ) -> None:
        super().__init__(logits, labels)
        values = np.asarray(as_array(seconds), dtype=np.float64)
        if values.shape != (len(self),):
            raise ValueError(f"seconds: expected shape ({len(self)},), got {values.shape}")
        if not (np.isfinite(values) & (values >= 0)).all():
            raise ValueError("seconds: expected finite numbers from 0, got NaN, infinity or negative ones")
        object.__setattr__(self, "seconds", values)


@dataclass(eq=False)
class Timing(Attack):
    """Latency of an answer to an image that is asked alone: the score, or its negative, as the known samples say.

    A defense that stops at the first acceptable draw takes 1 / agreement draws, and agreement differs by membership; a
    cache answers faster what was asked before. Constant work leaves noise only. seconds = median of `repeats` queries.
    All images are asked in a new order, by the seed, in each of the repeats, so that a machine that warms up or slows
    down does not sort them; `collect` members and non-members in one call for the same reason, and part them with
    `take`. No labels are needed.

    clock: gives seconds, for tests and for networks that report their own time. sign_: 1 where members take longer in
    the known samples, -1 where they take less.
    """

    repeats: int = 5
    seed: int = 0
    clock: Callable[[], float] = time.perf_counter
    progress: bool = False
    family: ClassVar[Family] = "adaptive"
    requires: ClassVar[type[Outputs]] = TimedOutputs
    name: ClassVar[str] = "timing"
    needs_labels: ClassVar[bool] = False
    timed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checked_count("repeats", self.repeats)
        checked_count("seed", self.seed, 0)

    @property
    def query(self) -> tuple[object, ...]:
        return ("seconds", self.repeats, self.seed, self.clock)

    def most_queries(self, values: int) -> int:
        return 1 + self.repeats

    def collect(self, target: Target, images: Images, labels: ArrayLike | None = None) -> TimedOutputs:
        """1 + `repeats` queries an image, one image a query; the first ones, not timed, warm the target up."""
        given, _ = checked_images(images)
        logits = np.concatenate([target(given[row : row + 1]) for row in range(len(given))])
        seconds = np.empty((len(given), self.repeats))
        random = np.random.default_rng(self.seed)
        total = len(given) * self.repeats
        with tqdm(total=total, desc=self.name, unit="image", disable=not self.progress, leave=False) as bar:
            for repeat in range(self.repeats):
                for row in random.permutation(len(given)):
                    image = given[row : row + 1]
                    start = self.clock()
                    target(image)
                    seconds[row, repeat] = self.clock() - start
                    bar.update()
        return TimedOutputs(logits, np.median(seconds, axis=1), labels)

    def _fit(self, members: Outputs, nonmembers: Outputs, targets: tuple[Outputs, Outputs] | None) -> None:
        times = [_seconds(members), _seconds(nonmembers)]
        self.sign_ = 1.0 if metrics.auc(*times) >= 0.5 else -1.0
        self.threshold_ = metrics.calibrate_threshold(*(self.sign_ * own for own in times))

    def _score(self, outputs: Outputs) -> NDArray[np.float64]:
        if not hasattr(self, "sign_"):
            raise RuntimeError(f"{self.name}: call fit(members, nonmembers) before score")
        return self.sign_ * _seconds(outputs)


def _seconds(outputs: Outputs) -> NDArray[np.float64]:
    assert isinstance(outputs, TimedOutputs)
    return outputs.seconds
