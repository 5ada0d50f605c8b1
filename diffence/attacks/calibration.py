"""Difficulty calibration: is the target surer of the sample than models that never saw it?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from diffence.attacks.base import Outputs
from diffence.attacks.shadow import ShadowAttack, ShadowOutputs, ShadowSource
from diffence.attacks.sides import Centre, summarise

__all__ = ["DifficultyCalibration"]

Sides = Literal["out", "in", "both"]


@dataclass(eq=False)
class DifficultyCalibration(ShadowAttack):
    """score = phi_y - the centre of the shadows' phi_y, averaged over the queries. Needs labels.

    Watson et al., ICLR 2022, with phi_y for the loss: LiRA without a variance, for when two or three shadows are all
    there is. sides: the shadows that were not trained on the sample ("out", the paper's), those that were ("in"), or
    the mean of both centres ("both"). centre: "mean" or "median". A sample without shadows on a side takes the mean
    over the known samples, with a warning.
    """

    sides: Sides = "out"
    centre: Centre = "mean"
    shadows: ShadowSource | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name, value, kinds in (("sides", self.sides, get_args(Sides)), ("centre", self.centre, get_args(Centre))):
            if value not in kinds:
                raise ValueError(f"{name}: expected one of {kinds}, got {value!r}")

    @property
    def name(self) -> str:
        parts = ["difficulty calibration"]
        if self.sides != "out":
            parts.append(self.sides)
        if self.centre != "mean":
            parts.append(self.centre)
        return ", ".join(parts)

    def _fit(self, members: Outputs, nonmembers: Outputs, targets: tuple[Outputs, Outputs] | None) -> None:
        groups = self._groups(members, nonmembers)
        signals = np.concatenate([own.shadow_signals for own in groups])
        inside = np.concatenate([own.inside for own in groups])
        self._common: dict[str, NDArray[np.float64]] = {}
        for which, chosen in self._chosen(inside).items():
            self._require(chosen, which)
            self._common[which] = summarise(signals, chosen, self.centre).spread().centre
        super()._fit(members, nonmembers, targets)

    def _chosen(self, inside: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
        both = {"not trained on": ~inside, "trained on": inside}
        left_out = {"out": "trained on", "in": "not trained on"}.get(self.sides)
        return {which: chosen for which, chosen in both.items() if which != left_out}

    def _score(self, outputs: Outputs) -> NDArray[np.float64]:
        if not hasattr(self, "_common"):
            raise RuntimeError(f"{self.name}: call fit(members, nonmembers) before score")
        seen = cast(ShadowOutputs, outputs)
        centres = []
        for which, chosen in self._chosen(seen.inside).items():
            side = summarise(seen.shadow_signals, chosen, self.centre)
            self._warn_of_empty(side, which)
            centres.append(np.where(side.empty[:, None], self._common[which], side.centre))
        return np.asarray((seen.signals - np.mean(centres, axis=0)).mean(axis=1))
