"""Street View House Numbers, the cropped digits, as published: train_32x32.mat, test_32x32.mat, extra_32x32.mat.

Y. Netzer et al., Reading Digits in Natural Images with Unsupervised Feature Learning, 2011.
"""

from __future__ import annotations

import pathlib

import numpy as np
import scipy.io

from diffence.data.dataset import Dataset, as_labels

__all__ = ["read", "recognises"]


def recognises(path: pathlib.Path) -> bool:
    return path.suffix.lower() == ".mat"


def read(path: pathlib.Path) -> Dataset:
    """Read X (32, 32, 3, n) and y (n, 1) of one file; the published label 10 is the digit 0."""
    try:
        content = scipy.io.loadmat(path, variable_names=("X", "y"))
    except Exception as error:  # A damaged .mat may raise nearly anything.
        raise ValueError(f"{path}: not a readable .mat of MATLAB 7 or older: {error}") from error
    images, labels = content.get("X"), content.get("y")
    if images is None or labels is None:
        raise ValueError(f"{path}: expected the arrays X and y of the cropped digits")
    if images.ndim != 4 or images.shape[:3] != (32, 32, 3) or images.shape[3] == 0 or images.dtype != np.uint8:
        raise ValueError(f"{path}: X: expected uint8 (32, 32, 3, n), got {images.dtype} {images.shape}")
    digits = as_labels(labels, f"{path}: y")
    if digits.shape != (images.shape[3],) or digits.min() < 1 or digits.max() > 10:
        raise ValueError(f"{path}: y: expected {images.shape[3]} labels, all in 1..10")
    images = np.ascontiguousarray(images.transpose(3, 2, 0, 1))
    return Dataset("svhn", images, digits % 10, 10, tuple("0123456789"))
