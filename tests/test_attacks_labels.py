"""Label-only attacks: augmentation, noise and the decision boundary see labels and nothing else."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from diffence import metrics
from diffence.attacks import (
    Attack,
    Augmentation,
    Boundary,
    BoundaryDistances,
    Correctness,
    LabelOutputs,
    Loss,
    NoiseRobustness,
    NoiseShares,
    Outputs,
    Target,
    VariantLabels,
)
from diffence.attacks.boundary import _normal

SHAPE = (1, 8, 8)


def refuse(images: Any) -> Any:
    raise AssertionError("asked for logits")


class Counting:
    """A linear classifier of 2 classes on float or uint8 images that counts what it is asked."""

    def __init__(self, weights: NDArray[np.float64], bias: float) -> None:
        self.weights, self.bias, self.images, self.largest = weights, bias, 0, 0

    def margin(self, images: Any) -> NDArray[np.float64]:
        values = images / 255.0 if images.dtype == np.uint8 else images.astype(np.float64)
        return np.asarray(values.reshape(len(values), -1) @ self.weights + self.bias)

    def __call__(self, images: Any) -> NDArray[np.int64]:
        self.images += len(images)
        self.largest = max(self.largest, len(images))
        return (self.margin(images) > 0).astype(np.int64)

    @property
    def target(self) -> Target:
        return Target(refuse, ask_labels=self)


def linear(shape: tuple[int, ...], n: int) -> tuple[Counting, NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=int(np.prod(shape)))
    weights /= np.linalg.norm(weights)
    images = rng.uniform(0.3, 0.7, (n, *shape)).astype(np.float32)
    model = Counting(weights, 0.0)
    model.bias = -float(np.median(model.margin(images)))
    return model, images, (model.margin(images) > 0).astype(np.int64)


# ---- outputs -----------------------------------------------------------------------------------------------------


def test_label_outputs_hold_the_shown_label_and_no_score() -> None:
    outputs = LabelOutputs([2, 0, 1], [2, 1, 1])
    np.testing.assert_array_equal(outputs.predicted, [2, 0, 1])
    assert set(np.unique(outputs.logits)) == {0.0, 1.0}
    assert outputs.classes == 3
    assert LabelOutputs([0, 0]).classes == 2
    assert LabelOutputs([0, 0], classes=7).classes == 7
    np.testing.assert_array_equal(Correctness().score(outputs), [1, 0, 1])
    assert len(np.unique(Loss().score(outputs))) == 2  # right and wrong, no more
    part = VariantLabels([[1, 0], [2, 2]], [1, 0]).take([1])
    assert isinstance(part, VariantLabels)
    assert part.variants.tolist() == [[2, 2]]
    assert part.bits.tolist() == [[False, False]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LabelOutputs([[0, 1]]), r"^shown: expected shape \(n >= 1,\)"),
        (lambda: LabelOutputs([]), r"^shown: expected shape"),
        (lambda: LabelOutputs([0.5]), r"^shown: expected integers"),
        (lambda: LabelOutputs([-1]), r"expected classes from 0, got -1"),
        (lambda: LabelOutputs([0], [-2]), r"expected classes from 0, got -2"),
        (lambda: LabelOutputs([0, 3], classes=3), r"^shown: expected classes 0 to 2"),
        (lambda: LabelOutputs([0, 1], [0]), r"^labels: expected shape \(2,\)"),
        (lambda: VariantLabels([0, 1]), r"^variants: expected shape"),
        (lambda: VariantLabels([[0.0, np.nan]]), r"^variants: expected integers"),
        (lambda: VariantLabels([[0, -1]]), r"^variants: expected classes from 0"),
        (lambda: NoiseShares([0, 1], [0.5, 1.0]), r"^shares: expected shape \(2, levels >= 1\)"),
        (lambda: NoiseShares([0, 1], [[0.5], [np.nan]]), r"^shares: expected numbers from 0 to 1"),
        (lambda: BoundaryDistances([0, 1], [0.5]), r"^distances: expected shape \(2,\)"),
        (lambda: BoundaryDistances([0, 1], [0.5, np.nan]), r"^distances: expected numbers from 0"),
        (lambda: BoundaryDistances([0, 1], [0.5, -1]), r"^distances: expected numbers from 0"),
    ],
)
def test_bad_arrays_are_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make()


# ---- polarity: one table for all of them ---------------------------------------------------------------------------


def separable(attack: Attack, member: bool, n: int = 30) -> Outputs:
    """Members keep their label wherever they are moved, non-members lose it at once."""
    labels = np.arange(n) % 3
    shown = labels if member else (labels + 1) % 3
    if isinstance(attack, Augmentation):
        return VariantLabels(np.repeat(shown[:, None], len(attack.changes), axis=1), labels)
    if isinstance(attack, NoiseRobustness):
        return NoiseShares(shown, np.full((n, len(attack.levels)), float(member)), labels)
    return BoundaryDistances(shown, np.full(n, float(member)), labels)


LABEL_ATTACKS: list[Any] = [
    Augmentation(),
    Augmentation(combine="logistic"),
    Augmentation("rotations"),
    Augmentation("rotations", d=2, combine="logistic"),
    NoiseRobustness(),
    NoiseRobustness(sigma=(0.1, 0.3)),
    Boundary(),
]


@pytest.mark.parametrize("attack", LABEL_ATTACKS, ids=lambda attack: attack.name)
def test_polarity_and_constants(attack: Attack) -> None:
    members, nonmembers = separable(attack, True), separable(attack, False)
    attack.fit(members, nonmembers)
    scores = attack.score(members), attack.score(nonmembers)
    assert metrics.auc(*scores) == 1
    assert metrics.tpr_at_fpr(*scores) == 1
    assert attack.predict(members).all()
    assert not attack.predict(nonmembers).any()
    assert attack.family == "label-only"
    assert attack.needs_labels
    assert attack.score(members.take([3])).shape == (1,)
    one = type(attack.fit(members.take([0]), nonmembers.take([0])))
    assert one is type(attack)
    for member in (True, False):
        same = separable(attack, member)
        attack.fit(same, same)
        assert metrics.auc(attack.score(same), attack.score(same)) == 0.5
        assert len(np.unique(attack.score(same))) == 1


@pytest.mark.parametrize("attack", LABEL_ATTACKS, ids=lambda attack: attack.name)
def test_what_does_not_fit_is_refused(attack: Attack) -> None:
    members = separable(attack, True)
    with pytest.raises(TypeError, match=r"^members: .* expects .*, got Outputs"):
        attack.fit(Outputs(members.logits, members.labels), members)
    unlabelled = members.take(np.arange(len(members)))
    object.__setattr__(unlabelled, "labels", None)
    with pytest.raises(ValueError, match=r"^members: .* needs the true labels"):
        attack.fit(unlabelled, members)
    if not isinstance(attack, Boundary):
        other = Augmentation(d=3) if isinstance(attack, Augmentation) else NoiseRobustness(sigma=(0.1, 0.2, 0.3))
        with pytest.raises(ValueError, match=r"^members: .*expect"):
            attack.fit(separable(other, True), members)


def test_groups_may_show_different_classes() -> None:
    """Which classes occur says nothing about the model, so it must not matter."""
    attack = Augmentation()
    queries = len(attack.changes)
    few, many = (VariantLabels(np.full((4, queries), shown), np.full(4, shown)) for shown in (0, 5))
    assert attack.fit(few, many).score(few).tolist() == [queries] * 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Augmentation("shears"), r"^kind: expected one of"),  # type: ignore[arg-type]
        (lambda: Augmentation(padding="mirror"), r"^padding: expected one of"),  # type: ignore[arg-type]
        (lambda: Augmentation(combine="net"), r"^combine: expected one of"),  # type: ignore[arg-type]
        (lambda: Augmentation(d=0), r"^d: expected a whole number of at least 1, got 0"),
        (lambda: NoiseRobustness(sigma=0.0), r"^sigma: expected a positive number"),
        (lambda: NoiseRobustness(sigma=()), r"^sigma: expected"),
        (lambda: NoiseRobustness(sigma=(0.1, float("nan"))), r"^sigma: expected"),
        (lambda: NoiseRobustness(draws=0), r"^draws: "),
        (lambda: NoiseRobustness(seed=-1), r"^seed: "),
        (lambda: Boundary(iterations=-1), r"^iterations: "),
        (lambda: Boundary(evaluations=0), r"^evaluations: "),
        (lambda: Boundary(starts=0), r"^starts: "),
        (lambda: Boundary(budget=50).most_queries(64), r"^budget: the start alone takes up to 110 queries, got 50"),
    ],
)
def test_bad_options_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# ---- augmentation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 3])
def test_translations_are_4d_plus_1(d: int) -> None:
    changes = Augmentation(d=d).changes
    assert changes[0] == (0, 0)
    assert len(set(changes)) == len(changes) == 4 * d + 1
    assert all(abs(down) + abs(right) == d for down, right in changes[1:])  # type: ignore[misc]


def test_rotations_are_2d_plus_1_degrees() -> None:
    assert Augmentation("rotations", d=3).changes == [0, -3, -2, -1, 1, 2, 3]
    assert len(Augmentation("rotations").changes) == 9


@pytest.mark.parametrize("kind", ["translations", "rotations"])
def test_bits_are_the_labels_of_the_copies(kind: Any) -> None:
    model, images, truth = linear(SHAPE, 20)
    levels = np.rint(images * 255).astype(np.uint8)
    attack = Augmentation(kind, d=2)
    outputs = attack.collect(model.target, levels, truth)
    assert model.images == 20 * len(attack.changes)
    np.testing.assert_array_equal(outputs.predicted, model(levels))
    np.testing.assert_array_equal(outputs.variants[:, 0], model(levels))
    if kind == "translations":
        moved = np.zeros_like(levels)
        moved[:, :, 2:] = levels[:, :, :-2]
        np.testing.assert_array_equal(outputs.variants[:, attack.changes.index((2, 0))], model(moved))
    assert 0.3 < outputs.bits.mean() < 1
    np.testing.assert_array_equal(attack.score(outputs), outputs.bits.sum(axis=1))
    assert attack.query == Augmentation(kind, d=2, combine="logistic").query != Augmentation(kind, d=1).query


def test_a_regression_on_bits_learns_which_ones_count() -> None:
    """Members differ in one bit only, and in the direction that the sum does not know."""
    rng = np.random.default_rng(0)
    bits = rng.random((2, 400, 5)) < 0.5
    bits[0, :, 3] = rng.random(400) < 0.1
    bits[1, :, 3] = rng.random(400) < 0.9
    members, nonmembers = (VariantLabels(own.astype(int), np.ones(400, int), 2) for own in bits)
    logistic, total = Augmentation(combine="logistic"), Augmentation()
    for attack in (logistic, total):
        attack.fit(members, nonmembers)
    assert metrics.auc(logistic.score(members), logistic.score(nonmembers)) > 0.85
    assert metrics.auc(total.score(members), total.score(nonmembers)) < 0.5
    with pytest.raises(RuntimeError, match=r"^translations \(logistic\): call fit"):
        Augmentation(combine="logistic").score(members)


# ---- noise ---------------------------------------------------------------------------------------------------------


def test_shares_are_those_of_the_normal_law() -> None:
    """On a linear classifier the label survives with probability Phi(margin / sigma)."""
    from scipy.stats import norm

    model, images, truth = linear(SHAPE, 8)
    attack = NoiseRobustness(sigma=(0.05, 0.1), draws=2000)
    outputs = attack.collect(model.target, images, truth)
    assert model.images == 8 * (1 + 2 * 2000)
    expected = norm.cdf(np.abs(model.margin(images))[:, None] / np.array([0.05, 0.1]))
    error = 4 * np.sqrt(expected * (1 - expected) / 2000) + 1e-3
    assert (np.abs(outputs.shares - expected) < error).all()
    assert expected.min() < 0.9
    np.testing.assert_allclose(attack.score(outputs), outputs.shares.mean(axis=1))


@pytest.mark.parametrize("levels", [False, True])
def test_noise_depends_on_seed_and_content_alone(levels: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images, truth = linear(SHAPE, 9)
    if levels:
        images = np.rint(images * 255).astype(np.uint8)  # type: ignore[assignment]
    attack = NoiseRobustness(seed=1, sigma=(0.1, 0.2), draws=7)
    whole = attack.collect(model.target, images, truth).shares
    order = np.array([4, 0, 8])
    np.testing.assert_array_equal(attack.collect(model.target, images[order], truth[order]).shares, whole[order])
    monkeypatch.setattr("diffence.attacks.noise.WINDOW", 2)
    np.testing.assert_array_equal(attack.collect(model.target, images, truth).shares, whole)
    alone = NoiseRobustness(seed=1, sigma=0.2, draws=7).collect(model.target, images, truth).shares
    np.testing.assert_array_equal(alone[:, 0], whole[:, 1])  # a level's share knows nothing of the other levels
    assert not np.array_equal(
        NoiseRobustness(seed=2, sigma=(0.1, 0.2), draws=7).collect(model.target, images, truth).shares, whole
    )
    with pytest.raises(ValueError, match=r"^labels: the true labels are needed"):
        attack.collect(model.target, images)


def test_what_is_asked_keeps_dtype_and_range() -> None:
    seen = []

    def labels(images: Any) -> Any:
        seen.append((images.dtype, float(images.min()), float(images.max())))
        return np.zeros(len(images), np.int64)

    for dtype, top in ((np.uint8, 255), (np.float32, 1), (np.float64, 1)):
        seen.clear()
        images = (np.random.default_rng(0).random((3, *SHAPE)) * top).astype(dtype)
        target = Target(refuse, ask_labels=labels)
        for attack in (NoiseRobustness(draws=3, sigma=0.5), Augmentation(), Augmentation("rotations", d=1)):
            attack.collect(target, images, np.zeros(3, np.int64))
        assert all(own == dtype and low >= 0 and high <= top for own, low, high in seen)


# ---- the decision boundary -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [False, True])
def test_the_distance_to_a_plane_is_found(levels: bool) -> None:
    model, images, truth = linear(SHAPE, 12)
    given: Any = images
    if levels:
        given = np.rint(images * 255).astype(np.uint8)
        truth = model(given)
    true = np.abs(model.margin(given))
    wrong = np.array([1, 5])
    asked_labels = truth.copy()
    asked_labels[wrong] = 1 - truth[wrong]
    model.images = 0
    attack = Boundary(seed=0, iterations=20, batch=500)
    outputs = attack.collect(model.target, given, asked_labels)
    right = np.setdiff1d(np.arange(12), wrong)
    assert (outputs.distances[wrong] == 0).all()
    ratio = outputs.distances[right] / true[right]
    assert ratio.min() >= 1 - 1e-5  # an upper bound, but for the rounding of float32
    assert ratio.max() < 1.03
    # What is documented is what was asked: in all, for each image, and never more at once than the batch.
    assert outputs.queries is not None
    assert outputs.queries.sum() == model.images
    assert (outputs.queries[wrong] == 1 + levels).all()
    assert outputs.queries.max() <= attack.most_queries(64) + levels
    assert model.largest <= 500
    np.testing.assert_array_equal(attack.score(outputs), outputs.distances)


def test_more_iterations_come_nearer_and_never_go_back() -> None:
    model, images, truth = linear((3, 6, 6), 6)
    for evaluations, steps in (
        (100, (0, 1, 4, 12)),
        (1, range(7)),
    ):  # one direction alone often leads away
        found = [
            Boundary(iterations=iterations, evaluations=evaluations).collect(model.target, images, truth).distances
            for iterations in steps
        ]
        for farther, nearer in itertools.pairwise(found):
            assert (nearer <= farther).all()
            assert nearer.mean() < farther.mean() or evaluations == 1


def test_the_normal_is_the_papers_estimate() -> None:
    """Directions by their sign less the mean sign; all alike where the signs are (equation 16)."""
    np.testing.assert_allclose(_normal(np.array([1.0, 1.0, -1.0]), np.eye(3)), np.array([1, 1, -2]) / 6**0.5)
    np.testing.assert_allclose(_normal(-np.ones(3), np.eye(3)), -np.ones(3) / 3**0.5)
    assert (_normal(np.ones(2), np.zeros((2, 3))) == 0).all()


def test_most_queries_is_the_documented_sum() -> None:
    bisections = 9  # ceil(1.5 log2(64))
    expected = 1 + 100 + bisections + sum(int(100 * t**0.5) + 17 + bisections for t in range(1, 11))
    assert Boundary().most_queries(64) == expected
    for budget in (expected, expected - 1, 400):
        attack = Boundary(budget=budget)
        assert attack.most_queries(64) <= budget
    assert Boundary(budget=expected).most_queries(64) == expected
    model, images, truth = linear(SHAPE, 4)
    outputs = Boundary(budget=400).collect(model.target, images, truth)
    assert outputs.queries is not None
    assert 100 < outputs.queries.max() <= 400


def test_company_changes_no_distance_and_the_seed_does() -> None:
    model, images, truth = linear(SHAPE, 7)
    attack = Boundary(seed=3, iterations=3)
    whole = attack.collect(model.target, images, truth)
    order = np.array([6, 2])
    part = Boundary(seed=3, iterations=3, batch=64).collect(model.target, images[order], truth[order])
    np.testing.assert_array_equal(part.distances, whole.distances[order])
    assert whole.queries is not None
    np.testing.assert_array_equal(part.queries, whole.queries[order])
    assert not np.array_equal(
        Boundary(seed=4, iterations=3).collect(model.target, images, truth).distances, whole.distances
    )


def test_a_label_that_never_changes_is_the_farthest() -> None:
    target = Target(refuse, ask_labels=lambda images: np.zeros(len(images), np.int64))
    outputs = Boundary(iterations=2, starts=5).collect(target, np.zeros((2, *SHAPE), np.float32), [0, 1])
    assert outputs.distances.tolist() == [8.0, 0.0]  # the diagonal of a cube of 64 dimensions
    assert outputs.queries is not None
    assert outputs.queries.tolist() == [6, 1]


def test_a_trained_network_has_its_members_farther_inside() -> None:
    """Random labels learned by heart: members are right and away from the boundary, others are at chance."""
    rng = np.random.default_rng(0)
    images = rng.random((80, 1, 4, 4)).astype(np.float32)
    labels = rng.integers(0, 3, 80)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 3))
        optimizer = torch.optim.Adam(net.parameters(), 0.01)
        for _ in range(300):
            loss = nn.functional.cross_entropy(net(torch.from_numpy(images[:40])), torch.from_numpy(labels[:40]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    net.eval()

    def ask(own: Any) -> torch.Tensor:
        with torch.no_grad():
            return net(torch.from_numpy(np.asarray(own))).argmax(1)

    outputs = Boundary(iterations=4, evaluations=40).collect(Target(refuse, ask_labels=ask), images, labels)
    scores = outputs.distances[:40], outputs.distances[40:]
    assert metrics.auc(*scores) > 0.7
    floor = metrics.auc(*(Correctness().score(outputs.take(part)) for part in (np.arange(40), np.arange(40, 80))))
    assert metrics.auc(*scores) > floor - 0.02
    # The gradient of the true network says how far the boundary is to first order; the search must come near that.
    points = torch.from_numpy(images[:40]).requires_grad_()
    logits = net(points)
    top = logits.topk(2, dim=1).values
    margin = top[:, 0] - top[:, 1]
    slope = torch.autograd.grad(margin.sum(), points)[0].flatten(1).norm(dim=1)
    linearised = (margin / slope).detach().numpy()
    assert 0.7 < np.median(scores[0] / linearised) < 1.5


def test_a_target_that_takes_uint8_only_is_told_apart() -> None:
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (20, *SHAPE), dtype=np.uint8)
    target = Target(refuse, ask_labels=lambda images: (images.reshape(len(images), -1).mean(1) > 127).astype(int))
    with pytest.raises(ValueError, match=r"^target: shows other labels .* needs a target that takes both"):
        Boundary(iterations=1).collect(target, levels, target.labels(levels))
    with pytest.raises(ValueError, match=r"^labels: the true labels are needed"):
        Boundary().collect(target, levels)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(1, 3), st.integers(0, 4))
def test_any_size_of_image_and_set(n: int, side: int, iterations: int) -> None:
    model, images, truth = linear((1, side, side), n)
    outputs = Boundary(iterations=iterations, evaluations=7, starts=9).collect(model.target, images, truth)
    assert np.isfinite(outputs.distances).all()
    assert outputs.distances.shape == (n,)
