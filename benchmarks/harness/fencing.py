"""Reconstruction and fencing written directly in torch: what the peers run, and in float64 what all are checked with.

One draw of `paper` is one evaluation of the network: noise to step T (Eq. 3 of the paper), predict, back to the image.
`release` does what the authors' code does: other noising, a first step from T to T that changes nothing and costs an
evaluation, a last one from T to index 0, and the original as one more candidate.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["MEAN", "STD", "fence", "reconstruct"]

Predict = Callable[[Tensor, Tensor], Tensor]

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)  # of CIFAR-10


def reconstruct(predict: Predict, alpha_bar: Tensor, image: Tensor, noise: Tensor, T: int, kind: str) -> Tensor:
    """Reconstructions (n, C, H, W) in [0, 1] of one image (C, H, W) in [0, 1] with noise (n, C, H, W).

    alpha_bar: float64 (steps,). kind: "paper" or "release".
    """
    start = alpha_bar[T - 1].item()
    x = 2 * image - 1
    count = len(noise)

    def step(x: Tensor, current: int, target: float) -> Tensor:
        eps = predict(x, torch.full((count,), current))
        level = alpha_bar[current].item()
        guess: Tensor = (x - (1 - level) ** 0.5 * eps) / level**0.5
        moved: Tensor = guess * target**0.5 + (1 - target) ** 0.5 * eps
        return moved

    if kind == "paper":
        x = step(start**0.5 * x + (1 - start) ** 0.5 * noise, T - 1, 1.0)
    else:
        x = x / start**0.5 + (1 / start - 1) ** 0.5 * noise
        x = step(x, T, alpha_bar[T].item())
        x = step(x, T, alpha_bar[0].item())
    return ((x + 1) / 2).clamp(0, 1)


def fence(
    predict: Predict,
    classify: Callable[[Tensor], Tensor],
    alpha_bar: Tensor,
    images: Tensor,
    n: int,
    T: int,
    kind: str,
) -> Tensor:
    """Logits (B, classes) of images (B, C, H, W), n draws each, of which the first that keeps the label answers."""
    answers = []
    for image in images:
        original = classify(image[None])
        draws = reconstruct(predict, alpha_bar, image, torch.randn(n, *image.shape), T, kind)
        logits = classify(draws)
        if kind == "release":
            logits = torch.cat([logits, original])
        agrees = logits.argmax(1) == original.argmax(1)
        answers.append(logits[int(agrees.int().argmax())])
    return torch.stack(answers)
