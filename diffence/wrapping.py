"""What the fence demands of a classifier, checked once with a probe and before every answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

__all__ = ["Classify", "NormStat"]

NormStat = float | Sequence[float] | torch.Tensor | None

_BATCHES = {"cpu": 16}
_BATCH = 256  # on a GPU, which small batches leave idle


class Classify:
    """A classifier as the fence asks it: images in [0, 1] in, logits out, always in batches of one size.

    The last batch is filled up with black images. A network may round differently for another batch size (a single
    image takes matrix-vector kernels), so this is what makes an answer independent of the company it came in.

    classifier: a module in evaluation mode, (B, C, H, W) -> logits (B, classes), any device, any floating dtype.
    mean, std: per channel, in units of [0, 1] images, as the classifier was trained with; None to pass [0, 1] through.
    batch: None for 16, and 256 on a GPU.
    Raises TypeError or ValueError that says what to do when the classifier or its normalisation does not fit.
    """

    def __init__(
        self, classifier: torch.nn.Module, shape: tuple[int, int, int], mean: NormStat, std: NormStat, batch: int | None
    ) -> None:
        if not isinstance(classifier, torch.nn.Module):
            raise TypeError(f"classifier: expected a torch.nn.Module, got {type(classifier).__name__}")
        if batch is not None and batch < 1:
            raise ValueError(f"classifier_batch: expected at least 1, got {batch}")
        self.classifier = classifier
        self.shape = shape
        self._batch = batch
        self.mean, self.std = _normalisation(mean, std, shape[0])
        self.check_mode()
        self.classes = self._probe()

    @property
    def batch(self) -> int:
        """Images that the classifier is asked about at a time, where it lies now."""
        return _BATCHES.get(self._place()[0].type, _BATCH) if self._batch is None else self._batch

    def settings(self) -> dict[str, Any]:
        """mean, std and classifier_batch, as the fence takes them."""
        mean, std = (None if value is None else value.flatten().tolist() for value in (self.mean, self.std))
        return {"mean": mean, "std": std, "classifier_batch": self._batch}

    def check_mode(self) -> None:
        """Raise ValueError when any part of the classifier is in training mode."""
        training = [name or "the classifier itself" for name, part in self.classifier.named_modules() if part.training]
        if training:
            raise ValueError(
                f"classifier: {training[0]} is in training mode, so batch norm and dropout would make its answers "
                "depend on the batch; call classifier.eval() first"
            )

    def _place(self) -> tuple[torch.device, torch.dtype]:
        for tensor in (*self.classifier.parameters(), *self.classifier.buffers()):
            if tensor.is_floating_point():
                return tensor.device, tensor.dtype
        return torch.device("cpu"), torch.float32

    def _probe(self) -> int:
        # A full batch: an exported program may take no other.
        ramp = torch.linspace(0, 1, self.batch * int(np.prod(self.shape))).reshape(self.batch, *self.shape)
        try:
            logits = self._ask(ramp)
        except (RuntimeError, ValueError, IndexError) as error:
            raise ValueError(f"classifier: failed on images of shape {self.shape}: {error}") from error
        if not isinstance(logits, torch.Tensor):
            raise ValueError(
                f"classifier: returned {type(logits).__name__}, expected one tensor of logits (B, classes); "
                "wrap it in a module that returns the logits only"
            )
        if logits.ndim != 2 or len(logits) != self.batch or logits.shape[1] < 2 or not logits.is_floating_point():
            raise ValueError(
                f"classifier: returned shape {tuple(logits.shape)} of {logits.dtype} for {self.batch} images, "
                f"expected floating point logits ({self.batch}, classes) with at least 2 classes"
            )
        values = logits.double()
        if not values.isfinite().all():
            raise ValueError("classifier: returned NaN or infinity for a plain grey ramp; check weights, mean and std")
        if (values >= 0).all() and (values.sum(1) - 1).abs().max() < 1e-3:
            raise ValueError(
                "classifier: the outputs are probabilities (not negative, rows sum to 1); the fence needs logits: "
                "leave the final softmax out, or return its logarithm"
            )
        return logits.shape[1]

    def _ask(self, images: torch.Tensor) -> torch.Tensor:
        device, dtype = self._place()
        images = images.to(device)
        if self.mean is not None and self.std is not None:
            images = (images - self.mean.to(device)) / self.std.to(device)
        with torch.no_grad():
            answer: torch.Tensor = self.classifier(images.to(dtype))
        return answer

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, classes) of images (B, C, H, W) in [0, 1], on the classifier's device and in its dtype."""
        return torch.cat(list(self.stream([images])))

    def stream(self, pieces: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """The same of the images of all pieces, one batch after the other: only the very last one is filled up."""
        rest = None
        for piece in pieces:
            images = piece if rest is None else torch.cat([rest, piece])
            full = len(images) - len(images) % self.batch
            for start in range(0, full, self.batch):
                yield self._ask(images[start : start + self.batch])
            rest = images[full:]
        if rest is not None and len(rest):
            missing = self.batch - len(rest)
            yield self._ask(torch.cat([rest, rest.new_zeros(missing, *rest.shape[1:])]))[: len(rest)]


def _normalisation(mean: NormStat, std: NormStat, channels: int) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """mean and std as (1, C, 1, 1) float32, or None and None."""
    if (mean is None) != (std is None):
        raise ValueError("mean, std: give both or neither")
    if mean is None or std is None:
        return None, None
    placed = []
    for name, given in (("mean", mean), ("std", std)):
        values = torch.as_tensor(given, dtype=torch.float32).reshape(-1).cpu()
        if len(values) not in (1, channels):
            raise ValueError(f"{name}: expected one value or {channels} (one a channel), got {len(values)}")
        if not values.isfinite().all() or (name == "std" and (values <= 0).any()):
            raise ValueError(f"{name}: expected finite{' positive' if name == 'std' else ''} values, got {given}")
        if values.abs().max() > 5:
            raise ValueError(f"{name}: expected units of [0, 1] images, got {given}; divide it by 255")
        placed.append(values.expand(channels).reshape(1, channels, 1, 1).clone())
    return placed[0], placed[1]
