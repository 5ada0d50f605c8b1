"""`.npz` files: layouts, floating point, and what is refused."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

from diffence.data import load

NHWC = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), np.uint8)
LABELS = np.array([0, 2, 1, 0])


def save(folder: pathlib.Path, images: Any = NHWC, labels: Any = LABELS, **more: Any) -> pathlib.Path:
    np.savez_compressed(folder / "mine.npz", images=images, labels=labels, **more)
    return folder / "mine.npz"


def test_every_layout_becomes_nchw(tmp_path: pathlib.Path) -> None:
    nchw = NHWC.transpose(0, 3, 1, 2)
    for images, wanted in ((NHWC, nchw), (nchw, nchw), (NHWC[..., 0], nchw[:, :1]), (NHWC[..., :1], nchw[:, :1])):
        data = load(save(tmp_path, images))
        np.testing.assert_array_equal(data.images, wanted)
        assert data.images.flags.c_contiguous
        np.testing.assert_array_equal(data.labels, LABELS)
        assert (data.classes, data.name) == (3, "mine")


def test_a_shape_that_does_not_tell_needs_the_layout(tmp_path: pathlib.Path) -> None:
    for shape in ((4, 3, 5, 3), (4, 6, 5, 2)):
        images = np.resize(NHWC, shape)
        path = save(tmp_path, images)
        with pytest.raises(ValueError, match=r"mine.npz: images: .*layout="):
            load(path)
        np.testing.assert_array_equal(load(path, layout="NCHW").images, images)
        np.testing.assert_array_equal(load(path, layout="NHWC").images, images.transpose(0, 3, 1, 2))
    with pytest.raises(ValueError, match=r"layout: .*CHWN"):
        load(path, layout="CHWN")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floating_point_is_rounded_to_256_levels(tmp_path: pathlib.Path, dtype: type) -> None:
    data = load(save(tmp_path, (NHWC / 255).astype(dtype)))
    np.testing.assert_array_equal(data.images, NHWC.transpose(0, 3, 1, 2))
    between = np.clip(NHWC / 255 + 0.3 / 255, 0, 1).astype(dtype)
    np.testing.assert_array_equal(load(save(tmp_path, between)).images, data.images)
    between = np.clip(NHWC / 255 - 0.3 / 255, 0, 1).astype(dtype)
    np.testing.assert_array_equal(load(save(tmp_path, between)).images, data.images)


def test_labels_may_be_a_column_and_classes_may_be_given(tmp_path: pathlib.Path) -> None:
    data = load(save(tmp_path, labels=LABELS[:, None].astype(np.uint8)), classes=5)
    assert data.labels.tolist() == LABELS.tolist()
    assert data.labels.dtype == np.int64
    assert data.classes == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": NHWC.astype(np.int64)}, "images: expected uint8 .* got int64"),
        ({"images": NHWC * 1.0}, r"images: expected floating point in \[0, 1\].*convert 0\.\.255 to uint8"),
        ({"images": NHWC / 255 - 1}, r"images: expected floating point in \[0, 1\]"),
        ({"images": np.where(NHWC[0, 0, 0, 0] == NHWC, np.nan, 0.5)}, "images: holds NaN"),
        ({"images": NHWC[0, 0]}, r"images: expected \(n, H, W\)"),
        ({"images": NHWC[:0], "labels": LABELS[:0]}, "images: expected shape"),
        ({"labels": LABELS * 1.0}, "labels: expected integer"),
        ({"labels": LABELS - 1}, r"labels: expected values in 0\.\.1, got -1\.\.1"),
        ({"labels": LABELS[:3]}, r"labels: expected shape \(4,\)"),
        ({"labels": np.zeros((4, 2), int)}, r"labels: expected shape \(n,\)"),
        ({"labels": np.array([{}, 1, 2, 3])}, "Object arrays cannot be loaded"),
    ],
)
def test_refuses_and_names_the_file(tmp_path: pathlib.Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"mine.npz.*{message}"):
        load(save(tmp_path, **changes))


def test_refuses_what_is_no_archive(tmp_path: pathlib.Path) -> None:
    path = save(tmp_path)
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[60:200] = bytes(140)
    for content in (whole[: len(whole) // 2], b"", b"hello", bytes(damaged)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"mine.npz: not a readable .npz"):
            load(path)
    with path.open("wb") as file:
        np.save(file, NHWC)
    with pytest.raises(ValueError, match=r"mine.npz: .*single array"):
        load(path)
    np.savez(path, x=NHWC, y=LABELS)
    with pytest.raises(ValueError, match=r"expected the arrays images and labels, found \['x', 'y'\]"):
        load(path)
