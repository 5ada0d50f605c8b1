"""Adaptive attacks against a real fence and against targets whose best attack is known in closed form."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm
from test_fence import SHAPE, make_classifier, make_diffusion

from diffence import Diffence, metrics
from diffence.attacks import (
    AnswerOutputs,
    Attack,
    Augmentation,
    Boundary,
    FallbackDetection,
    NearDuplicates,
    NoiseRobustness,
    Outputs,
    RepeatQueries,
    Target,
    TimedOutputs,
    Timing,
)
from diffence.attacks.answers import answer_features
from diffence.attacks.logistic import Logistic

KS = (1, 4, 16, 64)


@pytest.fixture(scope="module")
def fence() -> Diffence:
    return Diffence(make_classifier(), make_diffusion(), n=4, T=60, key=7, scenario=3, threads=1)


@pytest.fixture(scope="module")
def levels() -> NDArray[np.uint8]:
    return np.random.default_rng(2).integers(0, 256, (24, *SHAPE), dtype=np.uint8)


def behind(fence: Diffence) -> Target:
    """What a client sees, the fence's own labels included."""

    def rekeyed() -> Target:
        keys[0] += 1
        return Target(fence.rekeyed(keys[0]), rekey=rekeyed)

    keys = [1000]
    return Target(fence, rekey=rekeyed)


def bare(fence: Diffence) -> Target:
    def refuse(images: Any) -> Any:
        raise AssertionError("asked for logits")

    return Target(refuse, ask_labels=lambda images: fence.classify(images).argmax(1))


# ---- labels: with the fence and without it -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attack",
    [
        Augmentation(d=2),
        Augmentation("rotations", d=3),
        NoiseRobustness(sigma=(0.1, 0.3), draws=5),
        Boundary(iterations=1, evaluations=10, starts=10),
    ],
    ids=lambda attack: attack.name,
)
def test_label_only_attacks_see_the_undefended_model(
    fence: Diffence, levels: NDArray[np.uint8], attack: Attack
) -> None:
    """Every number that they collect through the fence is the one that they collect without it."""
    count = 4 if isinstance(attack, Boundary) else len(levels)
    images = levels[:count]
    labels = fence.classify(images).argmax(1).numpy().astype(np.int64)
    labels[0] = (labels[0] + 1) % 4
    through, without = (attack.collect(target, images, labels) for target in (behind(fence), bare(fence)))
    arrays = {name: own for name, own in vars(through).items() if isinstance(own, np.ndarray)}
    assert len(arrays) >= 3
    for name, own in arrays.items():
        np.testing.assert_array_equal(own, getattr(without, name), err_msg=name)
    assert np.unique(attack.score(through)).size > 1


def test_labels_of_near_duplicates_are_the_classifiers(fence: Diffence, levels: NDArray[np.uint8]) -> None:
    attack = NearDuplicates(k=4, flip=True)
    shown = attack.collect(behind(fence), levels).answers.argmax(2)
    unprotected = attack.collect(Target(fence.classify), levels).answers.argmax(2)
    np.testing.assert_array_equal(shown, unprotected)
    assert (shown != shown[:, :1]).any()  # the flips change some labels, of both alike


# ---- repeats -------------------------------------------------------------------------------------------------------


def test_a_keyed_fence_answers_equally_however_often_it_is_asked(fence: Diffence, levels: NDArray[np.uint8]) -> None:
    labels = fence.classify(levels).argmax(1).numpy()
    ladder = RepeatQueries.ladder(KS)
    assert len({attack.query for attack in ladder}) == 1
    fence.reset_counts()
    outputs = ladder[0].collect(behind(fence), levels, labels)
    assert fence.counts["images"] == 3 * len(levels)
    assert outputs.answers.shape == (24, 64, 4)
    scores = []
    for attack in ladder:
        attack.fit(outputs.take(np.arange(6)), outputs.take(np.arange(12, 18)))
        scores.append([attack.score(outputs.take(part)) for part in (np.arange(6, 12), np.arange(18, 24))])
    for own in scores[1:]:
        np.testing.assert_array_equal(own, scores[0])
        assert metrics.auc(*own) == metrics.auc(*scores[0])
    every = RepeatQueries(k=5, stop_when_equal=False)
    fence.reset_counts()
    assert (every.collect(behind(fence), levels, labels).answers == outputs.answers[:, :5]).all()
    assert fence.counts["images"] == 5 * len(levels)


def test_fresh_repeats_ask_with_new_noise_each_time(fence: Diffence, levels: NDArray[np.uint8]) -> None:
    outputs = RepeatQueries(k=4, fresh=True).collect(behind(fence), levels[:8])
    np.testing.assert_array_equal(outputs.logits, fence(levels[:8]).numpy())
    for i in range(4):
        for j in range(i):
            assert not np.array_equal(outputs.answers[:, i], outputs.answers[:, j])
    with pytest.raises(ValueError, match=r"^target: .*no secret noise"):
        RepeatQueries(k=2, fresh=True).collect(Target(fence), levels[:1])


class Gaussian:
    """phi = d'_1 for members + a part that belongs to the image + a part that is drawn anew, of variance rho.

    The image's number stands in its first three pixels, in steps of 4 levels: a change by one level keeps it.
    """

    def __init__(self, n: int, separation: float, rho: float, keyed: bool) -> None:
        self.member = np.repeat([1, 0], n)
        own = np.random.default_rng(5).normal(0, np.sqrt(1 - rho), 2 * n)
        self.signal = 10 + separation * self.member + own
        self.rho, self.keyed, self.asked = rho, keyed, 0
        self.images = np.full((2 * n, 1, 1, 8), 100, np.uint8)
        for place in range(3):
            self.images[:, 0, 0, place] = 4 * ((np.arange(2 * n) >> (6 * place)) % 64) + 2

    def __call__(self, images: Any) -> NDArray[np.float64]:
        digits = images[:, 0, 0, :3].astype(np.int64) // 4
        number = digits @ np.array([1, 64, 4096])
        if self.keyed:
            seeds = [hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images]
            uniform = np.array([int.from_bytes(seed, "little") + 0.5 for seed in seeds]) / 2.0**64
        else:
            self.asked += 1
            uniform = np.random.default_rng(self.asked).random(len(images))
        phi = self.signal[number] + np.sqrt(self.rho) * norm.ppf(uniform)
        return np.column_stack([np.zeros(len(phi)), phi])


def auc_of(attack: Attack, outputs: Outputs, member: NDArray[np.int64]) -> float:
    """Fitted on every second sample, evaluated on the others."""
    parts = [[np.flatnonzero(member == side)[half::2] for side in (1, 0)] for half in (0, 1)]
    attack.fit(*(outputs.take(part) for part in parts[0]))
    return metrics.auc(*(attack.score(outputs.take(part)) for part in parts[1]))


def expected_auc(separation: float, rho: float, answers: int) -> float:
    return float(norm.cdf(separation / np.sqrt(1 - rho + rho / answers) / np.sqrt(2)))


def test_repeats_gain_what_the_gaussian_model_says() -> None:
    separation, rho = np.sqrt(2) * norm.ppf(0.6912), 0.6
    model = Gaussian(6000, separation, rho, keyed=False)
    ladder = RepeatQueries.ladder(KS)
    outputs = ladder[-1].collect(Target(model), model.images, np.ones(12000, np.int64))
    assert model.asked == 64  # answers that differ are asked to the end
    found = [auc_of(attack, outputs, model.member) for attack in ladder]
    expected = [expected_auc(separation, rho, k) for k in KS]
    np.testing.assert_allclose(expected, [0.691, 0.750, 0.775, 0.782], atol=6e-4)  # the table of the model
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert found == sorted(found)
    free = RepeatQueries(k=64, label_free=True)
    assert not free.needs_labels
    assert auc_of(free, AnswerOutputs(outputs.answers), model.member) == pytest.approx(expected[-1], abs=0.02)


def test_near_duplicates_undo_noise_that_the_content_keys() -> None:
    separation, rho = np.sqrt(2) * norm.ppf(0.6912), 0.6
    model = Gaussian(800, separation, rho, keyed=True)
    labels = np.ones(1600, np.int64)
    repeats = RepeatQueries.ladder((1, 16))
    same = repeats[0].collect(Target(model), model.images, labels)
    assert len({auc_of(attack, same, model.member) for attack in repeats}) == 1
    ladder = NearDuplicates.ladder((1, 3, 15))
    outputs = ladder[0].collect(Target(model), model.images, labels)
    assert outputs.answers.shape == (1600, 16, 2)
    found = [auc_of(attack, outputs, model.member) for attack in ladder]
    for auc, answers in zip(found, (2, 4, 16), strict=True):
        assert auc == pytest.approx(expected_auc(separation, rho, answers), abs=0.05)
        mean = outputs.phi(answers).mean(axis=1)  # the best that can be done with so many answers
        best = metrics.auc(*(mean[np.flatnonzero(model.member == side)[1::2]] for side in (1, 0)))
        assert auc == pytest.approx(best, abs=0.015)
    assert auc_of(repeats[0], same, model.member) < found[0] < found[1] < found[2]


def test_near_duplicates_draw_new_noise_from_a_real_fence(fence: Diffence, levels: NDArray[np.uint8]) -> None:
    copies = NearDuplicates(k=3).collect(behind(fence), levels).answers
    np.testing.assert_array_equal(copies[:, 0], fence(levels).numpy())
    spread = np.abs(copies[:, 1:] - copies[:, :1]).max(axis=(1, 2))
    unprotected = NearDuplicates(k=3).collect(Target(fence.classify), levels).answers
    moved = np.abs(unprotected[:, 1:] - unprotected[:, :1]).max(axis=(1, 2))
    assert np.median(spread) > 20 * np.median(moved)


# ---- features ------------------------------------------------------------------------------------------------------


def test_features_by_hand() -> None:
    phi = np.array([1.0, 3.0, -2.0, 4.0])
    outputs = AnswerOutputs(np.stack([np.zeros(4), phi], axis=1)[None], [1])
    np.testing.assert_allclose(outputs.phi(), phi[None])
    expected = [1.5, -2, 4, phi.std(), *np.quantile(phi, [0.25, 0.5, 0.75]), 0.75]
    np.testing.assert_allclose(answer_features(outputs, 4)[0], expected)
    free = np.abs(phi)
    expected = [free.mean(), 1, 4, free.std(), *np.quantile(free, [0.25, 0.5, 0.75]), 0.75]
    np.testing.assert_allclose(answer_features(outputs, 4, label_free=True)[0], expected)


@pytest.mark.parametrize("k", [2, 3, 7, 64, 100])
def test_equal_answers_are_one_answer_to_the_last_bit(k: int) -> None:
    once = np.random.default_rng(0).normal(0, 3, (50, 1, 5))
    labels = np.arange(50) % 5
    first = answer_features(AnswerOutputs(once, labels), 1)
    np.testing.assert_array_equal(answer_features(AnswerOutputs(np.repeat(once, k, axis=1), labels), k), first)


def test_logistic_regression_is_plain_where_it_can_be() -> None:
    rng = np.random.default_rng(0)
    members, nonmembers = rng.normal(1, 1, (500, 1)), rng.normal(0, 1, (700, 1))
    constant = [np.full((len(own), 1), 0.1) for own in (members, nonmembers)]
    alone = Logistic(members, nonmembers)
    both = Logistic(*(np.hstack(pair) for pair in zip((members, nonmembers), constant, strict=True)))
    np.testing.assert_allclose(both(np.hstack([members, constant[0]])), alone(members), rtol=1e-6)
    rounding = np.full((500, 1), 0.1 + 0.2), np.full((700, 1), 0.3)  # members are told by the last bit, which is noise
    assert metrics.auc(*(Logistic(*rounding)(own) for own in rounding)) == 0.5
    # The log odds of two normals of equal variance and equal weight: x - 1/2.
    slope = (alone([[2.0]]) - alone([[0.0]])) / 2
    assert slope[0] == pytest.approx(1.0, abs=0.15)
    assert alone([[0.5]])[0] == pytest.approx(0.0, abs=0.12)
    np.testing.assert_array_equal(alone(members)[7:8], alone(members[7:8]))
    for bad, message in (([[np.nan]], "finite"), ([[1.0, 2.0]], "expected 1 columns"), ([1.0], "expected shape")):
        with pytest.raises(ValueError, match=message):
            alone(bad)
    with pytest.raises(ValueError, match=r"^nonmembers: expected 1 features, got 2"):
        Logistic(members, np.hstack([nonmembers, nonmembers]))


# ---- fallback ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"fallback": "original"}, {"mode": "official"}])
def test_unprotected_answers_stand_still(options: dict[str, Any]) -> None:
    """The truth is the fence's own account of how each image was answered."""
    images = np.random.default_rng(3).integers(0, 256, (160, *SHAPE), dtype=np.uint8)
    fence = Diffence(make_classifier(), make_diffusion(), n=2, T=300, key=7, threads=1, **options)
    fence.fit(images[:20], images[20:40])
    images = images[40:]
    raw = np.array([record.outcome == "fallback" for record in fence.explain(images)])
    assert 8 <= raw.sum() <= 80
    attack = FallbackDetection()
    assert attack.query == NearDuplicates(k=15).query
    outputs = attack.collect(behind(fence), images, fence.classify(images).argmax(1).numpy())
    stillness = attack.stillness(outputs)
    assert metrics.auc(stillness[raw], stillness[~raw]) > 0.95
    swapped = fence.variant(**{"mode": "paper", "fallback": "swap", "scenario": 3})
    hidden = attack.stillness(attack.collect(behind(swapped), images))
    assert metrics.auc(hidden[raw], hidden[~raw]) < 0.7  # nothing stands still there


def test_it_learns_from_what_stands_still() -> None:
    """Members' answers are as spread as non-members' and have the same phi; only the re-drawing tells."""
    rng = np.random.default_rng(0)
    phi = rng.normal(3, 1, (2, 300, 1)) + rng.normal(0, 0.5, (2, 300, 9)) * (
        rng.random((2, 300, 1)) < [[[0.2]], [[0.8]]]
    )
    members, nonmembers = (
        AnswerOutputs(np.stack([np.zeros_like(own), own, np.full_like(own, -9)], axis=2), np.ones(300, int))
        for own in phi
    )
    attack = FallbackDetection(k=8)
    attack.fit(members.take(np.arange(150)), nonmembers.take(np.arange(150)))
    rest = np.arange(150, 300)
    assert metrics.auc(attack.score(members.take(rest)), attack.score(nonmembers.take(rest))) > 0.75


# ---- timing --------------------------------------------------------------------------------------------------------


class Clock:
    """Seconds that pass only while the target works."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("slower", ["members", "nonmembers", "nobody"])
def test_the_direction_is_learned(slower: str) -> None:
    clock, rng = Clock(), np.random.default_rng(0)
    images = rng.integers(0, 256, (80, 1, 2, 2), dtype=np.uint8)
    images[:, 0, 0, 0] = np.repeat([0, 1], 40)

    def ask(given: Any) -> NDArray[np.float64]:
        assert len(given) == 1  # asked alone
        late = {"members": given[0, 0, 0, 0] == 0, "nonmembers": given[0, 0, 0, 0] == 1, "nobody": False}[slower]
        clock.now += 1.0 + late * rng.random()
        return np.array([[0.0, 1.0]])

    attack = Timing(repeats=3, clock=clock)
    outputs = attack.collect(Target(ask), images)
    assert outputs.labels is None
    parts = [outputs.take(np.arange(start, start + 20)) for start in (0, 40, 20, 60)]
    attack.fit(parts[0], parts[1])
    auc = metrics.auc(attack.score(parts[2]), attack.score(parts[3]))
    assert auc == (0.5 if slower == "nobody" else 1.0)
    assert attack.sign_ == (-1.0 if slower == "nonmembers" else 1.0)


def test_early_stopping_takes_time_that_tells_and_full_work_does_not(levels: NDArray[np.uint8]) -> None:
    """The clock counts reconstructions, so the test is about the defense and not about the machine.

    In larger batches the engine computes several draws of an image that is asked alone at once, and hides some of it.
    """
    diffusion, classifier = make_diffusion(), make_classifier()
    for draws, spread in (("early", True), ("full", False)):
        fence = Diffence(classifier, diffusion, n=6, T=300, key=7, scenario=3, draws=draws, batch=1, threads=1)  # type: ignore[arg-type]

        def clock(fence: Diffence = fence) -> float:
            return float(fence.counts["draws"])

        outputs = Timing(repeats=2, clock=clock).collect(behind(fence), levels)
        expected = [record.draws_used for record in fence.explain(levels)]
        np.testing.assert_array_equal(outputs.seconds, expected)
        assert (np.unique(outputs.seconds).size > 1) == spread


def test_the_real_clock_runs() -> None:
    outputs = Timing(repeats=1).collect(Target(lambda images: np.zeros((len(images), 2))), np.zeros((3, 1, 2, 2)))
    assert (outputs.seconds > 0).all()


# ---- what all of them keep -----------------------------------------------------------------------------------------

ADAPTIVE: list[Any] = [
    RepeatQueries(k=3),
    RepeatQueries(k=3, fresh=True, label_free=True),
    NearDuplicates(k=2),
    NearDuplicates(k=2, flip=True, label_free=True),
    FallbackDetection(k=2),
    Timing(),
]


def outputs_of(attack: Attack, sure: float, labels: bool = True, n: int = 12) -> Any:
    truth = np.arange(n) % 3
    answers = sure * np.eye(3)[truth][:, None].repeat(3, axis=1)
    if isinstance(attack, Timing):
        return TimedOutputs(answers[:, 0], np.full(n, sure), truth if labels else None)
    return AnswerOutputs(answers, truth if labels else None)


@pytest.mark.parametrize("attack", ADAPTIVE, ids=lambda attack: attack.name)
def test_polarity_constants_and_refusals(attack: Attack) -> None:
    members, nonmembers = outputs_of(attack, 9.0), outputs_of(attack, 1.0)
    with pytest.raises(RuntimeError, match=r"call fit"):
        type(attack)().score(
            outputs_of(attack, 9.0) if isinstance(attack, Timing) else AnswerOutputs(np.zeros((1, 64, 3)), [0])
        )
    attack.fit(members, nonmembers)
    scores = attack.score(members), attack.score(nonmembers)
    assert metrics.auc(*scores) == 1
    assert metrics.tpr_at_fpr(*scores) == 1
    assert attack.predict(members).all()
    assert not attack.predict(nonmembers).any()
    assert attack.family == "adaptive"
    assert attack.score(members.take([5])).shape == (1,)
    attack.fit(members.take([0]), nonmembers.take([0]))
    attack.fit(members, members)
    assert metrics.auc(attack.score(members), attack.score(members)) == 0.5
    with pytest.raises(TypeError, match=r"^members: .* expects .*, got Outputs"):
        attack.fit(Outputs(members.logits, members.labels), nonmembers)
    unlabelled = outputs_of(attack, 9.0, labels=False)
    if attack.needs_labels:
        with pytest.raises(ValueError, match=r"needs the true labels"):
            attack.fit(unlabelled, nonmembers)
    else:
        attack.fit(unlabelled, outputs_of(attack, 1.0, labels=False))
    if not isinstance(attack, Timing):
        with pytest.raises(ValueError, match=r"^outputs: .* needs 3 answers to each sample, got 2"):
            attack.score(AnswerOutputs(members.answers[:, :2], members.labels))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AnswerOutputs(np.zeros((2, 3))), r"^answers: expected shape \(n >= 1, k >= 1, classes >= 2\)"),
        (lambda: AnswerOutputs(np.zeros((2, 0, 3))), r"^answers: expected shape"),
        (lambda: AnswerOutputs(np.full((2, 1, 3), np.nan)), r"^answers: expected finite"),
        (lambda: AnswerOutputs(np.zeros((2, 1, 3)), [0]), r"^labels: expected shape \(2,\)"),
        (lambda: TimedOutputs(np.zeros((2, 3)), [1.0]), r"^seconds: expected shape \(2,\)"),
        (lambda: TimedOutputs(np.zeros((2, 3)), [1.0, np.nan]), r"^seconds: expected finite"),
        (lambda: TimedOutputs(np.zeros((2, 3)), [1.0, -1.0]), r"^seconds: expected finite"),
        (lambda: RepeatQueries(k=0), r"^k: expected a whole number of at least 1"),
        (lambda: RepeatQueries(k=4, asked=3), r"^asked: expected a whole number of at least 4"),
        (lambda: RepeatQueries.ladder(()), r"^ks: expected at least one"),
        (lambda: NearDuplicates(k=0), r"^k: "),
        (lambda: NearDuplicates(pixels=0), r"^pixels: "),
        (lambda: NearDuplicates.ladder(()), r"^ks: "),
        (lambda: FallbackDetection(k=0), r"^k: "),
        (lambda: FallbackDetection(seed=-1), r"^seed: "),
        (lambda: Timing(repeats=0), r"^repeats: "),
    ],
)
def test_bad_input_is_refused_by_name(make: Callable[[], Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_queries_that_differ_are_not_shared() -> None:
    queries = [
        RepeatQueries(k=4).query,
        RepeatQueries(k=4, fresh=True).query,
        RepeatQueries(k=8).query,
        NearDuplicates(k=4).query,
        NearDuplicates(k=4, flip=True).query,
        NearDuplicates(k=4, seed=1).query,
        NearDuplicates(k=4, pixels=1).query,
        Timing().query,
        Augmentation().query,
        NoiseRobustness().query,
        Boundary().query,
    ]
    assert len(set(queries)) == len(queries)
    assert RepeatQueries(k=4, label_free=True).query == RepeatQueries(k=4).query
