"""RMIA: how many samples of the population does this one beat, after both are measured against shadow models?"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, Self, cast, get_args

import numpy as np
from numpy.typing import NDArray

from diffence import metrics
from diffence.attacks.base import FLOOR, Outputs
from diffence.attacks.shadow import ShadowAttack, ShadowOutputs, ShadowSource, phi_of_label
from diffence.attacks.sides import Side, summarise

__all__ = ["RMIA"]

Floats = NDArray[np.float64]
Mode = Literal["online", "offline"]
Votes = Literal["majority", "mean"]

GRID = tuple(step / 10 for step in range(11))  # where `a` is looked for


@dataclass(eq=False)
class RMIA(ShadowAttack):
    """score = share of population samples z with ratio(x) / ratio(z) > gamma; ratio(x) = p_y(x) / p(x). Needs labels.

    Zarifzadeh, Liu and Shokri, ICML 2024. p_y is the target's probability of the true label, p(x) its mean over models
    that were and were not trained on x. The population is the known non-members that `fit` is given; a score is one of
    len(population) + 1 values, so low false-positive rates need a large one.

    mode: "online", p(x) = (mean over shadows trained on x + mean over the others) / 2; "offline", without the former:
        p(x) = ((1 + a) mean_out(x) + 1 - a) / 2.
    gamma: how much larger a ratio must be. ties: count ratios that are equal, too (>=). It matters where p_y is
        rounded to 1 and many ratios are the same: > then calls nobody more likely than the others.
    a: offline only; "tuned" takes the best of 0, 0.1 .. 1 on the known samples with one shadow in the target's place;
        shadows that were trained on exactly what it was not are left out then. a_: the one that is used.
    temperature: logits are divided by it. margin: taken off the true logit. terms: exp is replaced by the first terms
        of its series, x^0 .. x^(terms - 1). Temperature and terms need the shadows' logits. Of four terms the series is
        negative below -1.6, where exp is nearly 0: it is 0 there. (The published code lets it be negative, and a sure
        network's p_y with it. With an odd number of terms it grows again for very negative logits: take an even one.)
    trim: this share of the shadows is left out of the means at each end; online, of all shadows together.
    votes: with several queries, x beats z where more than half of the queries do ("majority"), or the mean share
        counts; z's ratio is that of z as it is.
    Samples without shadows on a side take the mean over the known samples, with a warning.
    """

    mode: Mode = "online"
    gamma: float = 1.0
    a: float | Literal["tuned"] = "tuned"
    temperature: float = 1.0
    margin: float = 0.0
    terms: int | None = None
    trim: float = 0.0
    ties: bool = False
    votes: Votes = "majority"
    shadows: ShadowSource | None = field(default=None, repr=False)

    a_: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name, value, kinds in (("mode", self.mode, get_args(Mode)), ("votes", self.votes, get_args(Votes))):
            if value not in kinds:
                raise ValueError(f"{name}: expected one of {kinds}, got {value!r}")
        for name, number in (("gamma", self.gamma), ("temperature", self.temperature)):
            if not 0 < number < math.inf:
                raise ValueError(f"{name}: expected a positive number, got {number}")
        if self.a != "tuned" and not (isinstance(self.a, int | float) and 0 <= self.a <= 1):
            raise ValueError(f"a: expected a number from 0 to 1 or 'tuned', got {self.a!r}")
        if not math.isfinite(self.margin):
            raise ValueError(f"margin: expected a finite number, got {self.margin}")
        if not 0 <= self.trim < 0.5:
            raise ValueError(f"trim: expected a share from 0 to below 1/2, got {self.trim}")
        if self.terms is not None and self.terms < 2:
            raise ValueError(f"terms: expected at least 2, or None, got {self.terms}")

    @classmethod
    def published(
        cls, dataset: Literal["cifar10", "cifar100"], mode: Mode = "online", *, shadows: ShadowSource | None = None
    ) -> Self:
        """The settings of the 2024 code for a data set; its 18 queries are `diffence.shadows.shifted`."""
        if dataset not in ("cifar10", "cifar100"):
            raise ValueError(f"dataset: expected 'cifar10' or 'cifar100', got {dataset!r}")
        a, temperature = {"cifar10": (0.33, 2.0), "cifar100": (0.6, 1.0)}[dataset]
        return cls(mode=mode, gamma=2.0, a=a, temperature=temperature, margin=0.6, terms=4, trim=0.2, shadows=shadows)

    @classmethod
    def privacy_meter(cls, mode: Mode = "offline", *, shadows: ShadowSource | None = None) -> Self:
        """The settings of the current Privacy Meter: gamma 1, plain softmax, `a` tuned."""
        return cls(mode=mode, shadows=shadows)

    @property
    def name(self) -> str:
        parts = [f"rmia {self.mode}"]
        if self.gamma != 1:
            parts.append(f"gamma {self.gamma:g}")
        if self.mode == "offline" and self.a != "tuned":
            parts.append(f"a {self.a:.3g}")
        for label, value, plain in (
            ("temperature", self.temperature, 1),
            ("margin", self.margin, 0),
            ("trim", self.trim, 0),
        ):
            if value != plain:
                parts.append(f"{label} {value:g}")
        if self.terms is not None:
            parts.append(f"{self.terms} terms")
        if self.ties:
            parts.append("ties")
        if self.votes != "majority":
            parts.append("mean votes")
        return ", ".join(parts)

    def _fit(self, members: Outputs, nonmembers: Outputs, targets: tuple[Outputs, Outputs] | None) -> None:
        groups = self._groups(members, nonmembers)
        own, theirs = (np.concatenate(parts) for parts in zip(*map(self._confidences, groups), strict=True))
        inside = np.concatenate([group.inside for group in groups])
        self._common = {}
        for which, chosen in self._chosen(inside).items():
            self._require(chosen, which)
            self._common[which] = self._means(theirs, chosen)[0]
        self.a_ = self._tune(theirs, inside) if self.a == "tuned" and self.mode == "offline" else _number(self.a)
        population = self._ratios(own, theirs, inside, warn=False)[len(groups[0]) :, 0]
        self._population = np.sort(population)
        super()._fit(members, nonmembers, targets)

    def _score(self, outputs: Outputs) -> Floats:
        if not hasattr(self, "_population"):
            raise RuntimeError(f"{self.name}: call fit(members, nonmembers) before score")
        seen = cast(ShadowOutputs, outputs)
        return self._shares(self._ratios(*self._confidences(seen), seen.inside), self._population)

    def _shares(self, ratios: Floats, population: Floats) -> Floats:
        """log ratios (n, queries) and the population's, sorted -> (n,) shares of it that are beaten."""
        bars = ratios - math.log(self.gamma)
        if self.votes == "majority":
            needed = bars.shape[1] // 2 + 1  # The needed-th largest beats whatever this many queries beat.
            bars = np.sort(bars, axis=1)[:, -needed, None]
        beaten = np.searchsorted(population, bars, side="right" if self.ties else "left")
        return np.asarray(beaten.mean(axis=1) / len(population))

    def _confidences(self, outputs: ShadowOutputs) -> tuple[Floats, Floats]:
        """p_y of the target (n, queries) and of the shadows (n, shadows, queries)."""
        if self.temperature == 1 and self.terms is None:
            return _sigmoid(outputs.signals - self.margin), _sigmoid(outputs.shadow_signals - self.margin)
        if outputs.query_logits is None or outputs.shadow_logits is None:
            raise ValueError(f"outputs: {self.name} needs all logits of the shadows, not their signals alone")
        labels = outputs.true_labels
        return self._softened(outputs.query_logits, labels), self._softened(outputs.shadow_logits, labels)

    def _softened(self, logits: NDArray[np.floating], labels: NDArray[np.int64]) -> Floats:
        """p_y of logits (n, ..., classes), with temperature, margin and series."""
        scaled = logits.astype(np.float64) / self.temperature
        if self.terms is None:
            return _sigmoid(phi_of_label(scaled, labels) - self.margin)
        index = labels.reshape(-1, *[1] * (scaled.ndim - 1))
        right = np.take_along_axis(scaled, index, axis=-1)[..., 0]
        every = _series(scaled, self.terms)
        np.put_along_axis(every, index, 0.0, axis=-1)
        top = _series(right - self.margin, self.terms)
        total = top + every.sum(axis=-1)
        return np.asarray(np.divide(top, total, out=np.zeros_like(top), where=total > 0))

    def _chosen(self, inside: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
        """The shadows whose means are taken, by what is said of them."""
        if self.mode == "offline":
            return {"not trained on": ~inside}
        if self.trim:
            return {"asked about": np.ones_like(inside)}
        return {"not trained on": ~inside, "trained on": inside}

    def _means(self, theirs: Floats, chosen: NDArray[np.bool_]) -> tuple[Floats, Side]:
        """The mean over all samples (queries,), and the means of each."""
        side = summarise(theirs, chosen, "mean")
        if self.trim:
            side = Side(side.count, _trimmed(theirs, chosen, self.trim), side.mean, side.variance)
        return side.centre[~side.empty].mean(axis=0), side

    def _ratios(self, own: Floats, theirs: Floats, inside: NDArray[np.bool_], *, warn: bool = True) -> Floats:
        """log ratio of each sample and query, (n, queries)."""
        means = []
        for which, chosen in self._chosen(inside).items():
            side = self._means(theirs, chosen)[1] if chosen.any() else summarise(theirs, chosen, "mean")
            if warn:
                self._warn_of_empty(side, which)
            means.append(np.where(side.empty[:, None], self._common[which], side.centre))
        return self._log_ratios(own, np.mean(means, axis=0), self.a_)

    def _log_ratios(self, own: Floats, mean: Floats, a: float) -> Floats:
        if self.mode == "offline":
            mean = ((1 + a) * mean + (1 - a)) / 2
        return np.asarray(np.log(np.maximum(own, FLOOR)) - np.log(np.maximum(mean, FLOOR)))

    def _tune(self, theirs: Floats, inside: NDArray[np.bool_]) -> float:
        """The best `a` for one shadow as the target, among the known samples; the first of equals."""
        share = inside.mean(axis=0)
        able = np.flatnonzero((share > 0) & (share < 1))
        if len(able) == 0 or inside.shape[1] < 2:
            raise ValueError(
                "a: cannot be tuned, which takes two shadow models or more, and one that was trained on some of the "
                "known samples; give a number, such as 0.3"
            )
        pretended = int(able[0])
        truth = inside[:, pretended]
        # A model of the other half is OUT for just those samples that the pretended target was trained on.
        others = np.flatnonzero((inside == ~truth[:, None]).mean(axis=0) < 1)
        others = others[others != pretended]
        if len(others) == 0:
            raise ValueError("a: cannot be tuned with two shadow models of complementary halves; give a number")
        side = self._means(theirs[:, others], ~inside[:, others])[1]
        mean = np.where(side.empty[:, None], self._common["not trained on"], side.centre)
        found = []
        for a in GRID:
            ratios = self._log_ratios(theirs[:, pretended], mean, a)
            scores = self._shares(ratios, np.sort(ratios[~truth, 0]))
            found.append(metrics.auc(scores[truth], scores[~truth]))
        return GRID[int(np.argmax(found))]


def _number(a: float | Literal["tuned"]) -> float:
    return 0.0 if a == "tuned" else float(a)  # online, it plays no part


def _sigmoid(odds: Floats) -> Floats:
    return np.asarray(np.exp(-np.logaddexp(0.0, -odds)))


def _series(x: Floats, terms: int) -> Floats:
    """The first `terms` terms of exp(x), 0 where they come out negative."""
    total, term = np.ones_like(x), np.ones_like(x)
    for power in range(1, terms):
        term = term * x / power
        total = total + term
    return np.maximum(total, 0.0)


def _trimmed(values: Floats, chosen: NDArray[np.bool_], trim: float) -> Floats:
    """Mean of the chosen values (n, shadows, queries) without this share, rounded down, at each end; (n, queries)."""
    count = chosen.sum(axis=1)
    cut = (trim * count).astype(np.int64)
    ranked = np.sort(np.where(chosen[:, :, None], values, np.inf), axis=1)
    rank = np.arange(values.shape[1])
    kept = (rank >= cut[:, None]) & (rank < (count - cut)[:, None])
    total = np.where(kept[:, :, None], ranked, 0.0).sum(axis=1)
    return np.asarray(total / np.maximum(kept.sum(axis=1), 1)[:, None])
