"""SVHN's `.mat` files, made small."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest
import scipy.io

from diffence.data import load

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4), np.uint8)
LABELS = np.array([[10], [1], [9], [10]], np.uint8)


def save(path: pathlib.Path, **arrays: Any) -> pathlib.Path:
    scipy.io.savemat(path, {"X": PIXELS, "y": LABELS, **arrays}, do_compression=True)
    return path


def test_reads_pixels_and_turns_ten_into_zero(tmp_path: pathlib.Path) -> None:
    path = save(tmp_path / "train_32x32.mat")
    data = load(path)
    assert (data.name, data.classes, data.images.shape) == ("svhn", 10, (4, 3, 32, 32))
    for index in range(4):
        np.testing.assert_array_equal(data.images[index], PIXELS[..., index].transpose(2, 0, 1))
    assert data.labels.tolist() == [0, 1, 9, 0]
    assert len(load([path, path])) == 8


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": PIXELS.astype(np.int16)}, "X: expected uint8"),
        ({"X": PIXELS.transpose(3, 0, 1, 2)}, r"X: expected uint8 \(32, 32, 3, n\)"),
        ({"y": LABELS[:3]}, "y: expected 4 labels"),
        ({"y": LABELS * 0}, r"y: .*1\.\.10"),
        ({"y": LABELS + 1}, r"y: .*1\.\.10"),
        ({"y": LABELS * 1.0}, "y: expected integer"),
    ],
)
def test_refuses_other_arrays(tmp_path: pathlib.Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"a.mat: {message}"):
        load(save(tmp_path / "a.mat", **arrays))


def test_refuses_other_files(tmp_path: pathlib.Path) -> None:
    path = save(tmp_path / "a.mat")
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:100], b"hello", b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a.mat: not a readable .mat"):
            load(path)
    scipy.io.savemat(path, {"Z": PIXELS})
    with pytest.raises(ValueError, match=r"a.mat: expected the arrays X and y"):
        load(path)
