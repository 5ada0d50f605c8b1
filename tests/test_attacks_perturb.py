"""Changed images: what moves where, in the dtype that came, and the same whatever the company."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffence.attacks import perturb
from diffence.attacks.perturb import generators, near_duplicates, rotated, translated

LEVELS = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 10), dtype=np.uint8)
LEVELS[0], LEVELS[1] = 0, 255
FLOATS = (LEVELS / 255).astype(np.float32)


def test_a_shift_moves_every_pixel_and_fills_the_edge() -> None:
    moved = translated(LEVELS, 1, -2)
    np.testing.assert_array_equal(moved[:, :, 1:, :-2], LEVELS[:, :, :-1, 2:])
    assert (moved[:, :, 0] == 0).all()
    assert (moved[..., -2:] == 0).all()
    edge = translated(LEVELS, 0, -2, "edge")
    np.testing.assert_array_equal(edge[..., :-2], LEVELS[..., 2:])
    np.testing.assert_array_equal(edge[..., -1], LEVELS[..., -1])
    assert moved.dtype == edge.dtype == np.uint8
    np.testing.assert_array_equal(translated(LEVELS, 0, 0), LEVELS)
    assert (translated(LEVELS, 20, 0) == 0).all()


@pytest.mark.parametrize("images", [LEVELS, FLOATS, FLOATS.astype(np.float64)])
def test_a_rotation_is_about_the_centre_and_bilinear(images: np.ndarray) -> None:
    square = images[..., :8]
    np.testing.assert_allclose(rotated(square, 90), np.rot90(square, axes=(2, 3)), atol=1e-6)
    turned = rotated(square, 4.0)
    assert turned.dtype == images.dtype
    assert turned.shape == square.shape
    assert not np.array_equal(turned, square)
    assert turned[0].max() == 0  # black stays black
    white = rotated(square, 30.0, "edge")[1]
    np.testing.assert_allclose(white, square[1], atol=1e-6)
    assert rotated(square, 30.0)[1][:, 0, 0].max() == 0  # padded with black
    back = rotated(rotated(np.full((1, 1, 9, 9), 0.5), 10), -10)
    assert back[0, 0, 4, 4] == pytest.approx(0.5)


def test_uint8_is_the_rounded_float() -> None:
    np.testing.assert_array_equal(rotated(LEVELS, 5.0), np.rint(rotated(FLOATS.astype(np.float64), 5.0) * 255))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("images", [LEVELS, FLOATS])
def test_near_duplicates_differ_by_one_level_in_a_few_places(images: np.ndarray, flip: bool) -> None:
    copies = near_duplicates(images, 12, pixels=3, flip=flip, seed=0)
    assert len(copies) == 12
    for number, copy in enumerate(copies):
        assert copy.dtype == images.dtype
        mirrored = flip and number % 2 == 0
        apart = (copy[..., ::-1] if mirrored else copy).astype(np.float64) - images
        level = 1.0 if images.dtype == np.uint8 else 1 / 255
        changed = apart.reshape(len(images), -1) != 0
        assert (changed.sum(axis=1) == 3).all()
        np.testing.assert_allclose(np.abs(apart.reshape(len(images), -1)[changed]), level, rtol=1e-4)
        assert copy.min() >= 0
        assert copy.max() <= (255 if images.dtype == np.uint8 else 1)
    for row in range(len(images)):
        assert len({copy[row].tobytes() for copy in copies}) == 12


def test_company_and_count_change_nothing_and_the_seed_does() -> None:
    together = near_duplicates(LEVELS, 5, pixels=2, flip=False, seed=3)
    for number, copy in enumerate(near_duplicates(LEVELS[4:], 3, pixels=2, flip=False, seed=3)):
        np.testing.assert_array_equal(copy, together[number][4:])
    other = near_duplicates(LEVELS, 5, pixels=2, flip=False, seed=4)
    assert not np.array_equal(other[0], together[0])
    mixed = near_duplicates(torch.from_numpy(LEVELS), 1, pixels=2, flip=False, seed=3)
    np.testing.assert_array_equal(mixed[0], together[0])


def test_tiny_images_run_out_of_copies_but_not_of_time() -> None:
    image = np.full((1, 1, 1, 2), 7, np.uint8)
    copies = near_duplicates(image, 6, pixels=1, flip=False, seed=0)
    assert len({copy.tobytes() for copy in copies}) == 4  # two places, up or down


def test_generators_follow_the_content() -> None:
    a, b = (generators(values, 1, "test") for values in (FLOATS[2:5], FLOATS[4:1:-1].copy()))
    first = [rng.random() for rng in a]
    assert first == [rng.random() for rng in b][::-1]
    assert len(set(first)) == 3
    assert generators(FLOATS[2:3], 1, "other")[0].random() != first[0]
    assert generators(FLOATS[2:3], 2, "test")[0].random() != first[0]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (LEVELS[0], "images: expected four dimensions"),
        (LEVELS[:0], "images: the batch is empty"),
        (FLOATS * np.nan, "NaN"),
        (FLOATS * 255, "divide by 255"),
    ],
)
def test_bad_images_are_refused(images: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        perturb.checked_images(images)
    with pytest.raises(ValueError, match=message):
        near_duplicates(images, 1, pixels=1, flip=False, seed=0)


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^pixels: expected 1 to 240"):
        near_duplicates(LEVELS, 1, pixels=241, flip=False, seed=0)
    with pytest.raises(ValueError, match=r"^seed: "):
        near_duplicates(LEVELS, 1, pixels=1, flip=False, seed=-1)
