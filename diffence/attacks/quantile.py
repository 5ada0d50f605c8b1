"""Quantile regression: is the target surer of this image than it would be of an image like it that it never saw?"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar, Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from diffence import classifiers, metrics
from diffence.attacks.base import Attack, Family, Outputs, as_array
from diffence.attacks.target import Images, Target
from diffence.progress import tqdm
from diffence.training import one_torch_thread

__all__ = ["ImageOutputs", "QuantileRegression"]

Floats = NDArray[np.float64]
Regression = Literal["gaussian", "pinball"]

LEVELS = np.logspace(-4, 0, 41)  # shares of non-members above the quantile
BATCH = 64
HIDDEN = 128


@dataclass(frozen=True, eq=False, init=False)
class ImageOutputs(Outputs):
    """Outputs, and the images (n, C, H, W), uint8 or float, or the feature vectors (n, features), that they answer."""

    images: NDArray[np.generic]

    def __init__(
        self,
        logits: ArrayLike | torch.Tensor,
        labels: ArrayLike | torch.Tensor | None,
        images: ArrayLike | torch.Tensor,
    ) -> None:
        super().__init__(logits, labels)
        held = images if isinstance(images, np.ndarray) else as_array(images)
        if held.ndim not in (2, 4) or len(held) != len(self) or 0 in held.shape:
            raise ValueError(f"images: expected ({len(self)}, C, H, W) or ({len(self)}, features), got {held.shape}")
        if held.dtype.kind not in "iuf":
            raise TypeError(f"images: expected real numbers, got {held.dtype}")
        if held.dtype.kind == "f" and not np.isfinite(held).all():
            raise ValueError("images: expected finite numbers, got NaN or infinity")
        object.__setattr__(self, "images", held)

    @classmethod
    def from_probabilities(
        cls,
        probabilities: ArrayLike | torch.Tensor,
        labels: ArrayLike | torch.Tensor | None = None,
        images: ArrayLike | torch.Tensor | None = None,
    ) -> ImageOutputs:
        """As of `Outputs`; images are needed."""
        if images is None:
            raise ValueError("images: expected the images or features, got None")
        plain = Outputs.from_probabilities(probabilities, labels)
        return cls(plain.logits, plain.labels, images)


@dataclass(eq=False)
class QuantileRegression(Attack):
    """How far t = z_y - max of the other logits lies above what a second network expects of a non-member. With labels.

    Bertran et al., NeurIPS 2023; needs no shadow models. The network sees the image (or features), not the target, and
    is trained on known non-members alone; those must not be among the evaluated ones. regression: "gaussian", it
    predicts a mean and a deviation (loss log s + ((t - mu) / s)^2 / 2), score = (t - mu) / s; "pinball", it predicts
    the quantiles which a share of 1e-4 .. 1 of non-members exceeds, 41 of them evenly spaced in the logarithm;
    score = -log10 of the share at t, read between them, and beyond the last ones in units of their spread.

    A fifth of the known non-members is held out: the epoch with the smallest loss on it is kept. The threshold is
    calibrated on it and on the known members, which nothing else is learned from; with `alpha`, which needs no members,
    it is the score that a share alpha of the held-out non-members exceeds.
    network: of diffence.classifiers, for images; features get two hidden layers of 128. Adam, 1e-3, weight decay 1e-4,
    batches of 64. The same seed, torch and number of threads give the same network; global seeds play no part.
    epoch_: the epoch kept, from 1.
    """

    seed: int
    regression: Regression = "gaussian"
    network: str = "convnet"
    epochs: int = 30
    alpha: float | None = None
    progress: bool = False

    requires: ClassVar[type[Outputs]] = ImageOutputs
    family: ClassVar[Family] = "trained"

    def __post_init__(self) -> None:
        if self.regression not in get_args(Regression):
            raise ValueError(f"regression: expected one of {get_args(Regression)}, got {self.regression!r}")
        if self.network not in classifiers.NETWORKS:
            raise ValueError(f"network: expected one of {', '.join(classifiers.NETWORKS)}, got {self.network!r}")
        if self.epochs < 1:
            raise ValueError(f"epochs: expected at least 1, got {self.epochs}")
        if self.alpha is not None and not 0 < self.alpha < 1:
            raise ValueError(f"alpha: expected a share between 0 and 1, got {self.alpha}")

    @property
    def name(self) -> str:
        parts = ["quantile regression"]
        if self.regression != "gaussian":
            parts.append(self.regression)
        if self.alpha is not None:
            parts.append(f"alpha {self.alpha:g}")
        return ", ".join(parts)

    @property
    def needs_labels(self) -> bool:
        return True

    @property
    def query(self) -> Hashable:
        return "answers and images"

    def collect(self, target: Target, images: Images, labels: ArrayLike | None = None) -> ImageOutputs:
        """One answer to each image as it is, and the image."""
        return ImageOutputs(target(images), labels, images)

    def _fit(self, members: Outputs, nonmembers: Outputs, targets: tuple[Outputs, Outputs] | None) -> None:
        if len(nonmembers) < 10:
            raise ValueError(f"nonmembers: {self.name} learns from them, expected 10 or more, got {len(nonmembers)}")
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(nonmembers), generator=generator).numpy()
        fifth = len(order) // 5
        held, rest = (cast(ImageOutputs, nonmembers.take(part)) for part in (order[:fifth], order[fifth:]))
        # A caller's no_grad or inference_mode would forbid the training.
        with torch.inference_mode(False), torch.enable_grad(), one_torch_thread():
            model = _Model(rest, self.network, self.regression, self.seed)
            epoch = self._train(model, rest, held, generator)
        self.model_, self.epoch_ = model, epoch
        theirs = model.scores(held)
        if self.alpha is None:
            self.threshold_ = metrics.calibrate_threshold(model.scores(cast(ImageOutputs, members)), theirs)
        else:
            self.threshold_ = float(np.nextafter(np.quantile(theirs, 1 - self.alpha, method="higher"), np.inf))

    def _train(self, model: _Model, rest: ImageOutputs, held: ImageOutputs, generator: torch.Generator) -> int:
        """Train `model` on `rest`; -> the epoch whose weights it keeps, the best on `held`."""
        optimizer = torch.optim.Adam(model.network.parameters(), lr=1e-3, weight_decay=1e-4)
        targets, judged = model.targets(rest), model.targets(held)
        best, kept, weights = math.inf, 0, copy.deepcopy(model.network.state_dict())
        with tqdm(range(1, self.epochs + 1), "quantile attack", disable=not self.progress, leave=False) as bar:
            for epoch in bar:
                model.network.train()
                for batch in _batches(torch.randperm(len(rest), generator=generator)):
                    loss = model.loss(model.network(model.inputs(rest, batch.numpy())), targets[batch])
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                value = float(model.loss(model.answers(held), judged))
                bar.set_postfix(loss=f"{value:.3f}", refresh=False)
                if value < best:
                    best, kept, weights = value, epoch, copy.deepcopy(model.network.state_dict())
        if kept == 0:
            raise FloatingPointError(f"{self.name}: the loss was never a number")
        model.network.load_state_dict(weights)
        model.network.eval()
        return kept

    def _score(self, outputs: Outputs) -> Floats:
        if not hasattr(self, "model_"):
            raise RuntimeError(f"{self.name}: call fit(members, nonmembers) before score")
        return self.model_.scores(cast(ImageOutputs, outputs))


class _Model:
    """The second network, with the scales of its inputs and of its targets, taken from the samples it is trained on."""

    def __init__(self, samples: ImageOutputs, network: str, regression: Regression, seed: int) -> None:
        images = samples.images
        self.shape, self.regression = images.shape[1:], regression
        axes = (0, 2, 3) if images.ndim == 4 else 0
        mean, std = images.mean(axis=axes, dtype=np.float64), images.std(axis=axes, dtype=np.float64)
        shape = (1, -1) + (1,) * (images.ndim - 2)
        self.mean = torch.tensor(mean, dtype=torch.float32).reshape(shape)
        self.std = torch.tensor(np.where(std > 0, std, 1.0), dtype=torch.float32).reshape(shape)
        t = _lead(samples)
        self.centre, self.scale = float(t.mean()), float(t.std()) or 1.0
        outputs = 2 if regression == "gaussian" else len(LEVELS)
        if images.ndim == 4:
            channels, height, width = self.shape
            self.network: nn.Module = classifiers.build(
                network, classes=outputs, channels=channels, image=(height, width), seed=seed
            )
        else:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                widths = (self.shape[0], HIDDEN, HIDDEN)
                layers: list[nn.Module] = []
                for before, after in itertools.pairwise(widths):
                    layers += [nn.Linear(before, after, dtype=torch.float32), nn.ReLU()]
                self.network = nn.Sequential(*layers, nn.Linear(HIDDEN, outputs, dtype=torch.float32))
        self.network.to(torch.float32)
        self.above = torch.tensor(LEVELS, dtype=torch.float32)

    def inputs(self, samples: ImageOutputs, index: NDArray[np.int64] | slice) -> Tensor:
        return (torch.from_numpy(samples.images[index].astype(np.float32)) - self.mean) / self.std

    def targets(self, samples: ImageOutputs) -> Tensor:
        return torch.from_numpy((_lead(samples) - self.centre) / self.scale).float()

    def loss(self, answers: Tensor, targets: Tensor) -> Tensor:
        if self.regression == "gaussian":
            log_s = _bounded(answers[:, 1])
            return (log_s + ((targets - answers[:, 0]) / log_s.exp()) ** 2 / 2).mean()
        off = targets[:, None] - answers
        return torch.maximum((1 - self.above) * off, -self.above * off).mean()

    @torch.no_grad()
    def answers(self, samples: ImageOutputs) -> Tensor:
        self.network.eval()
        parts = [self.network(self.inputs(samples, slice(at, at + 512))) for at in range(0, len(samples), 512)]
        return torch.cat(parts)

    def scores(self, samples: ImageOutputs) -> Floats:
        if samples.images.shape[1:] != self.shape:
            raise ValueError(
                f"outputs: expected images of shape {self.shape} as in fit, got {samples.images.shape[1:]}"
            )
        answers = self.answers(samples).double()
        t = (_lead(samples) - self.centre) / self.scale
        if self.regression == "gaussian":
            return np.asarray((t - answers[:, 0].numpy()) / _bounded(answers[:, 1]).exp().numpy())
        return _levels(t, np.sort(answers.numpy(), axis=1))


def _lead(outputs: Outputs) -> Floats:
    """z_y - max of the other logits, (n,)."""
    others = outputs.logits.copy()
    np.put_along_axis(others, outputs.true_labels[:, None], -np.inf, axis=1)
    return np.asarray(outputs.of_label(outputs.logits) - others.max(axis=1))


def _bounded(log_s: Tensor) -> Tensor:
    """Smoothly within +-4 of 0, in units of the targets' scale: a deviation of nearly 0 would be all of the loss."""
    return 4 * torch.tanh(log_s / 4)


def _levels(t: Floats, quantiles: Floats) -> Floats:
    """-log10 of the share of non-members above t, from each sample's ascending quantiles (n, levels)."""
    marks = -np.log10(LEVELS[::-1])
    n, last = len(t), len(LEVELS) - 1
    upper = (quantiles <= t[:, None]).sum(axis=1).clip(1, last)
    rows = np.arange(n)
    low, high = quantiles[rows, upper - 1], quantiles[rows, upper]
    part = np.divide(t - low, high - low, out=np.zeros(n), where=high > low).clip(0, 1)
    between = marks[upper - 1] + part * (marks[upper] - marks[upper - 1])
    spread = np.maximum(quantiles[:, -1] - quantiles[:, 0], 1e-12)
    beyond = np.maximum(t - quantiles[:, -1], 0) - np.maximum(quantiles[:, 0] - t, 0)
    return np.asarray(between + beyond / spread)


def _batches(order: Tensor) -> list[Tensor]:
    """Of 64, and a last one that is never a single sample, of which batch norm knows no variance."""
    batches = list(torch.split(order, BATCH))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches
