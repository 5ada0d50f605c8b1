"""`load`: which reader gets what, the digits, several sources, options that do not belong."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from diffence.data import load


def test_digits() -> None:
    digits = load("digits")
    assert digits.images.shape == (1797, 1, 8, 8)
    assert digits.classes == 10
    assert digits.class_names == tuple("0123456789")
    np.testing.assert_array_equal(np.bincount(digits.labels), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    # The 17 levels of scikit-learn, 0..16, times 255/16 and rounded.
    levels = [0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255]
    assert np.unique(digits.images).tolist() == levels
    first_row = [0, 0, 80, 207, 143, 16, 0, 0]  # levels 0 0 5 13 9 1 0 0
    assert digits.images[0, 0, 0].tolist() == first_row
    assert digits.labels[:3].tolist() == [0, 1, 2]


def test_several_sources_one_behind_the_other(tmp_path: pathlib.Path) -> None:
    for name, value in (("train", 1), ("test", 2)):
        np.savez(tmp_path / f"{name}.npz", images=np.full((2, 5, 4, 3), value, np.uint8), labels=[0, value])
    both = load([tmp_path / "train.npz", str(tmp_path / "test.npz")])
    assert both.images[:, 0, 0, 0].tolist() == [1, 1, 2, 2]
    assert both.labels.tolist() == [0, 1, 0, 2]
    assert (both.classes, both.name) == (3, "train + test")


def test_refuses(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file or folder .*none.npz"):
        load(tmp_path / "none.npz")
    with pytest.raises(FileNotFoundError, match="digits"):
        load("digit")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"notes\.txt: expected .*npz"):
        load(tmp_path / "notes.txt")
    with pytest.raises(TypeError, match="part: not an option of digits, which has none"):
        load("digits", part="train")
    with pytest.raises(ValueError, match="at least one"):
        load([])
