"""What attacks with shadow models see: the target's answers beside those of models trained by the attacker."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from diffence import metrics
from diffence.attacks.base import FLOOR, Attack, Family, Outputs, as_array
from diffence.attacks.sides import Side
from diffence.attacks.target import Images, Target

__all__ = ["ShadowAttack", "ShadowOutputs", "ShadowSource", "assign", "phi_of_label"]

Floats = NDArray[np.float64]
Values = ArrayLike | torch.Tensor


@dataclass(frozen=True, eq=False, init=False)
class ShadowOutputs(Outputs):
    """Outputs of the target and, of the same n samples, the signals of shadow models.

    signals: (n, queries) phi_y = log(p_y / (1 - p_y)) of the target, one a query: the sample as it is, and changed
    versions of it. shadow_signals: (n, shadows, queries), the same of each shadow model. inside: (n, shadows) True =
    that shadow was trained on that sample. All float64 and finite.
    query_logits (n, queries, classes), shadow_logits (n, shadows, queries, classes): what the signals were made of, for
    attacks that need more than phi_y; None where they were not kept.

    The constructor takes signals, with `queries` left out where there is one; `from_logits`, `from_probabilities` and
    `from_confidences` take what files of other programs hold. Raises ValueError or TypeError naming the argument.
    """

    signals: Floats
    shadow_signals: Floats
    inside: NDArray[np.bool_]
    query_logits: NDArray[np.floating] | None
    shadow_logits: NDArray[np.floating] | None

    def __init__(
        self,
        logits: Values,
        labels: Values,
        shadow_signals: Values,
        inside: Values,
        *,
        signals: Values | None = None,
        query_logits: NDArray[np.floating] | None = None,
        shadow_logits: NDArray[np.floating] | None = None,
    ) -> None:
        """signals: phi_y of `logits` and `labels` where it is None."""
        super().__init__(logits, labels)
        n = len(self)
        if labels is None:
            raise ValueError("labels: the true labels are needed here, got None")
        own = metrics.phi(self.logits, self.true_labels) if signals is None else as_array(signals)
        own = own[:, None] if own.ndim == 1 else own
        theirs = as_array(shadow_signals)
        theirs = theirs[:, :, None] if theirs.ndim == 2 else theirs
        _checked("signals", own, (n, None))
        _checked("shadow_signals", theirs, (n, None, own.shape[1]))
        object.__setattr__(self, "signals", own.astype(np.float64))
        object.__setattr__(self, "shadow_signals", theirs.astype(np.float64))
        object.__setattr__(self, "inside", _membership(inside, n, theirs.shape[1]))
        queries, classes = own.shape[1], self.classes
        for name, kept, shape in (
            ("query_logits", query_logits, (n, queries, classes)),
            ("shadow_logits", shadow_logits, (n, theirs.shape[1], queries, classes)),
        ):
            if kept is not None:
                _checked(name, kept, shape)
            object.__setattr__(self, name, kept)

    @classmethod
    def from_logits(cls, logits: Values, labels: Values, shadow_logits: Values, inside: Values) -> Self:
        """Of logits of the target and the shadows for the same samples and classes.

        logits: (n, classes), or (n, queries, classes) with the sample as it is first. shadow_logits:
        (n, shadows, classes) or (n, shadows, queries, classes). inside: (n, shadows) bool.
        """
        own, theirs = as_array(logits), as_array(shadow_logits)
        own = own[:, None] if own.ndim == 2 else own
        theirs = theirs[:, :, None] if theirs.ndim == 3 else theirs
        _checked("logits", own, (None, None, None))
        _checked("shadow_logits", theirs, (len(own), None, *own.shape[1:]))
        truth = metrics.checked_labels("labels", as_array(labels), len(own), own.shape[2])
        return cls(
            own[:, 0],
            truth,
            phi_of_label(theirs, truth),
            inside,
            signals=phi_of_label(own, truth),
            query_logits=own,
            shadow_logits=theirs,
        )

    @classmethod
    def from_probabilities(
        cls,
        probabilities: Values,
        labels: Values | None = None,
        shadow_probabilities: Values | None = None,
        inside: Values | None = None,
    ) -> Self:
        """As `from_logits`, of models that answer with probabilities; all arguments are needed."""
        if labels is None or shadow_probabilities is None or inside is None:
            raise ValueError("labels, shadow_probabilities, inside: all are needed with shadow models")
        logs = []
        for name, values in (("probabilities", probabilities), ("shadow_probabilities", shadow_probabilities)):
            array = as_array(values)
            if array.ndim < 2:
                raise ValueError(f"{name}: expected classes along the last axis, got shape {array.shape}")
            rows = metrics.checked_rows(name, array.reshape(-1, array.shape[-1]))
            metrics.checked_probabilities(name, rows)
            logs.append(np.log(np.maximum(rows, np.finfo(np.float64).tiny)).reshape(array.shape))
        return cls.from_logits(logs[0], labels, logs[1], inside)

    @classmethod
    def from_confidences(cls, confidences: Values, shadow_confidences: Values, inside: Values) -> Self:
        """Of nothing but p_y, the probability of the true class: (n,) of the target, (n, shadows) of the shadows.

        p and 1 - p are clamped at 1e-30; a p that was rounded to 1 cannot be told from others any more, so logits are
        better where they are at hand. The samples get two classes, the true one (0) and all others (1).
        """

        def odds(name: str, values: Values, shape: tuple[int | None, ...]) -> Floats:
            p = as_array(values)
            _checked(name, p, shape)
            if p.min() < 0 or p.max() > 1:
                raise ValueError(f"{name}: expected probabilities from 0 to 1, got {p.min():.6g} to {p.max():.6g}")
            p = p.astype(np.float64)
            return np.asarray(np.log(np.maximum(p, FLOOR)) - np.log(np.maximum(1 - p, FLOOR)))

        own = odds("confidences", confidences, (None,))
        theirs = odds("shadow_confidences", shadow_confidences, (len(own), None))
        return cls(np.stack([own, np.zeros_like(own)], axis=1), np.zeros(len(own), np.int64), theirs, inside)

    @property
    def shadows(self) -> int:
        """How many shadow models there are."""
        return int(self.inside.shape[1])

    def with_shadows(self, index: ArrayLike) -> Self:
        """The same samples and target with the shadow models at `index` (integers or a mask) alone."""
        chosen, columns = self.take(np.arange(len(self))), np.asarray(index)
        for name in ("shadow_signals", "inside", "shadow_logits"):
            values = getattr(self, name)
            if values is not None:
                object.__setattr__(chosen, name, values[:, columns])
        if chosen.shadows == 0:
            raise ValueError("index: expected at least one shadow model, got none")
        return chosen


class ShadowSource(Protocol):
    """Where an attack gets the shadows' answers from; `diffence.shadows.Shadows` is one."""

    def collect(self, target: Target, images: Images, labels: ArrayLike | None = None) -> ShadowOutputs:
        """Ask the target about `images`, and put the shadows' answers to the same images beside it."""


class ShadowAttack(Attack):
    """An attack that compares the target with shadow models; the samples' true labels are always needed.

    shadows: where `collect` gets the shadows' answers from; not needed where ShadowOutputs are given to fit and score.
    """

    requires: ClassVar[type[Outputs]] = ShadowOutputs
    family: ClassVar[Family] = "shadow"
    shadows: ShadowSource | None

    @property
    def needs_labels(self) -> bool:
        return True

    @property
    def query(self) -> Hashable:
        return ("shadows", self.shadows)

    def most_queries(self, values: int) -> int:
        return len(getattr(self.shadows, "queries", "1"))

    def collect(self, target: Target, images: Images, labels: ArrayLike | None = None) -> ShadowOutputs:
        """The target's answers beside those of `shadows`; ValueError where there are none."""
        if self.shadows is None:
            raise ValueError(
                f"shadows: {self.name} asks shadow models, got None; give it a diffence.shadows.Shadows, "
                "or give ShadowOutputs to fit and score"
            )
        return self.shadows.collect(target, images, labels)

    def _groups(self, members: Outputs, nonmembers: Outputs) -> tuple[ShadowOutputs, ShadowOutputs]:
        groups = cast(ShadowOutputs, members), cast(ShadowOutputs, nonmembers)
        if groups[0].shadow_signals.shape[1:] != groups[1].shadow_signals.shape[1:]:
            raise ValueError("members, nonmembers: expected the same shadow models and queries in both")
        return groups

    def _require(self, chosen: NDArray[np.bool_], which: str) -> None:
        """ValueError where no shadow is on the side that `which` says."""
        if not chosen.any():
            raise ValueError(f"inside: {self.name} needs shadow models that were {which} the samples, got none")

    def _warn_of_empty(self, side: Side, which: str) -> None:
        """Warn where samples have no shadow on one side."""
        empty = int(side.empty.sum())
        if empty:
            self._warn(
                f"{empty} of {len(side.empty)} samples have no shadow model that was {which} them; "
                "the mean over the known samples stands in"
            )


def assign(count: int, n: int, seed: int) -> NDArray[np.bool_]:
    """Which of `count` shadow models is trained on which of n samples: bool (n, count).

    Each sample is in count // 2 of them: those with the lower half of `count` uniform numbers drawn for it (Carlini et
    al., S&P 2022). So half of the models know a sample and half do not, and the models' training sets are about n / 2.
    """
    for name, value, least in (("count", count, 2), ("n", n, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")
    ranks = np.random.default_rng(seed).random((n, count)).argsort(axis=1, kind="stable").argsort(axis=1)
    return np.asarray(ranks < count // 2)


def phi_of_label(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> Floats:
    """phi_y of logits (n, ..., classes) with one label a sample, float64 (n, ...)."""
    rows = logits.reshape(-1, logits.shape[-1])
    repeats = len(rows) // len(labels)
    return metrics.phi(rows, np.repeat(labels, repeats)).reshape(logits.shape[:-1])


def _checked(name: str, array: NDArray[np.generic], shape: tuple[int | None, ...]) -> None:
    fits = array.ndim == len(shape) and all(
        size >= 1 and size == (wanted or size) for size, wanted in zip(array.shape, shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"{name}: expected shape ({', '.join('any' if size is None else str(size) for size in shape)}), "
            f"got {array.shape}"
        )
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name}: expected real numbers, got {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")


def _membership(values: Values, n: int, shadows: int) -> NDArray[np.bool_]:
    array = as_array(values)
    if array.shape != (n, shadows):
        raise ValueError(f"inside: expected shape ({n}, {shadows}), a sample a row, got {array.shape}")
    if array.dtype != np.bool_ and not (array.dtype.kind in "iuf" and np.isin(array, (0, 1)).all()):
        raise TypeError(f"inside: expected True or False, got {array.dtype}")
    return cast(NDArray[np.bool_], array.astype(np.bool_))
