"""Images and normalisation as the classifiers take them, and a network's answers on many images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from diffence.images import as_images

__all__ = ["Images", "Inputs", "Labels", "Values", "accuracy", "channel_values", "class_labels", "device_of", "predict"]

Values = float | Sequence[float]
Images = Tensor | NDArray[Any]
Labels = ArrayLike | Tensor


def channel_values(values: Values, channels: int, name: str) -> list[float]:
    """`values` as one float a channel: finite, positive where it is the deviation, in units of [0, 1] images."""
    array = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if array.shape not in ((1,), (channels,)):
        raise ValueError(f"{name}: expected one value or {channels}, one a channel, got shape {array.shape}")
    if not np.isfinite(array).all() or (name == "std" and array.min() <= 0):
        raise ValueError(f"{name}: expected finite{' positive' if name == 'std' else ''} values, got {values}")
    if np.abs(array).max() > 5:
        raise ValueError(f"{name}: expected units of [0, 1] images, got {values}; divide by 255")
    return [float(value) for value in np.broadcast_to(array, channels)]


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter lies."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


class Inputs:
    """Images on the model's device, normalised only when a batch is taken: uint8 stays uint8 until then.

    images: uint8 or floating point in [0, 1], (n, C, H, W). layout: the memory format of the batches.
    """

    def __init__(
        self,
        images: Images,
        mean: Values,
        std: Values,
        device: torch.device,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> None:
        source = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
        if source.dtype == np.uint8 and source.ndim == 4:
            as_images(source[:1])  # The shape is all that can be wrong; float32 of all images would be large.
        else:
            source = as_images(source)
        channels = source.shape[1]
        self.device, self._layout = device, layout
        self._source = torch.from_numpy(np.ascontiguousarray(source)).to(device)
        self._mean, self._std = (
            torch.tensor(channel_values(values, channels, name), device=device).reshape(1, channels, 1, 1)
            for values, name in ((mean, "mean"), (std, "std"))
        )

    def __len__(self) -> int:
        return len(self._source)

    def batch(self, indices: Tensor | slice) -> Tensor:
        """float32 (B, C, H, W): (image - mean) / std."""
        images = self._source[indices]
        if images.dtype == torch.uint8:
            images = images.to(torch.float32) / 255
        return ((images - self._mean) / self._std).contiguous(memory_format=self._layout)

    def digest(self, targets: Tensor) -> str:
        """SHA-256 of the images, their normalisation and their `targets`."""
        digest = hashlib.sha256()
        for tensor in (self._source, self._mean, self._std, targets):
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
            digest.update(tensor.cpu().numpy().data)
        return digest.hexdigest()


def class_labels(labels: Labels, n: int, classes: int) -> Tensor:
    """`labels` as int64 (n,) in 0..classes-1 on the CPU, or an error that says what is wrong with them."""
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.dtype.kind not in "iu":
        raise TypeError(f"labels: expected integer class indices, got dtype {array.dtype}")
    if array.shape != (n,):
        raise ValueError(f"labels: expected shape ({n},), one an image, got {array.shape}")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= classes:
        raise ValueError(f"labels: expected values in 0..{classes - 1}, the network's classes, got {low}..{high}")
    return torch.from_numpy(array.astype(np.int64))


def predict(model: nn.Module, images: Images, *, mean: Values, std: Values, batch: int = 256) -> Tensor:
    """Logits float32 (n, classes) on the CPU of `images` (n, C, H, W), uint8 or floating point in [0, 1].

    The model answers in evaluation mode without gradients, and is left in the mode in which it came.
    """
    if batch < 1:
        raise ValueError(f"batch: expected at least 1, got {batch}")
    inputs = Inputs(images, mean, std, device_of(model))
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            parts = (inputs.batch(slice(start, start + batch)) for start in range(0, len(inputs), batch))
            return torch.cat([model(part).float().cpu() for part in parts])
    finally:
        model.train(was_training)


def accuracy(
    model: nn.Module,
    images: Images,
    labels: Labels,
    *,
    mean: Values,
    std: Values,
    batch: int = 256,
) -> float:
    """The share of `images` whose largest logit is at their label; images and modes as in `predict`."""
    logits = predict(model, images, mean=mean, std=std, batch=batch)
    return float((logits.argmax(1) == class_labels(labels, *logits.shape)).double().mean())
