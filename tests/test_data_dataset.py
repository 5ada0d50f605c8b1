"""The data set itself: what it accepts, taking a part of it, putting parts together, its statistics."""

from __future__ import annotations

import numpy as np
import pytest

from diffence.data import Dataset, concatenate, normalisation


def make(n: int = 6, shape: tuple[int, ...] = (3, 4, 5), classes: int = 3, name: str = "made") -> Dataset:
    rng = np.random.default_rng(n)
    return Dataset(name, rng.integers(0, 256, (n, *shape), np.uint8), np.arange(n) % classes, classes)


def test_length_shape_and_take() -> None:
    data = make()
    assert len(data) == 6
    assert data.shape == (3, 4, 5)
    part = data.take([4, 0])
    np.testing.assert_array_equal(part.images, data.images[[4, 0]])
    np.testing.assert_array_equal(part.labels, data.labels[[4, 0]])
    np.testing.assert_array_equal(data.take(data.labels == 1).images, data.images[[1, 4]])
    part.images[:] = 0
    assert data.images[4].any()


@pytest.mark.parametrize(
    ("indices", "message"),
    [([6], r"0\.\.5"), ([-1], r"0\.\.5"), ([], "some integers"), ([0.5], "float64"), ([True, False], "mask of 6")],
)
def test_take_refuses(indices: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make().take(indices)


@pytest.mark.parametrize(
    ("field", "value", "error", "message"),
    [
        ("images", np.zeros((6, 3, 4, 5), np.float32), TypeError, "images.*float32"),
        ("images", [[0]], TypeError, "images.*list"),
        ("images", np.zeros((6, 4, 5), np.uint8), ValueError, r"\(6, 4, 5\)"),
        ("images", np.zeros((0, 3, 4, 5), np.uint8), ValueError, r"\(0, 3, 4, 5\)"),
        ("labels", np.zeros(6, np.int32), TypeError, "labels.*int32"),
        ("labels", np.zeros(5, np.int64), ValueError, r"\(6,\)"),
        ("labels", np.arange(6), ValueError, r"0\.\.2, got 0\.\.5"),
        ("labels", np.arange(6) - 5, ValueError, r"got -5\.\.0"),
        ("classes", 0, ValueError, "classes"),
        ("class_names", ("a", "b"), ValueError, "3 names, got 2"),
    ],
)
def test_refuses(field: str, value: object, error: type[Exception], message: str) -> None:
    good = make()
    fields = {"images": good.images, "labels": good.labels, "classes": 3, "class_names": None, field: value}
    with pytest.raises(error, match=message):
        Dataset("bad", **fields)  # type: ignore[arg-type]


def test_concatenate_keeps_the_order() -> None:
    both = concatenate([make(4, name="a"), make(5, classes=4, name="b")])
    assert (both.name, both.classes, len(both)) == ("a + b", 4, 9)
    np.testing.assert_array_equal(both.images[4:], make(5).images)
    np.testing.assert_array_equal(both.labels, [0, 1, 2, 0, 0, 1, 2, 3, 0])


def test_concatenate_refuses_what_does_not_belong_together() -> None:
    with pytest.raises(ValueError, match="other: images of"):
        concatenate([make(), make(shape=(3, 4, 4), name="other")])
    named = Dataset("n", make().images, make().labels, 3, ("a", "b", "c"))
    with pytest.raises(ValueError, match="classes"):
        concatenate([make(), named])
    with pytest.raises(ValueError, match="at least one"):
        concatenate([])


def test_normalisation_is_mean_and_deviation_of_each_channel() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5000, 2, 3, 3), np.uint8)  # more than one block
    images[:, 1] //= 2
    mean, std = normalisation(images)
    np.testing.assert_allclose(mean, (images / 255).mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, (images / 255).std((0, 2, 3)), rtol=1e-12)
    assert normalisation(np.full((2, 1, 2, 2), 255, np.uint8)) == ((1.0,), (1 / 255,))
