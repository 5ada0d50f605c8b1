"""What passes through the fence: samples of a batch of images, the answer selected from them, and its explanation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from diffence import _core
from diffence.engine import Mode
from diffence.selection import FALLBACK, INSIDE, NEAREST, phi

__all__ = ["OUTCOMES", "Answer", "Explanation", "Samples", "average", "explanations"]

OUTCOMES = {INSIDE: "inside", NEAREST: "nearest", FALLBACK: "fallback"}


@dataclass(frozen=True)
class Samples:
    """What the classifier says of images and of their reconstructions, before any choice is made.

    original: logits (B, classes) of the images. draws: logits (B, n, classes) of the reconstructions, both on the
    classifier's device and in its dtype. phi, predicted: (B, n), of the draws; phi is NaN where a draw was not needed
    (early mode). labels: (B,), the classes to keep. phi_original: (B,).
    """

    original: torch.Tensor
    draws: torch.Tensor
    phi: NDArray[np.float64]
    predicted: NDArray[np.int32]
    labels: NDArray[np.int32]
    phi_original: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def used(self) -> NDArray[np.int64]:
        """(B,) draws that were computed for each image."""
        return np.asarray((~np.isnan(self.phi)).sum(1))

    @property
    def match(self) -> NDArray[np.bool_]:
        """(B, n) draws that were computed and have the label of their original."""
        return np.asarray((self.predicted == self.labels[:, None]) & ~np.isnan(self.phi))

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """The samples of several batches as one."""
        return cls(
            torch.cat([part.original for part in parts]),
            torch.cat([part.draws for part in parts]),
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("phi", "predicted", "labels", "phi_original")
            ),
        )


@dataclass(frozen=True)
class Answer:
    """What the fence shows, and how it came to it.

    logits (B, classes). draw (B,): the draw that answers, n for the original (mode "official" or fallback
    "original"), -1 when draws are averaged. outcome (B,): selection.INSIDE, NEAREST or FALLBACK; -1 when averaged.
    """

    logits: torch.Tensor
    draw: NDArray[np.int32]
    outcome: NDArray[np.int8]


@dataclass(frozen=True)
class Explanation:
    """How one image was answered. phi_draws and predicted have n entries; NaN and -1 where a draw was not computed."""

    label: int  # the classifier's class of the original
    answer: int  # the class of what is shown: `label`, except under averaging
    outcome: str  # "inside", "nearest", "fallback" or "averaged"
    draw: int  # see Answer.draw
    draws_used: int
    agreeing: int  # computed draws that have the label
    phi: float  # of what is shown
    phi_original: float  # of the unprotected logits; never show this to a client
    phi_draws: NDArray[np.float64]
    predicted: NDArray[np.int32]


def average(draws: torch.Tensor, kind: Literal["logits", "probabilities"]) -> torch.Tensor:
    """Mean over the draws of (B, n, classes): of the logits, or of the probabilities (returned as logarithms)."""
    mean = _core.average(draws.to("cpu", torch.float64).numpy(), kind)
    return torch.from_numpy(mean).to(draws.device, draws.dtype)


def explanations(samples: Samples, answer: Answer, mode: Mode) -> list[Explanation]:
    shown, classes = phi(answer.logits, mode)
    return [
        Explanation(
            label=int(samples.labels[i]),
            answer=int(classes[i]),
            outcome=OUTCOMES.get(int(answer.outcome[i]), "averaged"),
            draw=int(answer.draw[i]),
            draws_used=int(samples.used[i]),
            agreeing=int(samples.match[i].sum()),
            phi=float(shown[i]),
            phi_original=float(samples.phi_original[i]),
            phi_draws=samples.phi[i],
            predicted=samples.predicted[i],
        )
        for i in range(len(samples))
    ]
