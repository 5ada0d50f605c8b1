"""One's own images: a NumPy `.npz` with the arrays `images` and `labels`."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffence.data.dataset import Dataset, as_labels, as_uint8
from diffence.files import DAMAGED_NPZ

__all__ = ["read", "recognises"]

_CHANNELS = (1, 3, 4)


def recognises(path: pathlib.Path) -> bool:
    return path.suffix.lower() == ".npz"


def read(path: pathlib.Path, *, layout: str | None = None, classes: int | None = None) -> Dataset:
    """Read `images` and `labels` from a `.npz`.

    images: uint8, or floating point in [0, 1] (rounded to 256 levels), of shape (n, H, W), (n, H, W, C) or
        (n, C, H, W). layout: "NHWC" or "NCHW"; needed only where the shape does not tell, that is unless exactly one
        of the two places holds 1, 3 or 4 channels.
    labels: integers (n,) or (n, 1). classes: their number; by default the largest label + 1.
    """
    if layout not in (None, "NHWC", "NCHW"):
        raise ValueError(f'layout: expected "NHWC" or "NCHW", got {layout!r}')
    arrays = _arrays(path)
    images = _channels_second(arrays["images"], layout, f"{path}: images")
    labels = as_labels(arrays["labels"], f"{path}: labels")
    if classes is None:
        classes = int(labels.max(initial=0)) + 1
    try:
        return Dataset(path.stem, np.ascontiguousarray(as_uint8(images, f"{path}: images")), labels, classes)
    except ValueError as error:
        message = str(error)
        raise ValueError(message if message.startswith(str(path)) else f"{path}: {message}") from error


def _arrays(path: pathlib.Path) -> dict[str, NDArray[Any]]:
    try:
        opened = np.load(path, allow_pickle=False)
        if not isinstance(opened, np.lib.npyio.NpzFile):
            raise ValueError("a single array, not an archive of arrays")
        with opened:
            missing = {"images", "labels"} - set(opened.files)
            if missing:
                raise ValueError(f"expected the arrays images and labels, found {sorted(opened.files)}")
            return {name: opened[name] for name in ("images", "labels")}
    except DAMAGED_NPZ as error:
        raise ValueError(f"{path}: not a readable .npz of images and labels: {error}") from error


def _channels_second(images: NDArray[Any], layout: str | None, where: str) -> NDArray[Any]:
    if images.ndim == 3:
        return images[:, None]
    if images.ndim != 4:
        raise ValueError(f"{where}: expected (n, H, W), (n, H, W, C) or (n, C, H, W), got {images.shape}")
    if layout is None:
        first, last = images.shape[1] in _CHANNELS, images.shape[3] in _CHANNELS
        if first == last:
            raise ValueError(
                f'{where}: shape {images.shape} does not tell where the channels are; give layout="NHWC" or "NCHW"'
            )
        layout = "NCHW" if first else "NHWC"
    return images if layout == "NCHW" else images.transpose(0, 3, 1, 2)
