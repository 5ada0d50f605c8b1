"""Quantile regression: it learns what a non-member would answer, from non-members alone."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from diffence import metrics
from diffence.attacks import ImageOutputs, Outputs, QuantileRegression, Target
from diffence.attacks import quantile as module


def group(n: int, seed: int, *, shift: float = 0.0, images: bool = False, gap: float = 3.0) -> ImageOutputs:
    """t = difficulty + noise + gap * shift, and the difficulty, -2 to 2 times 4, can be seen in the features."""
    rng = np.random.default_rng(seed)
    hard = rng.uniform(-2, 2, n)
    t = 4 * hard + rng.normal(0, 1, n) + gap * shift
    labels = rng.integers(0, 3, n)
    logits = np.full((n, 3), -50.0)
    logits[np.arange(n), (labels + 1) % 3] = 0
    logits[np.arange(n), labels] = t
    if not images:
        return ImageOutputs(logits, labels, np.stack([hard, rng.normal(0, 1, n)], 1))
    pixels = 128 + 50 * hard[:, None, None, None] + rng.normal(0, 5, (n, 1, 4, 4))
    return ImageOutputs(logits, labels, pixels.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("regression", ["gaussian", "pinball"])
@pytest.mark.parametrize("images", [False, True])
def test_it_sees_through_difficulty(regression: Any, images: bool) -> None:
    attack = QuantileRegression(seed=0, regression=regression, epochs=12 if images else 25)
    attack.fit(group(40, 1, shift=1, images=images), group(1000, 2, images=images))
    targets = group(1000, 3, shift=1, images=images), group(1000, 4, images=images)
    scores = [attack.score(own) for own in targets]
    plain = metrics.auc(*(module._lead(own) for own in targets))
    assert plain < 0.75
    assert metrics.auc(*scores) > 0.9  # of 0.983 that a regression without error would reach
    assert metrics.balanced_accuracy(*(attack.predict(own) for own in targets)) > 0.8
    assert 1 <= attack.epoch_ <= attack.epochs
    assert all(own.shape == (1000,) and own.dtype == np.float64 for own in scores)


def test_gaussian_scores_of_nonmembers_are_standard_normal() -> None:
    attack = QuantileRegression(seed=0, epochs=25).fit(group(40, 1, shift=1), group(3000, 2))
    scores = attack.score(group(3000, 3))
    assert abs(scores.mean()) < 0.2
    assert scores.std() == pytest.approx(1, abs=0.2)


def test_pinball_scores_are_logarithms_of_shares() -> None:
    """A share of 10^-s of non-members has a score above s."""
    attack = QuantileRegression(seed=0, regression="pinball", epochs=25).fit(group(40, 1, shift=1), group(4000, 2))
    scores = attack.score(group(4000, 3))
    for share in (0.5, 0.1, 0.03):
        assert (scores > -np.log10(share)).mean() == pytest.approx(share, rel=0.4)


def test_levels_between_and_beyond() -> None:
    quantiles = np.linspace(0, 40, 41)[None].repeat(6, 0)
    found = module._levels(np.array([-40.0, 0, 5, 7.5, 40, 80]), quantiles)
    np.testing.assert_allclose(found, [-1, 0, 0.5, 0.75, 4, 5], atol=1e-12)
    np.testing.assert_allclose(
        module._levels(np.zeros(2), np.zeros((2, 41))), module._levels(np.zeros(1), np.zeros((1, 41)))[0]
    )


def test_losses_are_those_of_the_definitions() -> None:
    known = group(30, 1)
    gaussian = module._Model(known, "convnet", "gaussian", 0)
    answers, t = torch.tensor([[0.5, 0.2], [1.0, -0.3]]), torch.tensor([0.0, 3.0])
    log_s = 4 * np.tanh(answers[:, 1].numpy() / 4)
    expected = (log_s + ((t.numpy() - answers[:, 0].numpy()) / np.exp(log_s)) ** 2 / 2).mean()
    assert gaussian.loss(answers, t).item() == pytest.approx(expected, rel=1e-5)
    pinball = module._Model(known, "convnet", "pinball", 0)
    # The constant that minimises the loss at a level is that quantile of the targets.
    sample = torch.from_numpy(np.random.default_rng(0).normal(size=4001)).float()
    level = 20
    grid = np.linspace(1, 3, 41)
    losses = []
    for value in grid:
        constant = torch.zeros(len(sample), 41)
        constant[:, level] = float(value)
        losses.append(pinball.loss(constant, sample).item())
    assert grid[int(np.argmin(losses))] == pytest.approx(stats.norm.isf(module.LEVELS[level]), abs=0.1)
    assert len(module.LEVELS) == 41
    assert module.LEVELS[0] == pytest.approx(1e-4)
    assert module.LEVELS[-1] == 1


def test_it_is_trained_on_nonmembers_alone() -> None:
    """Other members change the threshold and nothing else."""
    nonmembers, targets = group(200, 2), group(50, 3)
    first = QuantileRegression(seed=0, epochs=3).fit(group(40, 1, shift=1), nonmembers)
    second = QuantileRegression(seed=0, epochs=3).fit(group(25, 5, shift=2), nonmembers)
    np.testing.assert_array_equal(first.score(targets), second.score(targets))
    assert first.threshold_ != second.threshold_
    third = QuantileRegression(seed=0, epochs=3, alpha=0.2).fit(group(40, 1, shift=1), nonmembers)
    fourth = QuantileRegression(seed=0, epochs=3, alpha=0.2).fit(group(25, 5, shift=2), nonmembers)
    assert third.threshold_ == fourth.threshold_


def test_alpha_is_the_share_of_false_positives() -> None:
    attack = QuantileRegression(seed=0, epochs=20, alpha=0.1).fit(group(40, 1, shift=1), group(3000, 2))
    assert attack.predict(group(4000, 3)).mean() == pytest.approx(0.1, abs=0.04)
    assert attack.name == "quantile regression, alpha 0.1"


@pytest.mark.parametrize("regression", ["gaussian", "pinball"])
def test_polarity_on_a_separable_case(regression: Any) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(120, 2))
    members = ImageOutputs([[60.0, 0]] * 40, [0] * 40, features[:40])
    nonmembers = ImageOutputs(np.stack([rng.normal(0, 1, 80), np.zeros(80)], 1), [0] * 80, features[40:])
    attack = QuantileRegression(seed=0, regression=regression, epochs=20).fit(members, nonmembers)
    scores = attack.score(members), attack.score(nonmembers)
    assert metrics.auc(*scores) == 1
    assert metrics.tpr_at_fpr(*scores) == 1
    assert metrics.tnr_at_fnr(*scores) == 1
    assert attack.predict(members).all()


@pytest.mark.parametrize("regression", ["gaussian", "pinball"])
def test_constant_answers_say_nothing(regression: Any) -> None:
    seen = ImageOutputs(np.ones((40, 3)), [0] * 40, np.ones((40, 2)))
    scores = QuantileRegression(seed=0, regression=regression, epochs=2).fit(seen, seen).score(seen)
    assert np.isfinite(scores).all()
    assert metrics.auc(scores[:20], scores[20:]) == 0.5


def test_the_seed_decides_and_nothing_else() -> None:
    known, targets = (group(30, 1, shift=1, images=True), group(60, 2, images=True)), group(20, 3, images=True)
    first = QuantileRegression(seed=1, epochs=2).fit(*known).score(targets)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    with torch.inference_mode():
        second = QuantileRegression(seed=1, epochs=2).fit(*known).score(targets)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(first, second)
    assert (first != QuantileRegression(seed=2, epochs=2).fit(*known).score(targets)).any()


def test_it_is_collected_with_the_images() -> None:
    images = np.random.default_rng(0).integers(256, size=(5, 1, 4, 4), dtype=np.uint8)
    target = Target(lambda asked: np.asarray(asked, float).reshape(len(asked), 16)[:, :3])
    seen = QuantileRegression(seed=0).collect(target, images, [0, 1, 2, 0, 1])
    assert type(seen) is ImageOutputs
    np.testing.assert_array_equal(seen.images, images)
    np.testing.assert_array_equal(seen.take([3, 1]).images, images[[3, 1]])
    assert QuantileRegression(seed=0).query != "answers"
    p = ImageOutputs.from_probabilities([[0.5, 0.5]], [0], images[:1])
    np.testing.assert_allclose(p.probabilities, [[0.5, 0.5]])


def test_a_batch_of_one_is_no_batch() -> None:
    known = group(10, 1, images=True), group(81 + 1, 2, images=True)  # 66 - 1 to train on: 64 and a single one
    assert len(known[1]) - len(known[1]) // 5 == 66
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        QuantileRegression(seed=0, epochs=1).fit(*known)
    assert [len(batch) for batch in module._batches(torch.arange(65))] == [65]


def test_bad_input_is_refused_by_name() -> None:
    few = group(9, 1)
    for arguments, message in (
        ({"regression": "linear"}, "^regression: "),
        ({"network": "vgg99"}, "^network: "),
        ({"epochs": 0}, "^epochs: "),
        ({"alpha": 1.0}, "^alpha: "),
    ):
        with pytest.raises(ValueError, match=message):
            QuantileRegression(seed=0, **arguments)  # type: ignore[arg-type]
    attack = QuantileRegression(seed=0, epochs=1)
    with pytest.raises(ValueError, match=r"^nonmembers: .*expected 10 or more, got 9"):
        attack.fit(few, few)
    with pytest.raises(RuntimeError, match=r"^quantile regression: call fit"):
        attack.score(few)
    with pytest.raises(TypeError, match=r"^members: .*expects ImageOutputs, got Outputs"):
        attack.fit(Outputs(few.logits, few.labels), few)
    with pytest.raises(ValueError, match=r"^members: .*needs the true labels"):
        attack.fit(ImageOutputs(few.logits, None, few.images), few)
    with pytest.raises(ValueError, match=r"^images: expected \(2, C, H, W\) or \(2, features\), got \(1, 3\)"):
        ImageOutputs([[0.0, 1], [1, 0]], [0, 1], np.ones((1, 3)))
    with pytest.raises(ValueError, match=r"^images: expected finite"):
        ImageOutputs([[0.0, 1]], [0], np.full((1, 3), np.nan))
    with pytest.raises(ValueError, match=r"^outputs: expected images of shape \(2,\) as in fit"):
        attack.fit(group(20, 1), group(20, 2)).score(group(5, 3, images=True))
