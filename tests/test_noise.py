"""The keyed noise: known answers, its layout, and the statistics of what comes out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from diffence import _core

KEY = bytes(range(16))
HASH = bytes.fromhex("0123456789abcdeffedcba9876543210")


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # Random123, kat_vectors, philox4x32 10
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_known_answers(counter: str, key: str, expected: str) -> None:
    words = [[int(word, 16) for word in text.split()] for text in (counter, key, expected)]
    assert _core.philox(words[0], words[1]) == tuple(words[2])


@pytest.mark.parametrize(
    ("size", "expected"),
    [  # the authors' reference implementation, key 00..0f, message 00 01 ...
        (0, "a3817f04ba25a8e66df67214c7550293"),
        (1, "da87c1d86b99af44347659119b22fc45"),
        (2, "8177228da4a45dc7fca38bdef60affe4"),
        (3, "9c70b60c5267a94e5f33b6b02985ed51"),
        (8, "3b62a9ba6258f5610f83e264f31497b4"),
        (15, "5493e99933b0a8117e08ec0f97cfc3d9"),
    ],
)
def test_siphash_known_answers(size: int, expected: str) -> None:
    assert _core.siphash128(KEY, bytes(range(size))).hex() == expected


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 2), (3, 5, 7), (3, 32, 32)])
def test_content_hash_is_siphash_of_shape_and_pixels(shape: tuple[int, int, int]) -> None:
    images = np.random.default_rng(0).random((4, *shape), dtype=np.float32)
    images[0] = 0
    expected = b"".join(
        _core.siphash128(KEY, np.array(shape, dtype="<i4").tobytes() + image.astype("<f4").tobytes())
        for image in images
    )
    assert _core.content_hashes(KEY, images) == expected
    images[0] = -0.0
    assert _core.content_hashes(KEY, images) == expected


def plain_normals(content: bytes, draw: int, first: int, count: int) -> NDArray[Any]:
    """The header's definition of df_normals, in NumPy."""
    words = np.frombuffer(content, dtype="<u4").tolist()
    out = []
    for block in range(first // 4, (first + count + 3) // 4):
        u = np.array(_core.philox((block, draw, words[2], words[3]), (words[0], words[1])), dtype=np.float64)
        radius = np.sqrt(-2 * np.log((u[::2] + 1) / 2**32))
        angle = 2 * np.pi * (u[1::2] / 2**32)
        out += [radius[0] * np.cos(angle[0]), radius[0] * np.sin(angle[0])]
        out += [radius[1] * np.cos(angle[1]), radius[1] * np.sin(angle[1])]
    return np.array(out[first % 4 : first % 4 + count], dtype=np.float32)


@settings(deadline=None, max_examples=60)
@given(
    content=st.binary(min_size=16, max_size=16),
    draw=st.integers(0, 2**32 - 1),
    first=st.integers(0, 50) | st.integers(2**32 - 300, 2**32 - 250),
    count=st.integers(0, 100),
    cut=st.integers(0, 100),
)
def test_normals_are_what_the_header_says(content: bytes, draw: int, first: int, count: int, cut: int) -> None:
    whole = _core.normals(content, draw, first, count)
    np.testing.assert_allclose(whole, plain_normals(content, draw, first, count), rtol=1e-6, atol=1e-7)
    cut = min(cut, count)
    parts = (_core.normals(content, draw, first, cut), _core.normals(content, draw, first + cut, count - cut))
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_normals_are_normal() -> None:
    z = np.concatenate([_core.normals(HASH, draw, 0, 100_000) for draw in range(5)]).astype(np.float64)
    n = len(z)
    assert np.isfinite(z).all()
    assert np.abs(z).max() < 6.7
    for moment, expected, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert abs((z**moment).mean() - expected) < 4.5 * np.sqrt(variance / n), moment
    assert stats.kstest(z, "norm").pvalue > 1e-3
    for place in range(4):  # each of a block's four alone
        assert stats.kstest(z[place::4], "norm").pvalue > 1e-3
    assert abs((np.abs(z) > 3).mean() / (2 * stats.norm.sf(3)) - 1) < 0.15  # the tails are there


def test_neighbours_are_independent() -> None:
    """Pairs of positions of one stream fill the unit square evenly once they are made uniform."""
    z = _core.normals(HASH, 0, 0, 400_000).astype(np.float64)
    for lag in (1, 2, 3, 4, 1024):
        u = stats.norm.cdf(z)
        counts, _, _ = np.histogram2d(u[:-lag], u[lag:], bins=16, range=[[0, 1], [0, 1]])
        assert stats.chisquare(counts.ravel()).pvalue > 1e-4, lag
        assert abs(np.corrcoef(z[:-lag], z[lag:])[0, 1]) < 4.5 / np.sqrt(len(z)), lag


def streams(kind: str) -> NDArray[Any]:
    """64 streams of one image: of as many draws, keys, or images that differ in one pixel by 1/255."""
    image = np.random.default_rng(0).integers(0, 256, (1, 3, 8, 8)).astype(np.float32) / np.float32(255)
    if kind == "draws":
        content = _core.content_hashes(KEY, image)
        return np.stack([_core.normals(content, draw, 0, 4096) for draw in range(64)])
    if kind == "keys":  # that differ in one bit
        keys = [
            bytes(value ^ (1 << bit % 8 if place == bit // 8 else 0) for place, value in enumerate(KEY))
            for bit in range(64)
        ]
        return np.stack([_core.normals(_core.content_hashes(key, image), 0, 0, 4096) for key in keys])
    images = np.repeat(image, 64, axis=0)
    for i in range(64):
        images[i].reshape(-1)[i] = (images[i].reshape(-1)[i] + 1 / 255) % 1
    contents = _core.content_hashes(KEY, images)
    return np.stack([_core.normals(contents[16 * i : 16 * i + 16], 0, 0, 4096) for i in range(64)])


@pytest.mark.parametrize("kind", ["draws", "keys", "images"])
def test_draws_keys_and_images_are_independent(kind: str) -> None:
    z = streams(kind).astype(np.float64)
    correlations = np.asarray(np.corrcoef(z))[np.triu_indices(64, 1)] * np.sqrt(z.shape[1])  # each about N(0, 1)
    assert np.abs(correlations).max() < 5
    assert stats.kstest(correlations, "norm").pvalue > 1e-3
    assert stats.kstest(z.mean(axis=0) * 8, "norm").pvalue > 1e-3  # at each position, across the streams
    assert len(np.unique(z, axis=0)) == 64


def test_errors_name_the_argument() -> None:
    with pytest.raises((ValueError, TypeError), match="key"):
        _core.siphash128(b"short", b"")
    with pytest.raises((ValueError, TypeError), match="key"):
        _core.content_hashes(b"x" * 15, np.zeros((1, 1, 2, 2), dtype=np.float32))
    with pytest.raises((ValueError, TypeError), match="hash"):
        _core.normals(b"x" * 17, 0, 0, 4)
    with pytest.raises((ValueError, OverflowError), match="draw"):
        _core.normals(HASH, -1, 0, 4)
    with pytest.raises((ValueError, OverflowError), match="count"):
        _core.normals(HASH, 0, 2**32 - 2, 4)
