"""The scores of the metric attacks against printed vectors, and what Outputs and the protocol refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from diffence import metrics
from diffence.attacks import Attack, Confidence, Correctness, Entropy, Loss, ModifiedEntropy, Outputs
from diffence.attacks.base import FLOOR

P = [0.7, 0.2, 0.1]
METRIC_ATTACKS: list[type[Attack]] = [Correctness, Loss, Confidence, Entropy, ModifiedEntropy]
FORMULAS = [Loss(), Confidence(), Confidence(top=True), Entropy(), ModifiedEntropy()]


def random_outputs(n: int, seed: int, *, classes: int = 5, right: float = 0.0) -> Outputs:
    """`right` is added to the logit of the true label."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(0, 2, (n, classes))
    logits[np.arange(n), labels] += right
    return Outputs(logits, labels)


# ---- scores ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "y", "loss", "entropy", "modified"),
    [
        (P, 0, 0.3566749439, 0.8018185525, 0.1621672450),
        (P, 2, 2.3025850930, 0.8018185525, 2.9597362570),
        ([1.0, 0.0, 0.0], 1, 69.0775527898, 0.0, 138.1551055796),
        ([0.5, 0.5], 0, 0.6931471806, 0.6931471806, 0.6931471806),
    ],
)
def test_vectors_from_the_definitions(p: list[float], y: int, loss: float, entropy: float, modified: float) -> None:
    """attacks.md 9.3; scores are oriented to members, so the signs are turned."""
    outputs = Outputs.from_probabilities([p], [y])
    assert Loss().score(outputs)[0] == pytest.approx(-loss, abs=6e-11)
    assert Entropy().score(outputs)[0] == pytest.approx(-entropy, abs=6e-11)
    assert ModifiedEntropy().score(outputs)[0] == pytest.approx(-modified, abs=6e-11)
    assert Confidence().score(outputs)[0] == pytest.approx(p[y])
    assert Confidence(top=True).score(outputs)[0] == pytest.approx(max(p))
    assert Correctness().score(outputs)[0] == float(np.argmax(p) == y)


@pytest.mark.parametrize(
    ("outputs", "probability", "loss"),
    [
        (Outputs([[1.0, 2.0, -3.0]], [1]), 0.72747516, 0.31817543),
        (Outputs([[-1.0, 1.0, 0.0]], [2]), 0.24472847, 1.40760596),
        (Outputs.from_probabilities([[0.1, 0.85, 0.05]], [1]), 0.85, 0.16251893),
        (Outputs.from_probabilities([[0.1, 0.5, 0.4]], [2]), 0.4, 0.91629073),
    ],
)
def test_printed_statistics(outputs: Outputs, probability: float, loss: float) -> None:
    """attacks.md 9.2, printed by tensorflow/privacy."""
    assert Confidence().score(outputs)[0] == pytest.approx(probability, abs=6e-9)
    assert Loss().score(outputs)[0] == pytest.approx(-loss, abs=6e-9)


@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.sampled_from([0.1, 1.0, 5.0]))
@example(288790, 2, 5.0)
def test_plain_formulas(seed: int, classes: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(0, scale, (20, classes)), rng.integers(0, classes, 20)
    outputs = Outputs(logits, labels)
    e = np.exp(logits)
    p = e / e.sum(1, keepdims=True)
    q = np.stack([np.delete(e, c, axis=1).sum(1) for c in range(classes)], axis=1) / e.sum(1, keepdims=True)  # 1 - p
    rows = np.arange(20)
    np.testing.assert_allclose(Loss().score(outputs), np.log(p[rows, labels]), rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(Entropy().score(outputs), (p * np.log(p)).sum(1), rtol=1e-9, atol=1e-13)
    modified = (p * np.log(q)).sum(1) + (q * np.log(p) - p * np.log(q))[rows, labels]
    np.testing.assert_allclose(ModifiedEntropy().score(outputs), modified, rtol=1e-9, atol=1e-13)


def test_loss_and_confidence_have_the_same_curve() -> None:
    members, nonmembers = random_outputs(300, 1, right=3.0), random_outputs(200, 2)
    curves = [metrics.roc(attack.score(members), attack.score(nonmembers)) for attack in (Loss(), Confidence())]
    np.testing.assert_array_equal(curves[0].fpr, curves[1].fpr)
    np.testing.assert_array_equal(curves[0].tpr, curves[1].tpr)


def test_saturated_outputs_are_finite_and_ordered() -> None:
    """Right and wrong by a margin of 10, 50, 1000 and 1e30: nothing overflows, no worst outlier looks like a member."""
    margins = np.array([10.0, 50.0, 1000.0, 1e30])
    for attack in FORMULAS:
        right = attack.score(Outputs(np.outer(margins, [1, 0, 0]), np.zeros(4, int)))
        wrong = attack.score(Outputs(np.outer(margins, [1, 0, 0]), np.ones(4, int)))
        assert np.isfinite(right).all()
        assert np.isfinite(wrong).all()
        assert (np.diff(right) >= 0).all()
        if attack.needs_labels:
            assert (np.diff(wrong) <= 0).all()
            assert wrong.max() < right.min()
    assert Loss().score(Outputs([[1000.0, 0.0]], [1]))[0] == np.log(FLOOR)
    # p_y = 1 in float64 for both, and yet the surer one is ranked first.
    for attack in (Loss(), ModifiedEntropy()):
        sure, surer = attack.score(Outputs([[40.0, 0.0], [50.0, 0.0]], [0, 0]))
        assert sure < surer


@pytest.mark.parametrize("attack", FORMULAS, ids=lambda attack: attack.name)
def test_a_shift_of_all_logits_changes_nothing(attack: Attack) -> None:
    outputs = random_outputs(50, 1)
    shifted = Outputs(outputs.logits + 300.0, outputs.labels)
    np.testing.assert_allclose(attack.score(shifted), attack.score(outputs), rtol=1e-10, atol=1e-12)


# ---- polarity ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", METRIC_ATTACKS)
def test_polarity_on_a_separable_case(kind: type[Attack]) -> None:
    """Members right and sure, others wrong (or unsure): AUC 1, TPR 1, TNR 1; all the same: 0.5."""
    labels = np.arange(40) % 4
    sure = 9.0 * np.eye(4)[labels]
    members = Outputs(sure, labels)
    nonmembers = Outputs(0.3 * sure, (labels + 1) % 4)
    attack = kind().fit(members, nonmembers)
    scores = attack.score(members), attack.score(nonmembers)
    assert metrics.auc(*scores) == 1
    assert metrics.tpr_at_fpr(*scores) == 1
    assert metrics.tnr_at_fnr(*scores) == 1
    assert attack.predict(members).all()
    assert not attack.predict(nonmembers).any()
    assert attack.predict(members).dtype == np.bool_
    same = kind().fit(members, members)
    assert metrics.auc(same.score(members), same.score(members)) == 0.5


def test_correctness_is_the_gap_floor() -> None:
    members, nonmembers = random_outputs(300, 1, right=3.0), random_outputs(200, 2, right=1.0)
    attack = Correctness().fit(nonmembers, members)  # the known samples, even exchanged, have no say
    train, test = (float((own.predicted == own.labels).mean()) for own in (members, nonmembers))
    floor = metrics.gap_floor(train, test)
    assert metrics.auc(attack.score(members), attack.score(nonmembers)) == pytest.approx(floor)
    assert metrics.balanced_accuracy(attack.predict(members), attack.predict(nonmembers)) == pytest.approx(floor)
    assert attack.threshold_ == 1.0


# ---- thresholds --------------------------------------------------------------------------------------------------


def test_the_threshold_comes_from_the_known_samples() -> None:
    members, nonmembers = random_outputs(200, 3, right=3.0), random_outputs(150, 4, right=1.0)
    attack = Loss().fit(members, nonmembers)
    assert attack.threshold_ == metrics.calibrate_threshold(attack.score(members), attack.score(nonmembers))
    others = random_outputs(100, 5, right=2.0)
    np.testing.assert_array_equal(attack.predict(others), attack.score(others) >= attack.threshold_)


def test_a_threshold_for_each_class() -> None:
    members, nonmembers = random_outputs(200, 3, right=3.0), random_outputs(150, 4, right=1.0)
    attack = Entropy(per_class=True).fit(members, nonmembers)
    assert attack.name == "entropy per class"
    assert attack.needs_labels
    assert members.labels is not None
    assert nonmembers.labels is not None
    assert np.shape(attack.threshold_) == (5,)
    assert np.unique(attack.threshold_).size > 1
    np.testing.assert_array_equal(attack.known_[:, 0], np.bincount(members.labels))
    expected = np.array(
        [attack.score(members)[i] >= attack.threshold_[label] for i, label in enumerate(members.labels)]
    )
    np.testing.assert_array_equal(attack.predict(members), expected)
    with pytest.raises(ValueError, match=r"^outputs: entropy per class needs the true labels"):
        attack.score(Outputs(members.logits))


@pytest.mark.parametrize("attack", [Entropy(), Confidence(top=True)], ids=lambda attack: attack.name)
def test_attacks_without_labels(attack: Attack) -> None:
    assert not attack.needs_labels
    members, nonmembers = random_outputs(60, 6, right=4.0), random_outputs(60, 7)
    plain = [Outputs(own.logits) for own in (members, nonmembers)]
    attack.fit(*plain)
    np.testing.assert_array_equal(attack.score(plain[0]), attack.score(members))


# ---- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("logits", "labels", "error", "message"),
    [
        (np.zeros((0, 3)), None, ValueError, r"^logits: expected shape \(n >= 1, classes >= 2\), got \(0, 3\)"),
        (np.zeros((4, 1)), None, ValueError, r"^logits: .* got \(4, 1\)"),
        (np.zeros(3), None, ValueError, r"^logits: .* got \(3,\)"),
        ([[1.0, np.nan]], None, ValueError, "^logits: expected finite"),
        ([[1.0, np.inf]], None, ValueError, "^logits: expected finite"),
        ([[1.0, 2j]], None, TypeError, "^logits: expected real numbers"),
        ([["a", "b"]], None, TypeError, "^logits: expected real numbers"),
        (np.zeros((2, 3)), [0], ValueError, r"^labels: expected shape \(2,\), got \(1,\)"),
        (np.zeros((2, 3)), [[0], [1]], ValueError, r"^labels: expected shape \(2,\), got \(2, 1\)"),
        (np.zeros((2, 3)), [0, 3], ValueError, "^labels: expected classes 0 to 2, got 0 to 3"),
        (np.zeros((2, 3)), [-1, 0], ValueError, "^labels: expected classes 0 to 2, got -1 to 0"),
        (np.zeros((2, 3)), [0.0, 1.0], TypeError, "^labels: expected integers, got float64"),
    ],
)
def test_bad_outputs_are_refused_by_name(logits: Any, labels: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Outputs(logits, labels)


@pytest.mark.parametrize("rows", [[[0.5, 0.6]], [[1.2, -0.2]], [[5.0, -3.0]]])
def test_probabilities_are_said_not_guessed(rows: list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"^probabilities: expected probabilities"):
        Outputs.from_probabilities(rows)
    assert Outputs([[0.5, 0.5]], [0]).probabilities[0, 0] == 0.5  # logits stay logits, even where they sum to 1
    assert Outputs([[1.0, 0.0]], [0]).probabilities[0, 0] == pytest.approx(0.7310585786)


def test_torch_tensors_and_strided_arrays_are_taken() -> None:
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    outputs = Outputs(logits, labels)
    assert outputs.logits.dtype == np.float64
    np.testing.assert_array_equal(outputs.logits, logits.detach().double().numpy())
    np.testing.assert_array_equal(outputs.labels, labels.numpy())
    half = Outputs(logits.bfloat16(), labels)
    np.testing.assert_array_equal(half.logits, logits.detach().bfloat16().double().numpy())
    every_second = np.arange(24.0).reshape(6, 4)[::2, ::2]
    np.testing.assert_array_equal(Outputs(every_second).logits, every_second)


def test_outputs_keep_their_own_copy() -> None:
    logits: NDArray[np.float64] = np.zeros((2, 2))
    outputs = Outputs(logits)
    logits[0, 0] = np.nan
    assert np.isfinite(outputs.logits).all()


@pytest.mark.parametrize("attack", [Correctness(), Loss(), Confidence(), ModifiedEntropy()], ids=lambda own: own.name)
def test_missing_labels_are_refused_by_name(attack: Attack) -> None:
    known = random_outputs(20, 8)
    with pytest.raises(ValueError, match=r"^members: .* needs the true labels"):
        attack.fit(Outputs(known.logits), known)
    with pytest.raises(ValueError, match=r"^nonmembers: .* needs the true labels"):
        attack.fit(known, Outputs(known.logits))
    with pytest.raises(ValueError, match=r"^outputs: .* needs the true labels"):
        attack.score(Outputs(known.logits))


def test_the_protocol_refuses() -> None:
    known, other = random_outputs(20, 8), random_outputs(20, 9, classes=7)
    with pytest.raises(RuntimeError, match=r"^loss: call fit"):
        Loss().predict(known)
    with pytest.raises(ValueError, match=r"^nonmembers: expected logits of 5 classes, got 7"):
        Loss().fit(known, other)
    attack = Loss().fit(known, known)
    with pytest.raises(ValueError, match=r"^outputs: expected logits of 5 classes, got 7"):
        attack.score(other)
    attack.fit(other, other).score(other)  # a new fit forgets the old one
    with pytest.raises(TypeError, match=r"^members: loss expects Outputs, got ndarray"):
        Loss().fit(known.logits, known)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^targets: loss must not see the evaluated samples"):
        Loss().fit(known, known, targets=(known, known))


def test_an_attack_may_require_more() -> None:
    """How later attacks fit in: a richer observation, the same protocol."""

    class Repeated(Outputs):
        def __init__(self, answers: NDArray[np.float64], labels: NDArray[np.int64]) -> None:
            super().__init__(answers.mean(axis=1), labels)
            object.__setattr__(self, "spread", answers.std(axis=1).mean(axis=1))

    class Steadiness(Attack):
        name = "steadiness"
        needs_labels = False
        requires = Repeated

        def _score(self, outputs: Outputs) -> NDArray[np.float64]:
            return -outputs.spread  # type: ignore[attr-defined, no-any-return]

    rng = np.random.default_rng(0)
    labels = np.zeros(30, dtype=int)
    members, nonmembers = (Repeated(rng.normal(0, scale, (30, 8, 3)), labels) for scale in (1.0, 5.0))
    attack = Steadiness().fit(members, nonmembers)
    assert metrics.auc(attack.score(members), attack.score(nonmembers)) == 1
    with pytest.raises(TypeError, match=r"^outputs: steadiness expects Repeated, got Outputs"):
        attack.score(random_outputs(5, 0, classes=3))


def test_take_keeps_rows_together_and_refuses_to_take_nothing() -> None:
    outputs = random_outputs(10, 1)
    part = outputs.take([3, 1])
    np.testing.assert_array_equal(part.logits, outputs.logits[[3, 1]])
    np.testing.assert_array_equal(part.true_labels, outputs.true_labels[[3, 1]])
    assert len(outputs.take(np.arange(10) < 4)) == 4
    with pytest.raises(ValueError, match="index: expected at least one"):
        outputs.take(np.zeros(10, bool))
