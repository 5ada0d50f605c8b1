"""The handwritten digits that scikit-learn ships: 1,797 grey images of 8x8 pixels, ten classes.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI repository, 1998 (its test part).
"""

from __future__ import annotations

import pathlib

import numpy as np
from sklearn.datasets import load_digits

from diffence.data.dataset import Dataset

__all__ = ["NAME", "read", "recognises"]

NAME = "digits"


def recognises(path: pathlib.Path) -> bool:
    """Only the bare name is the data set; "./digits" is a folder of that name."""
    return str(path) == NAME


def read(path: pathlib.Path) -> Dataset:
    """All images in scikit-learn's order: the 17 levels 0..16 become round(level * 255 / 16), so 0..255."""
    levels, labels = load_digits(return_X_y=True)
    images = np.rint(levels * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    return Dataset(NAME, images, labels.astype(np.int64), 10, tuple("0123456789"))
