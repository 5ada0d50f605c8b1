"""The privacy-risk score by hand, in distribution, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from diffence import metrics

# Losses of class 0: bins with the edges 1e-4, 1e-3, 1e-2, 0.1, 1 and 10.
MEMBERS, NONMEMBERS = -np.array([1e-4, 2e-4, 5e-3, 0.5]), -np.array([5e-4, 0.3, 0.5, 10.0])


def test_by_hand() -> None:
    asked = -np.array([0.0, 5e-4, 2e-3, 0.05, 0.9, 3.0, 1e6, np.inf])
    zeros = np.zeros(4, dtype=int)
    found = metrics.privacy_risk(asked, np.zeros(8, dtype=int), MEMBERS, NONMEMBERS, zeros, zeros)
    np.testing.assert_allclose(found, [2 / 3, 2 / 3, 1, 0.5, 1 / 3, 0, 0, 0])


def test_a_class_is_judged_by_its_own_samples_and_an_unknown_one_by_all() -> None:
    members, nonmembers = np.append(MEMBERS, [-5.0, -5.0]), np.append(NONMEMBERS, [-0.5, -5.0])
    labels = np.array([0, 0, 0, 0, 1, 1])
    found = metrics.privacy_risk([-5.0, -5.0, -5.0], [0, 1, 2], members, nonmembers, labels, labels)
    np.testing.assert_allclose(found, [0, 2 / 3, 1 / 2])


def test_it_is_the_share_of_members() -> None:
    """Calibrated: of the samples with a risk of about r, a share of about r are members."""
    rng = np.random.default_rng(1)
    losses = [-rng.lognormal(centre, 1.5, 20_000) for centre in (-4, -2, -4, -2)]
    labels = [rng.integers(0, 3, 20_000) for _ in losses]
    asked, member = np.concatenate(losses[2:]), np.repeat([1, 0], 20_000)
    risk = metrics.privacy_risk(asked, np.concatenate(labels[2:]), *losses[:2], *labels[:2], bins=20)
    for low in np.arange(0, 1, 0.1):
        bin_ = (risk >= low) & (risk < low + 0.1)
        if bin_.sum() > 500:
            assert member[bin_].mean() == pytest.approx(risk[bin_].mean(), abs=0.06)
    assert metrics.auc(risk[member == 1], risk[member == 0]) > 0.8


def test_losses_of_zero_tell_nothing() -> None:
    found = metrics.privacy_risk([0.0, -1.0], [0, 0], [0.0, 0.0], [0.0], [0, 0], [0])
    np.testing.assert_array_equal(found, [0.5, 0.5])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": [0.5]}, "scores: expected negated losses, at most 0, got up to 0.5"),
        ({"known_members": [np.nan]}, "known_members: expected scores without NaN"),
        ({"labels": [0, 1]}, r"labels: expected shape \(1,\), got \(2,\)"),
        ({"known_nonmember_labels": []}, r"known_nonmember_labels: expected shape \(1,\)"),
        ({"bins": 0}, "bins: expected at least 1, got 0"),
    ],
)
def test_refuses(change: dict[str, Any], message: str) -> None:
    good = {name: [-1.0] for name in ("scores", "known_members", "known_nonmembers")}
    good |= {name: [0] for name in ("labels", "known_member_labels", "known_nonmember_labels")}  # type: ignore[misc]
    with pytest.raises(ValueError, match=f"^{message}"):
        metrics.privacy_risk(**good | change)  # type: ignore[arg-type]
