"""Repeated queries: what several answers to one image give away together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffence import metrics
from diffence.attacks.answers import AnswerOutputs, answer_features
from diffence.attacks.base import Attack, Family, Outputs
from diffence.attacks.logistic import Logistic
from diffence.attacks.perturb import checked_count, checked_images
from diffence.attacks.target import Images, Target
from diffence.progress import tqdm

__all__ = ["AnswersAttack", "RepeatQueries"]

SAME = 3  # answers that are equal for every image before the attacker gives up asking


class AnswersAttack(Attack):
    """Logistic regression on features of the first `_used` answers; the score is its log odds."""

    family: ClassVar[Family] = "adaptive"
    requires: ClassVar[type[Outputs]] = AnswerOutputs
    label_free: bool = False

    @property
    def needs_labels(self) -> bool:
        return not self.label_free

    @property
    @abstractmethod
    def _used(self) -> int: ...

    def _features(self, outputs: AnswerOutputs) -> NDArray[np.float64]:
        return answer_features(outputs, self._used, label_free=self.label_free)

    def _check(self, name: str, outputs: Outputs, classes: int | None = None) -> None:
        super()._check(name, outputs, classes)
        if isinstance(outputs, AnswerOutputs) and outputs.answers.shape[1] < self._used:
            raise ValueError(
                f"{name}: {self.name} needs {self._used} answers to each sample, got {outputs.answers.shape[1]}"
            )

    def _fit(self, members: Outputs, nonmembers: Outputs, targets: tuple[Outputs, Outputs] | None) -> None:
        assert isinstance(members, AnswerOutputs)
        assert isinstance(nonmembers, AnswerOutputs)
        self.regression_ = Logistic(self._features(members), self._features(nonmembers))
        self.threshold_ = metrics.calibrate_threshold(self._score(members), self._score(nonmembers))

    def _score(self, outputs: Outputs) -> NDArray[np.float64]:
        assert isinstance(outputs, AnswerOutputs)
        if not hasattr(self, "regression_"):
            raise RuntimeError(f"{self.name}: call fit(members, nonmembers) before score")
        return self.regression_(self._features(outputs))


@dataclass(eq=False)
class RepeatQueries(AnswersAttack):
    """The same image, asked k times; logistic regression on mean, extremes, spread and quartiles of phi.

    Against noise that is drawn anew for each query, averages of many answers undo it. Where the spread between samples
    is Gaussian with a share rho of re-drawn noise, k answers separate by d'_k = d'_1 / sqrt(1 - rho + rho / k), AUC =
    Phi(d'_k / sqrt(2)). Against noise that the image itself determines, all answers are equal, and so are the scores of
    all k. score: log odds of being a member. Needs labels.

    fresh: every further answer comes from `target.rekeyed()`: the what-if of a defense with new noise each time.
    label_free: phi of the shown label; no labels needed.
    asked: how many times `collect` asks, None for k. Attacks with different k and equal `asked` share one collection,
        of whose answers each uses the first k (`ladder`).
    stop_when_equal: without `fresh`, stop when the first 3 answers are equal for every image of the call, and take the
        others to be equal too: asking a deterministic target again is waste.
    """

    k: int = 16
    fresh: bool = False
    label_free: bool = False
    asked: int | None = None
    stop_when_equal: bool = True
    progress: bool = False

    def __post_init__(self) -> None:
        checked_count("k", self.k)
        if self.asked is not None:
            checked_count("asked", self.asked, self.k)

    @classmethod
    def ladder(cls, ks: Sequence[int] = (1, 4, 16, 64), *, fresh: bool = False, **options: bool) -> list[Self]:
        """An attack for each k; all of them share one collection of the largest."""
        if not ks:
            raise ValueError("ks: expected at least one k, got none")
        return [cls(k=k, fresh=fresh, asked=max(ks), **options) for k in ks]

    @property
    def name(self) -> str:
        kind = ("fresh, " if self.fresh else "") + ("label-free, " if self.label_free else "")
        return f"repeat ({kind}k = {self.k})"

    @property
    def query(self) -> tuple[object, ...]:
        return ("repeats", self.asked or self.k, self.fresh, self.stop_when_equal)

    @property
    def hypothetical(self) -> bool:
        return self.fresh

    @property
    def _used(self) -> int:
        return self.k

    def most_queries(self, values: int) -> int:
        return self.asked or self.k

    def collect(self, target: Target, images: Images, labels: ArrayLike | None = None) -> AnswerOutputs:
        """`asked`, or k, queries an image; 3 where all answers are equal and `stop_when_equal`."""
        given, _ = checked_images(images)
        asked = self.asked or self.k
        answers: list[NDArray[np.float64]] = []
        for repeat in tqdm(range(asked), "repeats", unit="answer", disable=not self.progress, leave=False):
            answers.append((target.rekeyed() if self.fresh and repeat else target)(given))
            if self.stop_when_equal and not self.fresh and repeat == SAME - 1 and _equal(answers):
                answers += [answers[0]] * (asked - SAME)
                break
        return AnswerOutputs(np.stack(answers, axis=1), labels)


def _equal(answers: Sequence[NDArray[np.float64]]) -> bool:
    return all(np.array_equal(answers[0], other) for other in answers[1:])
