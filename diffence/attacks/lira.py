"""LiRA: is the answer one of a model that saw the sample, or of one that did not?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Self, cast, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import special

from diffence.attacks.base import Outputs
from diffence.attacks.shadow import ShadowAttack, ShadowOutputs, ShadowSource
from diffence.attacks.sides import Centre, Side, Spread, summarise

__all__ = ["LiRA"]

Floats = NDArray[np.float64]
Mode = Literal["online", "offline", "global"]
Variance = Literal["automatic", "per-sample", "pooled", "raw"]

ENOUGH = 64  # shadow models, from which on a sample's own variance is better than a common one
LEAST = 1e-30  # added to every standard deviation


@dataclass(eq=False)
class LiRA(ShadowAttack):
    """Likelihood ratio of the target's phi_y under two normal distributions fitted to shadow models. Needs labels.

    Carlini et al., S&P 2022. mu_in, s_in: of the shadows that were trained on the sample; mu_out, s_out: of the others.
    mode: "online", score = log N(phi; mu_in, s_in) - log N(phi; mu_out, s_out); "offline", which needs no shadow that
        saw the sample, score = log Phi((phi - mu_out) / s_out), one-sided as the paper defines it; "global",
        score = phi itself, without shadows, as a baseline.
    two_sided: offline only, score = -log N(phi; mu_out, s_out), as the paper's code has it: it takes unusually unsure
        answers for members too.
    variance: "per-sample"; "pooled", the standard deviation of all residuals around each sample's own centre, for few
        shadows; "automatic", per sample from 64 shadows on, else pooled. centre: "median" or "mean".
    Log densities are averaged over the queries. Samples may have any number of shadows on each side: all are used. One
    that has none there takes the mean over the known samples, with a warning. What is common to all samples is learned
    by `fit` from the known ones, so a score does not depend on the company.

    Quirks of published code, for comparisons. variance="raw": the standard deviation of all signals, samples mixed
    (Carlini's fixed variance). in_for_out: online, the common deviation of IN is used for OUT too. cut_to_smallest:
    every sample is cut to the smallest number of shadows that any has. saturating: the signal is
    log(p_y + 1e-45) - log(1 - p_y + 1e-45), which ends at +-104. `LiRA.published` sets them as that code does.
    """

    mode: Mode = "online"
    variance: Variance = "automatic"
    centre: Centre = "median"
    two_sided: bool = False
    in_for_out: bool = False
    cut_to_smallest: bool = False
    saturating: bool = False
    shadows: ShadowSource | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name, value, kinds in (
            ("mode", self.mode, get_args(Mode)),
            ("variance", self.variance, get_args(Variance)),
            ("centre", self.centre, get_args(Centre)),
        ):
            if value not in kinds:
                raise ValueError(f"{name}: expected one of {kinds}, got {value!r}")
        if self.two_sided and self.mode != "offline":
            raise ValueError(f"two_sided: is for the offline mode, got mode={self.mode!r}")
        if self.in_for_out and (self.mode != "online" or self.variance not in ("pooled", "raw")):
            raise ValueError("in_for_out: is for mode='online' with variance='pooled' or 'raw'")

    @classmethod
    def published(cls, mode: Mode, *, fixed_variance: bool = False, shadows: ShadowSource | None = None) -> Self:
        """The paper's released code, quirks included (Carlini; HAMP and lira-pytorch follow it)."""
        return cls(
            mode=mode,
            variance="raw" if fixed_variance else "per-sample",
            two_sided=mode == "offline",
            in_for_out=fixed_variance and mode == "online",
            cut_to_smallest=True,
            saturating=True,
            shadows=shadows,
        )

    @property
    def name(self) -> str:
        if self.mode == "global":
            return "lira global, saturating" if self.saturating else "lira global"
        parts = [f"lira {self.mode}"]
        if self.two_sided:
            parts.append("two-sided")
        if self.variance != "automatic":
            parts.append(f"{self.variance} variance")
        if self.centre != "median":
            parts.append(self.centre)
        quirks = {"in for out": self.in_for_out, "cut": self.cut_to_smallest, "saturating": self.saturating}
        return ", ".join(parts + [quirk for quirk, used in quirks.items() if used])

    def _fit(self, members: Outputs, nonmembers: Outputs, targets: tuple[Outputs, Outputs] | None) -> None:
        groups = self._groups(members, nonmembers)
        if self.mode != "global":
            signals = self._signals(np.concatenate([own.shadow_signals for own in groups]))
            inside = np.concatenate([own.inside for own in groups])
            self._queries = signals.shape[2]
            self._per_sample = self.variance == "per-sample" or (
                self.variance == "automatic" and signals.shape[1] >= ENOUGH
            )
            outer = self._learn(signals, ~inside, "not trained on")
            inner = self._learn(signals, inside, "trained on") if self.mode == "online" else None
            if inner is not None and self.in_for_out:
                outer = Spread(inner.deviation, outer.centre, outer.own_deviation)
            self._outer, self._inner = outer, inner
        super()._fit(members, nonmembers, targets)

    def _learn(self, signals: Floats, chosen: NDArray[np.bool_], which: str) -> Spread:
        """What is common to all samples on one side."""
        self._require(chosen, which)
        side = self._summarise(signals, chosen)
        if side.empty.all():
            raise ValueError(f"inside: cut to the smallest count, no shadow model that was {which} a sample is left")
        spread = side.spread(raw=self.variance == "raw")
        if not self._per_sample and self.variance != "raw" and side.count.max() < 2:
            self._warn(f"one shadow model was {which} each sample, which shows no variance; 1 is taken")
            return Spread(np.ones_like(spread.deviation), spread.centre, spread.own_deviation)
        return spread

    def _summarise(self, signals: Floats, chosen: NDArray[np.bool_]) -> Side:
        return summarise(signals, chosen, self.centre, cut=self.cut_to_smallest)

    def _signals(self, signals: Floats) -> Floats:
        if not self.saturating:
            return signals
        return np.asarray(np.log(special.expit(signals) + 1e-45) - np.log(special.expit(-signals) + 1e-45))

    def _score(self, outputs: Outputs) -> Floats:
        seen = cast(ShadowOutputs, outputs)
        phi = self._signals(seen.signals)
        if self.mode == "global":
            return np.asarray(phi.mean(axis=1))
        if not hasattr(self, "_outer"):
            raise RuntimeError(f"{self.name}: call fit(members, nonmembers) before score")
        if phi.shape[1] != self._queries:
            raise ValueError(f"outputs: expected {self._queries} queries as in fit, got {phi.shape[1]}")
        theirs = self._signals(seen.shadow_signals)
        centre, deviation = self._normal(theirs, ~seen.inside, self._outer, "not trained on")
        if self._inner is None and not self.two_sided:
            return np.asarray(special.log_ndtr((phi - centre) / deviation).mean(axis=1))
        out = log_density(phi, centre, deviation)
        if self._inner is None:
            return -out
        return log_density(phi, *self._normal(theirs, seen.inside, self._inner, "trained on")) - out

    def _normal(self, signals: Floats, chosen: NDArray[np.bool_], spread: Spread, which: str) -> tuple[Floats, Floats]:
        """mu and s of each sample and query, (n, queries) both."""
        side = self._summarise(signals, chosen)
        empty = side.empty[:, None]
        self._warn_of_empty(side, which)
        centre = np.where(empty, spread.centre, side.centre)
        own = np.where(empty, spread.own_deviation, side.deviation) if self._per_sample else spread.deviation
        return centre, np.broadcast_to(own, centre.shape) + LEAST


def log_density(phi: Floats, centre: Floats, deviation: Floats) -> Floats:
    """log N(phi; centre, deviation) averaged over the queries; all (n, queries) -> (n,)."""
    z = (phi - centre) / deviation
    return np.asarray((-0.5 * z * z - np.log(deviation) - 0.5 * np.log(2 * np.pi)).mean(axis=1))
