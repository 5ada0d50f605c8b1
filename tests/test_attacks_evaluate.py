"""Evaluation, comparison in pairs, and pooling of repeats."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from test_attacks_scores import random_outputs

from diffence import metrics
from diffence.attacks import NN, Attack, Confidence, Correctness, Entropy, Loss, Outputs, compare, evaluate, pool
from diffence.attacks import standard_attacks as standard

FIGURES = ["balanced_accuracy", "auc", "balanced_accuracy_oracle", "tpr_at_fpr", "tnr_at_fnr"]
KNOWN = random_outputs(120, 1, right=4.0), random_outputs(100, 2, right=1.0)
TARGETS = random_outputs(180, 3, right=4.0), random_outputs(150, 4, right=1.0)


def fenced(outputs: Outputs) -> Outputs:
    """What a defense might answer: the same labels, less sure."""
    return Outputs(outputs.logits * 0.2, outputs.labels)


def test_every_figure_is_what_its_metric_says() -> None:
    attack = Loss()
    found = evaluate(attack, *KNOWN, *TARGETS, seed=7, resamples=100)
    scores = attack.score(TARGETS[0]), attack.score(TARGETS[1])
    assert list(found.metrics) == FIGURES
    for side in (0, 1):
        np.testing.assert_array_equal(found.scores[side], scores[side])
        np.testing.assert_array_equal(found.decisions[side], scores[side] >= attack.threshold_)
    assert attack.threshold_ == metrics.calibrate_threshold(attack.score(KNOWN[0]), attack.score(KNOWN[1]))
    assert found.metrics["balanced_accuracy"].value == pytest.approx(metrics.balanced_accuracy(*found.decisions))
    for name in FIGURES[1:]:
        assert found.metrics[name].value == getattr(metrics, name)(*scores)
    for name, estimate in found.metrics.items():
        assert estimate.n == 330
        if name in ("auc", "balanced_accuracy"):
            assert estimate.low < estimate.value < estimate.high
    assert found.metrics["balanced_accuracy_oracle"].value >= found.metrics["balanced_accuracy"].value
    assert (found.attack, found.seed, found.resamples) == ("loss", 7, 100)
    again = evaluate(Loss(), *KNOWN, *TARGETS, seed=7, resamples=100)
    assert again.metrics == found.metrics


def test_the_targets_have_no_say_in_the_threshold() -> None:
    one = evaluate(attack := Loss(), *KNOWN, *TARGETS, seed=0, resamples=2)
    threshold = attack.threshold_
    swapped = evaluate(attack, *KNOWN, TARGETS[1], TARGETS[0], seed=0, resamples=2)
    assert attack.threshold_ == threshold
    assert swapped.metrics["auc"].value == pytest.approx(1 - one.metrics["auc"].value)
    # The calibrated accuracy goes below one half with it, the oracle's cannot.
    assert swapped.metrics["balanced_accuracy"].value == pytest.approx(1 - one.metrics["balanced_accuracy"].value)
    assert swapped.metrics["balanced_accuracy_oracle"].value >= 0.5


def test_the_standard_set() -> None:
    attacks = standard(seed=3)
    names = ["correctness", "loss", "confidence", "entropy", "modified entropy", "nn"]
    assert [attack.name for attack in attacks] == names
    assert [attack.needs_labels for attack in attacks] == [True, True, True, False, True, True]
    assert not any(attack.sees_targets for attack in attacks)
    assert isinstance(attacks[-1], NN)
    assert attacks[-1].seed == 3
    assert attacks[-1].epochs == 200


@pytest.mark.parametrize("attack", standard(seed=0), ids=lambda attack: attack.name)
def test_constant_answers_tell_nothing(attack: Attack) -> None:
    same = Outputs(np.tile([1.0, 2.0, 0.5], (20, 1)), np.ones(20, int))
    if isinstance(attack, NN):
        attack.epochs = 2
    found = evaluate(attack, same, same, same, same, seed=0, resamples=10)
    assert found.metrics["auc"][:3] == (0.5, 0.5, 0.5)
    assert found.metrics["balanced_accuracy"][:3] == (0.5, 0.5, 0.5)
    assert found.metrics["balanced_accuracy_oracle"][:3] == (0.5, 0.5, 0.5)
    assert found.metrics["tpr_at_fpr"].value == 0
    assert found.metrics["tnr_at_fnr"].value == 0


def test_the_oracle_gets_the_targets_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def fit(self: Attack, *known: Outputs, targets: Any = None) -> Attack:
        given.append(targets)
        self.threshold_, self.network_ = 0.0, None  # type: ignore[attr-defined]
        return self

    monkeypatch.setattr(Attack, "fit", fit)
    monkeypatch.setattr(NN, "_score", lambda self, outputs: outputs.logits[:, 0])
    for selection in ("held-out", "last", "oracle"):
        evaluate(NN(seed=0, selection=selection), *KNOWN, *TARGETS, seed=0, resamples=2)  # type: ignore[arg-type]
    evaluate(Loss(), *KNOWN, *TARGETS, seed=0, resamples=2)
    assert given == [None, None, TARGETS, None]


# ---- pairs -------------------------------------------------------------------------------------------------------


def test_compare_is_defended_minus_undefended_in_pairs() -> None:
    before = evaluate(Loss(), *KNOWN, *TARGETS, seed=5, resamples=200)
    after = evaluate(Loss(), *map(fenced, KNOWN), *map(fenced, TARGETS), seed=9, resamples=50)
    change = compare(after, before)
    assert list(change) == [f"{name}_change" for name in FIGURES]
    for name in FIGURES:
        expected = after.metrics[name].value - before.metrics[name].value
        assert change[f"{name}_change"].value == pytest.approx(expected)
        assert change[f"{name}_change"].n == 330
    direct = metrics.paired_bootstrap(after.scores, before.scores, ("auc",), seed=5, resamples=200)
    assert change["auc_change"] == direct["auc"]
    mirrored = compare(before, dataclasses.replace(after, seed=5, resamples=200))["auc_change"]
    assert (mirrored.low, mirrored.high) == (pytest.approx(-direct["auc"].high), pytest.approx(-direct["auc"].low))
    for estimate in compare(before, before).values():
        assert estimate[:3] == (0.0, 0.0, 0.0)


def test_labels_kept_means_correctness_unchanged() -> None:
    before = evaluate(Correctness(), *KNOWN, *TARGETS, seed=5, resamples=50)
    after = evaluate(Correctness(), *map(fenced, KNOWN), *map(fenced, TARGETS), seed=5, resamples=50)
    assert compare(after, before)["auc_change"][:3] == (0.0, 0.0, 0.0)


def test_other_attacks_but_not_other_samples_can_be_compared() -> None:
    before = evaluate(Loss(), *KNOWN, *TARGETS, seed=5, resamples=20)
    other = evaluate(Entropy(), *map(fenced, KNOWN), *map(fenced, TARGETS), seed=5, resamples=20)
    assert compare(other, before)["auc_change"].value < 0
    fewer = Outputs(TARGETS[1].logits[:-1], TARGETS[1].true_labels[:-1])
    with pytest.raises(ValueError, match=r"^defended, undefended: expected the same target nonmembers .* 149 and 150"):
        compare(evaluate(Loss(), *KNOWN, TARGETS[0], fewer, seed=5, resamples=2), before)
    order = np.arange(180)[::-1]
    turned = Outputs(TARGETS[0].logits[order], TARGETS[0].true_labels[order])
    with pytest.raises(ValueError, match=r"^defended, undefended: the true labels of the target members differ"):
        compare(evaluate(Loss(), *KNOWN, turned, TARGETS[1], seed=5, resamples=2), before)
    with pytest.raises(ValueError, match=r"^defended, undefended: pooled in two ways"):
        compare(pool([before], across=True), before)


# ---- repeats -----------------------------------------------------------------------------------------------------


def repeat(number: int, size: int, attack: Attack) -> Any:
    """One small classifier, sure of itself in its own measure."""

    def own(outputs: Outputs) -> Outputs:
        return Outputs(outputs.logits * (0.1 + number), outputs.labels)

    groups = [
        random_outputs(size, 10 * number + place, right=right) for place, right in enumerate((4.0, 1.0, 4.0, 1.0))
    ]
    return evaluate(attack, *map(own, groups), seed=1, resamples=100)


def test_pool_compares_within_a_classifier() -> None:
    repeats = [repeat(number, 60 + 10 * number, Confidence()) for number in range(4)]
    pooled = pool(repeats)
    weights = [len(own.scores[0]) * len(own.scores[1]) for own in repeats]
    assert pooled.metrics["auc"].value == pytest.approx(
        np.average([own.metrics["auc"].value for own in repeats], weights=weights)
    )
    raw = [np.concatenate([own.scores[side] for own in repeats]) for side in (0, 1)]
    across = pool(repeats, across=True)
    assert across.metrics["auc"].value == metrics.auc(*raw)
    assert across.metrics["auc"].value < pooled.metrics["auc"].value - 0.02  # scales differ, and pooling them hides
    assert pooled.metrics["balanced_accuracy_oracle"].value == metrics.balanced_accuracy_oracle(*raw)
    # Each repeat's own threshold made the decisions.
    accuracies = [metrics.balanced_accuracy(*own.decisions) for own in repeats]
    assert pooled.metrics["balanced_accuracy"].value == pytest.approx(np.average(accuracies, weights=weights))
    assert pooled.metrics["auc"].n == 2 * (60 + 70 + 80 + 90)
    widths = [own.metrics["auc"].high - own.metrics["auc"].low for own in repeats]
    assert pooled.metrics["auc"].high - pooled.metrics["auc"].low < min(widths)
    np.testing.assert_array_equal(pooled.repeats[0], np.repeat(range(4), [60, 70, 80, 90]))


def test_pools_of_pools_and_pairs_of_pools() -> None:
    before = [repeat(number, 50, Loss()) for number in range(3)]
    nested = pool([pool(before[:2]), before[2]])
    assert nested.metrics == pool(before).metrics
    np.testing.assert_array_equal(nested.repeats[1], np.repeat(range(3), 50))
    after = [repeat(number, 50, Entropy()) for number in range(3)]
    change = compare(pool(after), pool(before))["auc_change"]
    expected = [own.metrics["auc"].value - other.metrics["auc"].value for own, other in zip(after, before, strict=True)]
    assert change.value == pytest.approx(np.mean(expected))
    with pytest.raises(ValueError, match=r"^defended, undefended: expected the same target members"):
        compare(pool(after), pool(before[:2]))


def test_pool_refuses() -> None:
    with pytest.raises(ValueError, match=r"^evaluations: expected at least one"):
        pool([])
    with pytest.raises(ValueError, match=r"^evaluations: expected one attack, got loss, entropy"):
        pool([repeat(0, 20, Loss()), repeat(1, 20, Entropy())])
