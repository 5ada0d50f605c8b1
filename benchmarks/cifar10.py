"""Reading CIFAR-10 for the benchmarks."""

from __future__ import annotations

import pathlib

import numpy as np
from PIL import Image

from diffence.data import Dataset, load

SIDE = 32


def read(path: pathlib.Path) -> Dataset:
    """The data set at `path`; a folder with a pack of sprites, or what `diffence.data.load` takes."""
    pack = path / "cifar10"
    if not (pack / "labels.bin").is_file():
        return load(path)
    labels = np.fromfile(pack / "labels.bin", np.uint8)
    tiles = []
    for sprite in sorted(pack.glob("sprite_*.webp")):
        with Image.open(sprite) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        rows, columns = pixels.shape[0] // SIDE, pixels.shape[1] // SIDE
        tiles.append(pixels.reshape(rows, SIDE, columns, SIDE, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, SIDE, SIDE))
    images = np.ascontiguousarray(np.concatenate(tiles))
    return Dataset("cifar10", images, labels.astype(np.int64), 10)
