"""What every reader of this package returns, and the protocol that every reader follows."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Dataset", "Reader", "as_labels", "as_uint8", "concatenate", "normalisation"]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Labelled images, all of one size.

    name: what the images are, for tables and reports.
    images: uint8 (n, C, H, W), 0..255.
    labels: int64 (n,), in 0..classes-1.
    classes: the number of classes; class_names: one name a class, or None.

    Raises TypeError for a wrong dtype and ValueError for anything else that does not fit.
    """

    name: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: int
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        for field, array, dtype in (("images", images, np.uint8), ("labels", labels, np.int64)):
            if not isinstance(array, np.ndarray) or array.dtype != dtype:
                found = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
                raise TypeError(f"{field}: expected a NumPy array of {np.dtype(dtype)}, got {found}")
        if images.ndim != 4 or 0 in images.shape:
            raise ValueError(f"images: expected shape (n, C, H, W) with every size at least 1, got {images.shape}")
        if labels.shape != (len(images),):
            raise ValueError(f"labels: expected shape ({len(images)},), one an image, got {labels.shape}")
        if self.classes < 1:
            raise ValueError(f"classes: expected at least 1, got {self.classes}")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= self.classes:
            raise ValueError(f"labels: expected values in 0..{self.classes - 1}, got {low}..{high}")
        if self.class_names is not None and len(self.class_names) != self.classes:
            raise ValueError(f"class_names: expected {self.classes} names, got {len(self.class_names)}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def take(self, indices: ArrayLike) -> Dataset:
        """The images at `indices` (integers in 0..n-1 or a mask of n booleans), in that order, as a copy."""
        chosen = np.asarray(indices)
        if chosen.ndim != 1 or len(chosen) == 0 or chosen.dtype.kind not in "iub":
            raise ValueError(
                f"indices: expected some integers, or a mask, in one dimension; got {chosen.dtype} {chosen.shape}"
            )
        if chosen.dtype.kind == "b":
            if len(chosen) != len(self):
                raise ValueError(f"indices: expected a mask of {len(self)} booleans, got {len(chosen)}")
            chosen = np.flatnonzero(chosen)
        if len(chosen) and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise ValueError(f"indices: expected 0..{len(self) - 1}, got {chosen.min()}..{chosen.max()}")
        return dataclasses.replace(self, images=self.images[chosen], labels=self.labels[chosen])


class Reader(Protocol):
    """What each module of this package offers to `load`: two functions, found by `sources.READERS`."""

    def recognises(self, path: pathlib.Path) -> bool:
        """Whether this reader is the one for `path`; looks at names only, opens nothing."""

    def read(self, path: pathlib.Path, **options: Any) -> Dataset:
        """Read `path`. Raises ValueError that names the file when it is truncated or of another format."""


def as_uint8(images: NDArray[Any], where: str) -> NDArray[np.uint8]:
    """`images` as uint8 in 0..255; floating point in [0, 1] is rounded to the nearest of the 256 levels."""
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        raise ValueError(f"{where}: expected uint8 in 0..255 or floating point in [0, 1], got {images.dtype}")
    low, high = (float(images.min()), float(images.max())) if images.size else (0.0, 0.0)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"{where}: holds NaN or infinity")
    if low < 0 or high > 1:
        hint = "; convert 0..255 to uint8" if low >= 0 and high <= 255 else ""
        raise ValueError(f"{where}: expected floating point in [0, 1], got {low:.4g} to {high:.4g}{hint}")
    levels: NDArray[np.uint8] = np.rint(images * 255).astype(np.uint8)
    return levels


def as_labels(labels: NDArray[Any], where: str) -> NDArray[np.int64]:
    """`labels` of shape (n,) or (n, 1) and an integer dtype, as int64 (n,)."""
    if labels.dtype.kind not in "iu":
        raise ValueError(f"{where}: expected integer class indices, got {labels.dtype}")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ValueError(f"{where}: expected shape (n,), got {labels.shape}")
    return labels.astype(np.int64)


def concatenate(parts: Sequence[Dataset]) -> Dataset:
    """The images of all `parts` in that order, as one data set. Their image sizes and class names must agree."""
    if not parts:
        raise ValueError("parts: expected at least one data set, got none")
    first = parts[0]
    if len(parts) == 1:
        return first
    for part in parts[1:]:
        if part.shape != first.shape:
            raise ValueError(
                f"{part.name}: images of (C, H, W) = {part.shape}, expected {first.shape} as in {first.name}"
            )
        if part.class_names != first.class_names:
            raise ValueError(f"{part.name}: its classes {part.class_names} are not those of {first.name}")
    return Dataset(
        name=" + ".join(dict.fromkeys(part.name for part in parts)),
        images=np.concatenate([part.images for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        classes=max(part.classes for part in parts),
        class_names=first.class_names,
    )


def normalisation(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of uint8 (n, C, H, W), in units of [0, 1] images.

    A constant channel gets the deviation of one grey level, so that dividing by it is harmless.
    """
    # Exact: the histogram of 256 levels is all that mean and variance need, whatever the number of images.
    levels = np.arange(256) / 255
    means, deviations = [], []
    for channel in range(images.shape[1]):
        # In blocks, because bincount makes 8 bytes of each.
        blocks = (images[start : start + 4096, channel] for start in range(0, len(images), 4096))
        share = sum(np.bincount(block.reshape(-1), minlength=256) for block in blocks) / images[:, channel].size
        mean = float(share @ levels)
        means.append(mean)
        deviations.append(max(float(np.sqrt(share @ (levels - mean) ** 2)), 1 / 255))
    return tuple(means), tuple(deviations)
