"""The scheduler of draws: early equals full equals select, whatever the batch and the order of the results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from diffence import _core

Array = NDArray[Any]
INTERVALS = [None, (-1.0, 1.0), (0.25, 0.25), (-np.inf, -0.5), (0.5, np.inf), (40.0, 50.0)]


def run(draws: _core.Draws, phi: Array, predicted: Array, rng: np.random.Generator, most: int) -> list[tuple[int, int]]:
    """Work to the end with results in random order and after random delays; the items, as they were handed out."""
    waiting: list[tuple[int, int]] = []
    handed: list[tuple[int, int]] = []
    while not draws.done:
        items = list(zip(*(values.tolist() for values in draws.next(most)), strict=True))
        waiting += items
        handed += items
        rng.shuffle(waiting)
        assert waiting, "neither done nor anything to do"
        count = int(rng.integers(0, len(waiting) + 1)) if items else len(waiting)
        if count:
            index, draw = np.array(waiting[:count]).T
            draws.submit(index, draw, phi[index, draw], predicted[index, draw])
            del waiting[:count]
    assert len(draws.next(most)[0]) == 0
    if waiting:  # results that were on their way when the last answer was certain
        index, draw = np.array(waiting).T
        draws.submit(index, draw, phi[index, draw], predicted[index, draw])
    return handed


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    images=st.integers(1, 12),
    n=st.integers(1, 8),
    most=st.integers(1, 40),
    interval=st.sampled_from(INTERVALS),
    early=st.booleans(),
)
def test_any_order_gives_what_select_gives(
    seed: int, images: int, n: int, most: int, interval: tuple[float, float] | None, early: bool
) -> None:
    rng = np.random.default_rng(seed)
    phi = rng.integers(-8, 9, (images, n)) / 4
    predicted = rng.integers(0, 3, (images, n))
    labels = rng.integers(0, 3, images)
    draws = _core.Draws(n, labels, early=early, interval=interval)
    handed = run(draws, phi, predicted, rng, most)
    used, draw, outcome = draws.result()
    expected_draw, expected_outcome = _core.select(phi, predicted, labels, interval)
    np.testing.assert_array_equal(draw, expected_draw)
    np.testing.assert_array_equal(outcome, expected_outcome)
    assert len(set(handed)) == len(handed), "an item was handed out twice"
    np.testing.assert_array_equal(used, np.bincount([image for image, _ in handed], minlength=images))
    # Lowest draw first, then images in order; every draw up to the answer was asked for.
    assert handed == sorted(handed, key=lambda item: (item[1], item[0]))
    needed = np.where((outcome == _core.INSIDE) & early, draw + 1, n)
    assert (used >= needed).all()
    if not early:
        assert len(handed) == images * n


def test_batches_are_full_while_work_is_left() -> None:
    draws = _core.Draws(30, np.zeros(10, dtype=np.int64), early=True, interval=(0.0, 1.0))
    sizes = []
    while not draws.done:
        index, draw = draws.next(16)
        sizes.append(len(index))
        inside = np.where(index < 8, 0.5, 2.0)  # images 8 and 9 never get there
        draws.submit(index, draw, inside, np.zeros(len(index), dtype=np.int64))
    assert sizes[:-1] == [16] * (len(sizes) - 1)
    used, _, outcome = draws.result()
    assert used[8:].tolist() == [30, 30]
    assert (used[:8] < 4).all()
    assert outcome.tolist() == [_core.INSIDE] * 8 + [_core.NEAREST] * 2


def test_refusals() -> None:
    draws = _core.Draws(2, [0, 1])
    with pytest.raises(ValueError, match="2 of 2"):
        draws.result()
    index, draw = draws.next(3)
    assert list(zip(index.tolist(), draw.tolist(), strict=True)) == [(0, 0), (1, 0), (0, 1)]
    with pytest.raises(ValueError, match=r"\(1, 1\) was not handed out"):
        draws.submit([0, 1], [0, 1], [1.0, 1.0], [0, 0])
    with pytest.raises(ValueError, match="phi"):
        draws.submit([0, 1], [0, 0], [1.0, np.nan], [0, 0])
    draws.submit([0, 1], [0, 0], [1.0, 1.0], [0, 0])  # nothing of the refused ones counted
    with pytest.raises(ValueError, match=r"\(0, 0\) was submitted"):
        draws.submit([0], [0], [1.0], [0])
    with pytest.raises(ValueError, match="index"):
        draws.submit([2], [0], [1.0], [0])
    with pytest.raises(ValueError, match="interval"):
        _core.Draws(2, [0], interval=(1.0, 0.0))
    with pytest.raises(ValueError, match="labels"):
        _core.Draws(2, [])
    with pytest.raises(ValueError, match="labels"):
        _core.Draws(2, [-1])
    with pytest.raises(ValueError, match="n"):
        _core.Draws(0, [1])
