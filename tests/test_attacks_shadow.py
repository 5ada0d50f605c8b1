"""Outputs beside those of shadow models: what they are made from, how they are split, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffence import metrics
from diffence.attacks import RMIA, DifficultyCalibration, LiRA, Loss, ShadowOutputs, Target, assign

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, 6)
LOGITS = RNG.normal(0, 3, (6, 4))
SHADOWS = RNG.normal(0, 3, (6, 5, 4))
INSIDE = assign(5, 6, 0)


def test_signals_are_phi_of_the_true_label() -> None:
    """attacks.md 9.2, and each entry against metrics.phi."""
    printed = ShadowOutputs.from_logits(
        [[1.0, 2, -3], [-1, 1, 0]], [1, 2], [[[1.0, 2, -3]], [[-1, 1, 0]]], [[True], [False]]
    )
    np.testing.assert_allclose(printed.signals[:, 0], [0.98185009, -1.12692802], atol=6e-9)
    np.testing.assert_allclose(printed.shadow_signals[:, 0, 0], [0.98185009, -1.12692802], atol=6e-9)
    seen = ShadowOutputs.from_logits(LOGITS, LABELS, SHADOWS, INSIDE)
    for shadow in range(5):
        expected = metrics.phi(SHADOWS[:, shadow], LABELS)
        np.testing.assert_array_equal(seen.shadow_signals[:, shadow, 0], expected)
    np.testing.assert_array_equal(seen.signals[:, 0], metrics.phi(LOGITS, LABELS))
    assert seen.shadows == 5
    assert all(own.dtype == np.float64 for own in (seen.logits, seen.signals, seen.shadow_signals))


def test_several_queries() -> None:
    """The first is the sample as it is: its logits are those that other attacks see."""
    own, theirs = RNG.normal(0, 3, (6, 2, 4)), torch.from_numpy(RNG.normal(0, 3, (6, 5, 2, 4))).float()
    seen = ShadowOutputs.from_logits(own, LABELS, theirs, INSIDE)
    assert seen.signals.shape == (6, 2)
    assert seen.shadow_signals.shape == (6, 5, 2)
    np.testing.assert_array_equal(seen.logits, own[:, 0])
    np.testing.assert_array_equal(seen.signals[:, 1], metrics.phi(own[:, 1], LABELS))
    np.testing.assert_array_equal(
        Loss().score(seen), Loss().score(ShadowOutputs.from_logits(LOGITS * 0 + own[:, 0], LABELS, SHADOWS, INSIDE))
    )


def test_of_probabilities_and_of_confidences() -> None:
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    theirs = np.exp(SHADOWS) / np.exp(SHADOWS).sum(2, keepdims=True)
    exact = ShadowOutputs.from_logits(LOGITS, LABELS, SHADOWS, INSIDE)
    from_p = ShadowOutputs.from_probabilities(p, LABELS, theirs, INSIDE)
    rows = np.arange(6)
    from_true = ShadowOutputs.from_confidences(p[rows, LABELS], theirs[rows, :, LABELS], INSIDE)
    for other in (from_p, from_true):
        np.testing.assert_allclose(other.signals, exact.signals, atol=1e-9)
        np.testing.assert_allclose(other.shadow_signals, exact.shadow_signals, atol=1e-9)
    np.testing.assert_allclose(Loss().score(from_true), Loss().score(exact), atol=1e-9)
    sure = ShadowOutputs.from_confidences([1.0, 0.0], [[1.0, 0.0], [0.5, 0.5]], [[True, False]] * 2)
    np.testing.assert_allclose(sure.signals[:, 0], [-np.log(1e-30), np.log(1e-30)])
    with pytest.raises(ValueError, match="labels, shadow_probabilities, inside: all are needed"):
        ShadowOutputs.from_probabilities(p, LABELS)
    with pytest.raises(ValueError, match=r"^shadow_probabilities: expected probabilities"):
        ShadowOutputs.from_probabilities(p, LABELS, SHADOWS, INSIDE)
    with pytest.raises(ValueError, match=r"^confidences: expected probabilities from 0 to 1"):
        ShadowOutputs.from_confidences([1.1], [[0.5, 0.5]], [[True, False]])


def test_parts_stay_together() -> None:
    seen = ShadowOutputs.from_logits(LOGITS, LABELS, SHADOWS, INSIDE)
    order = [4, 0, 4]
    part = seen.take(order)
    assert type(part) is ShadowOutputs
    for name in ("logits", "labels", "signals", "shadow_signals", "inside", "query_logits", "shadow_logits"):
        np.testing.assert_array_equal(getattr(part, name), getattr(seen, name)[order])
    fewer = seen.with_shadows([3, 1])
    np.testing.assert_array_equal(fewer.inside, INSIDE[:, [3, 1]])
    np.testing.assert_array_equal(fewer.shadow_signals, seen.shadow_signals[:, [3, 1]])
    np.testing.assert_array_equal(fewer.shadow_logits, SHADOWS[:, [3, 1], None])
    assert seen.shadows == 5
    with pytest.raises(ValueError, match="at least one shadow"):
        seen.with_shadows(np.zeros(5, bool))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((LOGITS, LABELS, SHADOWS[:5], INSIDE), r"^shadow_logits: expected shape \(6, any, 1, 4\), got \(5, 5, 1, 4\)"),
        ((LOGITS, LABELS, SHADOWS[:, :, :3], INSIDE), "^shadow_logits: expected shape"),
        ((LOGITS, LABELS, SHADOWS, INSIDE.T), r"^inside: expected shape \(6, 5\), a sample a row, got \(5, 6\)"),
        ((LOGITS, LABELS[:4], SHADOWS, INSIDE), "^labels: expected shape"),
        ((LOGITS, LABELS, SHADOWS * np.nan, INSIDE), "^shadow_logits: expected finite numbers"),
        ((LOGITS * np.inf, LABELS, SHADOWS, INSIDE), "^logits: expected finite numbers"),
        ((LOGITS[:0], LABELS[:0], SHADOWS[:0], INSIDE[:0]), "^logits: expected shape"),
    ],
)
def test_bad_arrays_are_refused_by_name(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShadowOutputs.from_logits(*arguments)


def test_other_refusals() -> None:
    with pytest.raises(TypeError, match=r"^inside: expected True or False, got float64"):
        ShadowOutputs.from_logits(LOGITS, LABELS, SHADOWS, INSIDE * 0.5)
    with pytest.raises(ValueError, match=r"^labels: the true labels are needed"):
        ShadowOutputs(LOGITS, None, SHADOWS[:, :, 0], INSIDE)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^shadow_signals: expected shape \(6, any, 2\)"):
        ShadowOutputs(LOGITS, LABELS, SHADOWS[:, :, 0], INSIDE, signals=LOGITS[:, :2])
    as_numbers = ShadowOutputs.from_logits(LOGITS, LABELS, SHADOWS, INSIDE.astype(int))
    np.testing.assert_array_equal(as_numbers.inside, INSIDE)


@given(st.integers(2, 20), st.integers(1, 40), st.integers(0, 2**32))
def test_each_sample_is_in_half_of_the_models(count: int, n: int, seed: int) -> None:
    inside = assign(count, n, seed)
    assert inside.shape == (n, count)
    assert (inside.sum(axis=1) == count // 2).all()
    np.testing.assert_array_equal(inside, assign(count, n, seed))


def test_assignments_are_even_and_of_the_seed() -> None:
    inside = assign(4, 30_000, 0)
    np.testing.assert_allclose(inside.mean(axis=0), 0.5, atol=0.01)
    pairs = {tuple(row) for row in inside}
    assert len(pairs) == 6
    shares = [(inside == pair).all(axis=1).mean() for pair in pairs]
    np.testing.assert_allclose(shares, 1 / 6, atol=0.01)
    assert (inside != assign(4, 30_000, 1)).any()
    for arguments in ((1, 5, 0), (2, 0, 0), (2, 5, -1)):
        with pytest.raises(ValueError, match=r"^(count|n|seed): expected an integer of at least"):
            assign(*arguments)


class Source:
    """A source of shadows that counts how often it is asked."""

    asked = 0

    def collect(self, target: Target, images: Any, labels: Any = None) -> ShadowOutputs:
        self.asked += 1
        return ShadowOutputs.from_logits(target(images), labels, SHADOWS, INSIDE)


def test_attacks_on_the_same_shadows_can_share_what_was_collected() -> None:
    source = Source()
    attacks = [
        LiRA(shadows=source),
        LiRA(mode="offline", shadows=source),
        RMIA(shadows=source),
        DifficultyCalibration(shadows=source),
    ]
    assert len({attack.query for attack in attacks}) == 1
    assert LiRA(shadows=Source()).query != attacks[0].query
    target = Target(lambda images: LOGITS[: len(images)])
    seen = attacks[2].collect(target, np.zeros((6, 1, 2, 2)), LABELS)
    assert source.asked == 1
    for attack in attacks:
        known = seen.take([0, 1, 2]), seen.take([3, 4, 5])
        assert np.isfinite(attack.fit(*known).score(seen)).all()
