"""The noise schedule and both samplers: the release's tables, and DDIM written out again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffence import _core

ALPHA_BAR = _core.schedule_linear(1000, 1e-4, 0.02)


def test_schedule() -> None:
    beta = (1e-4 + (0.02 - 1e-4) * np.arange(1000) / 999).astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(ALPHA_BAR, np.cumprod(1 - beta), rtol=1e-13)
    np.testing.assert_allclose(_core.schedule_linear(1, 0.25, 0.5), [0.75])
    for steps, first, last in [(0, 1e-4, 0.02), (10, 0.0, 0.02), (10, 1e-4, 1.0), (10, np.nan, 0.02)]:
        with pytest.raises(ValueError, match=r"steps|beta|first"):
            _core.schedule_linear(steps, first, last)


@pytest.mark.parametrize(
    ("T", "paper", "official"),
    [
        (1, (0.999950, 0.010000), (1.000050, 0.010001)),
        (40, (0.990276, 0.139117), (1.009820, 0.140483)),
        (160, (0.873857, 0.486182), (1.144352, 0.556364)),
        (200, (0.811812, 0.583919), (1.231812, 0.719279)),
        (300, (0.629619, 0.776904), (1.588263, 1.233928)),
        (500, (0.280334, 0.959902), (3.567171, 3.424137)),
    ],
)
def test_noising(T: int, paper: tuple[float, float], official: tuple[float, float]) -> None:
    for mode, expected in (("paper", paper), ("official", official)):
        sampler = _core.Sampler(ALPHA_BAR, T, T, mode)  # type: ignore[arg-type]
        np.testing.assert_allclose((sampler.signal, sampler.noise), expected, atol=1e-6)


def indices(sampler: _core.Sampler) -> list[int]:
    return [t for t, _, _ in sampler.steps]


def test_step_lists() -> None:
    def listed(T: int, k: int, mode: Any) -> list[int]:
        return indices(_core.Sampler(ALPHA_BAR, T, k, mode))

    assert listed(160, 160, "official") == [160]
    assert listed(40, 10, "official") == [40, 30, 20, 10]
    assert listed(40, 40, "official") == [40]
    assert listed(100, 20, "official") == [100, 80, 60, 40, 20]
    assert listed(47, 10, "official") == [47, 37, 27, 17]
    assert listed(160, 160, "paper") == [159]
    assert listed(40, 10, "paper") == [39, 29, 19, 9]
    assert listed(47, 10, "paper") == [46, 36, 26, 16, 6]


def test_published_single_step() -> None:
    np.testing.assert_allclose(
        _core.Sampler(ALPHA_BAR, 160, 160, "official").steps[0][1:], (1.1461798, -0.5502036), atol=1e-6
    )
    np.testing.assert_allclose(
        _core.Sampler(ALPHA_BAR, 160, 160, "paper").steps[0][1:], (1.1443516, -0.5563637), atol=1e-6
    )


@settings(deadline=None, max_examples=150)
@given(T=st.integers(1, 1000), divisor=st.floats(1, 40), mode=st.sampled_from(["paper", "official"]))
def test_steps_are_ddim(T: int, divisor: float, mode: Any) -> None:
    """Every step takes level c to level d; the last one lands, on the clean image or, in the release, on T mod k."""
    if mode == "official":
        T = min(T, 999)
    k = max(1, int(T / divisor))
    steps = _core.Sampler(ALPHA_BAR, T, k, mode).steps
    start = T - 1 if mode == "paper" else T
    assert [t for t, _, _ in steps] == list(range(start, -1 if mode == "paper" else k - 1, -k))
    for t, x_scale, eps_scale in steps:
        c, d = ALPHA_BAR[t], ALPHA_BAR[t - k] if t >= k else 1.0
        x, e = np.array([0.3, -2.0, 1.0]), np.array([1.1, 0.4, -0.7])
        x0 = (x - np.sqrt(1 - c) * e) / np.sqrt(c)
        np.testing.assert_allclose(
            x_scale * x + eps_scale * e, np.sqrt(d) * x0 + np.sqrt(1 - d) * e, rtol=1e-5, atol=1e-6
        )


def test_errors_name_the_argument() -> None:
    bad: list[tuple[int, int, Any, str]] = [
        (0, 1, "paper", "T"), (1001, 1, "paper", "T.*1001"), (1000, 1, "official", "T.*1..999"), (40, 0, "paper", "k"),
        (40, 41, "official", "k.*41"), (40, 4, "neither", "mode"),
    ]  # fmt: skip
    for T, k, mode, words in bad:
        with pytest.raises(ValueError, match=words):
            _core.Sampler(ALPHA_BAR, T, k, mode)
    for levels in ([], [0.9, 0.95], [0.9, 0.0], [0.9, np.nan], [1.1]):
        with pytest.raises(ValueError, match="alpha_bar"):
            _core.Sampler(levels, 1, 1, "paper")
