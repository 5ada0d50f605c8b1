"""What every attack sees and does: outputs of the attacked model in, a score per sample out.

Fitting and scoring know arrays only, never the model, the data or a defense. An attack that needs more than logits and
labels (the answers to repeated or changed queries, those of shadow models) subclasses `Outputs` with the extra arrays,
names that class as its `requires`, and asks for them in `collect`; everything else stays as it is.
"""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import special

from diffence import metrics

if TYPE_CHECKING:
    from diffence.attacks.target import Images, Target

__all__ = ["FLOOR", "Attack", "Family", "MetricAttack", "Outputs", "as_array"]

Floats = NDArray[np.float64]
Family = Literal["metric", "trained", "shadow", "label-only", "adaptive"]

FLOOR = 1e-30  # probabilities are clamped here before their logarithm is taken


def as_array(values: ArrayLike | torch.Tensor) -> NDArray[Any]:
    """An array of a tensor or of anything that NumPy takes; tensors of floating point become float64."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return np.asarray(values.double() if values.is_floating_point() else values)
    return np.asarray(values)


@dataclass(frozen=True, eq=False, init=False)
class Outputs:
    """What the attacked model answered for n samples of one group.

    logits: (n, classes) real and finite, kept as float64. labels: (n,) true classes as integers, or None where they are
    not known. Torch tensors are taken too. Raises ValueError or TypeError naming the argument.

    Every array of this class and of its subclasses has the samples along its first axis.
    """

    logits: Floats
    labels: NDArray[np.int64] | None

    def __init__(self, logits: ArrayLike | torch.Tensor, labels: ArrayLike | torch.Tensor | None = None) -> None:
        rows = metrics.checked_rows("logits", as_array(logits))
        truth = None if labels is None else metrics.checked_labels("labels", as_array(labels), *rows.shape)
        object.__setattr__(self, "logits", rows)
        object.__setattr__(self, "labels", truth)

    @classmethod
    def from_probabilities(
        cls, probabilities: ArrayLike | torch.Tensor, labels: ArrayLike | torch.Tensor | None = None
    ) -> Self:
        """Of a model that answers with probabilities (n, classes): not negative, rows that sum to 1 within 0.001."""
        rows = metrics.checked_rows("probabilities", as_array(probabilities))
        metrics.checked_probabilities("probabilities", rows)
        return cls(np.log(np.maximum(rows, np.finfo(np.float64).tiny)), labels)

    def __len__(self) -> int:
        return len(self.logits)

    def take(self, index: ArrayLike) -> Self:
        """The samples at `index` (integers, or a mask), in that order."""
        chosen = copy.copy(self)
        for name, values in vars(self).items():
            if isinstance(values, np.ndarray):
                object.__setattr__(chosen, name, values[np.asarray(index)])
        if len(chosen) == 0:
            raise ValueError("index: expected at least one sample, got none")
        return chosen

    @property
    def classes(self) -> int:
        return int(self.logits.shape[1])

    @property
    def true_labels(self) -> NDArray[np.int64]:
        """labels; ValueError where they are None."""
        if self.labels is None:
            raise ValueError("labels: the true labels are needed here, got None")
        return self.labels

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The class of the largest logit, the first of equals; (n,)."""
        return np.asarray(self.logits.argmax(axis=1))

    @property
    def probabilities(self) -> Floats:
        """softmax of the logits, (n, classes)."""
        return np.asarray(special.softmax(self.logits, axis=1))

    def log_odds(self) -> Floats:
        """log(p / (1 - p)) of every class, (n, classes): exact also where p rounds to 1."""
        log_p = special.log_softmax(self.logits, axis=1)
        odds = log_p - np.log1p(-np.minimum(np.exp(log_p), 0.5))
        # Only the largest p can be above 1/2, where 1 - p loses digits; its odds come from the other logits.
        np.put_along_axis(odds, self.predicted[:, None], metrics.phi(self.logits)[:, None], axis=1)
        return np.asarray(odds)

    def log_p(self) -> Floats:
        """log max(p, 1e-30) of every class, (n, classes)."""
        return np.maximum(-np.logaddexp(0.0, -self.log_odds()), np.log(FLOOR))

    def log_not_p(self) -> Floats:
        """log max(1 - p, 1e-30) of every class, (n, classes)."""
        return np.maximum(-np.logaddexp(0.0, self.log_odds()), np.log(FLOOR))

    def of_label(self, values: Floats) -> Floats:
        """The entry of each row of `values` (n, classes) at the sample's true label, (n,)."""
        return values[np.arange(len(self)), self.true_labels]


class Attack(ABC):
    """A membership-inference attack: fitted on known members and non-members, it scores others.

    requires: the kind of `Outputs` that it is given. family: what it works with; reports group by it. timed: whether it
    takes the time of answers, so that kept ones will not do. threshold_, classes_: learned by `fit`. warnings_: what
    `fit` and `score` warned of since the last `fit`.
    """

    requires: ClassVar[type[Outputs]] = Outputs
    family: ClassVar[Family] = "metric"
    timed: ClassVar[bool] = False

    threshold_: float | Floats
    classes_: int
    warnings_: tuple[str, ...] = ()

    @property
    @abstractmethod
    def name(self) -> str:
        """What tables call it."""

    @property
    @abstractmethod
    def needs_labels(self) -> bool:
        """Whether it uses the samples' true labels."""

    @property
    def sees_targets(self) -> bool:
        """True where it tunes on the very targets that it is evaluated on, as some papers do; its name says so then."""
        return False

    @property
    def query(self) -> Hashable:
        """What `collect` asks: attacks with equal `query` can share what one of them collected."""
        return "answers"

    def collect(self, target: Target, images: Images, labels: ArrayLike | None = None) -> Outputs:
        """Ask `target` about `images` (n, C, H, W) all that this attack wants to know; -> `requires`.

        labels: true classes (n,), where they are known. Here: one answer to each image as it is.
        """
        return target.outputs(images, labels)

    def most_queries(self, values: int) -> int:
        """Images that `collect` asks about for each sample, an image of `values` values; it may be fewer."""
        return 1

    @property
    def hypothetical(self) -> bool:
        """True where `collect` asks something else than the attacked model, to see what if; audits do not count it."""
        return False

    def fit(self, members: Outputs, nonmembers: Outputs, *, targets: tuple[Outputs, Outputs] | None = None) -> Self:
        """Learn from the known members and non-members; -> self.

        targets: the evaluated (members, non-members), for attacks with `sees_targets` only; all others refuse them.
        """
        self._check("members", members)
        self._check("nonmembers", nonmembers, members.classes)
        if self.sees_targets != (targets is not None):
            need = "needs the evaluated samples" if self.sees_targets else "must not see the evaluated samples"
            raise ValueError(f"targets: {self.name} {need}")
        for place, outputs in enumerate(targets or ()):
            self._check(f"targets[{place}]", outputs, members.classes)
        self.warnings_ = ()
        self._fit(members, nonmembers, targets)
        self.classes_ = members.classes
        return self

    def score(self, outputs: Outputs) -> Floats:
        """(n,) float64, larger = more likely a member."""
        self._check("outputs", outputs, getattr(self, "classes_", None))
        return self._score(outputs)

    def predict(self, outputs: Outputs) -> NDArray[np.bool_]:
        """(n,) True = called a member: score >= the threshold that was fitted. RuntimeError before `fit`."""
        if not hasattr(self, "threshold_"):
            raise RuntimeError(f"{self.name}: call fit(members, nonmembers) before predict")
        return self.score(outputs) >= self._threshold(outputs)

    @abstractmethod
    def _score(self, outputs: Outputs) -> Floats: ...

    def _fit(self, members: Outputs, nonmembers: Outputs, targets: tuple[Outputs, Outputs] | None) -> None:
        self.threshold_ = metrics.calibrate_threshold(self._score(members), self._score(nonmembers))

    def _threshold(self, outputs: Outputs) -> float | Floats:
        return self.threshold_

    def _warn(self, text: str) -> None:
        """Warn, and keep it in `warnings_` for reports."""
        warnings.warn(f"{self.name}: {text}", stacklevel=5)
        if text not in self.warnings_:
            self.warnings_ = (*self.warnings_, text)

    def _check(self, name: str, outputs: Outputs, classes: int | None = None) -> None:
        if not isinstance(outputs, self.requires):
            raise TypeError(f"{name}: {self.name} expects {self.requires.__name__}, got {type(outputs).__name__}")
        if self.needs_labels and outputs.labels is None:
            raise ValueError(f"{name}: {self.name} needs the true labels, but labels is None")
        if classes is not None and outputs.classes != classes:
            raise ValueError(f"{name}: expected logits of {classes} classes, got {outputs.classes}")


@dataclass(eq=False)
class MetricAttack(Attack):
    """An attack whose score is a formula; only its threshold is fitted (Song and Mittal, 2021).

    per_class: one threshold for each true class instead of one for all; needs labels. threshold_ is then (classes,),
    and known_ (classes, 2) counts the known members and non-members behind each.
    """

    per_class: bool = False

    @property
    @abstractmethod
    def title(self) -> str:
        """The name, without the kind of threshold."""

    @property
    def uses_labels(self) -> bool:
        """Whether the score itself uses the true labels."""
        return True

    known_: NDArray[np.int64] = field(init=False, repr=False)

    @property
    def name(self) -> str:
        return f"{self.title} per class" if self.per_class else self.title

    @property
    def needs_labels(self) -> bool:
        return self.uses_labels or self.per_class

    def _fit(self, members: Outputs, nonmembers: Outputs, targets: tuple[Outputs, Outputs] | None) -> None:
        if not self.per_class:
            super()._fit(members, nonmembers, targets)
            return
        self.threshold_, self.known_ = metrics.calibrate_class_thresholds(
            self._score(members), self._score(nonmembers), members.true_labels, nonmembers.true_labels, members.classes
        )

    def _threshold(self, outputs: Outputs) -> float | Floats:
        return np.asarray(self.threshold_)[outputs.true_labels] if self.per_class else self.threshold_
