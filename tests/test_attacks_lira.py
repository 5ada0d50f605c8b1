"""LiRA and difficulty calibration against printed vectors, the definitions written out, and what they must refuse."""

from __future__ import annotations

import math
import statistics
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from diffence import metrics
from diffence.attacks import DifficultyCalibration, LiRA, Outputs, ShadowOutputs, assign
from diffence.attacks.lira import log_density
from diffence.attacks.sides import summarise

IN = [[-1.0, 1.0], [0.0, 2.0], [0.0, 20.0], []]


def of_signals(signals: Any, shadow_signals: Any, inside: Any) -> ShadowOutputs:
    """Two classes, label 0: the first logit is the first query's signal."""
    own = np.asarray(signals, float).reshape(len(signals), -1)
    logits = np.stack([own[:, 0], np.zeros(len(own))], 1)
    return ShadowOutputs(logits, np.zeros(len(own), int), shadow_signals, inside, signals=own)


def group(
    size: int, seed: int, *, member: float, shadows: int = 8, queries: int = 1, gap: float = 2.0
) -> ShadowOutputs:
    rng = np.random.default_rng(seed)
    inside = assign(shadows, size, seed)
    hard = rng.normal(0, 3, (size, 1, 1))
    theirs = hard + rng.normal(0, 1, (size, shadows, queries)) + gap * inside[:, :, None]
    return of_signals(hard[:, 0] + rng.normal(0, 1, (size, queries)) + gap * member, theirs, inside)


# ---- printed vectors, attacks.md 9.1 and 9.3: there, small means member, so the signs are turned -------------------


def sides(lists: list[list[Any]], queries: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """signals (n, shadows, queries) and which of them count, of lists of any lengths."""
    longest = max(len(own) for own in lists)
    signals, chosen = np.full((len(lists), longest, queries), 77.0), np.zeros((len(lists), longest), bool)
    for row, own in enumerate(lists):
        for place, value in enumerate(own):
            signals[row, place], chosen[row, place] = value, True
    return signals, chosen


@pytest.mark.parametrize("centre", ["median", "mean"])
@pytest.mark.parametrize(
    ("pooled", "printed"),
    [
        (False, [1.41893853, 1.41893853, 3.72152363, 2.72537178]),
        (True, [2.69682468, 2.69682468, 4.15270703, 2.87983121]),
    ],
)
def test_printed_densities(centre: Any, pooled: bool, printed: list[float]) -> None:
    """One side alone, and a sample without shadows there: centre 11/3, deviation 4; the common one is sqrt(34)."""
    signals, chosen = sides(IN)
    side = summarise(signals, chosen, centre)
    spread = side.spread()
    assert spread.deviation == pytest.approx([math.sqrt(34)])
    assert spread.centre == pytest.approx([11 / 3])
    assert spread.own_deviation == pytest.approx([4])
    empty = side.empty[:, None]
    centres = np.where(empty, spread.centre, side.centre)
    deviations = spread.deviation if pooled else np.where(empty, spread.own_deviation, side.deviation)
    found = log_density(np.array([[1.0], [0], [0], [0]]), centres, np.broadcast_to(deviations, centres.shape))
    np.testing.assert_allclose(-found, printed, atol=6e-9)


def columns(inner: list[list[Any]], outer: list[list[Any]], queries: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """signals and inside of samples that all have equally many shadows on a side."""
    a, b = sides(inner, queries), sides(outer, queries)
    return np.concatenate([a[0], b[0]], axis=1), np.concatenate([a[1], np.zeros_like(b[1])], axis=1)


@pytest.mark.parametrize("centre", ["median", "mean"])
@pytest.mark.parametrize(
    ("variance", "printed"),
    [
        ("per-sample", [1.41893853, 1.41893853, 3.72152363]),
        ("pooled", [2.69682468, 2.69682468, 4.15270703]),
    ],
)
def test_printed_attack(centre: Any, variance: Any, printed: list[float]) -> None:
    """OUT = -IN: "out" is the two-sided offline score, "both" is 0; of the samples that have shadows."""
    signals, chosen = sides(IN[:3])
    both = np.concatenate([signals, -signals], axis=1)
    inside = np.concatenate([chosen, np.zeros_like(chosen)], axis=1)
    seen = of_signals([1.0, 0, 0], both, inside)
    offline = LiRA(mode="offline", two_sided=True, variance=variance, centre=centre)
    offline.fit(seen.take([0]), seen.take([1, 2]))
    np.testing.assert_allclose(offline.score(seen), printed, atol=6e-9)
    online = LiRA(variance=variance, centre=centre).fit(seen.take([0]), seen.take([1, 2]))
    np.testing.assert_allclose(online.score(seen), 0, atol=1e-12)
    assert offline.name.startswith("lira offline, two-sided, ")


def test_printed_attack_with_an_empty_side() -> None:
    """The fourth sample has no IN; as OUT it has the third's, of which its score then knows."""
    signals = np.array([[-1.0, 1, 1, -1], [0, 2, 0, -2], [0, 20, 0, -20], [-5, 5, 5, -5]])
    inside = np.array([[True, True, False, False]] * 3 + [[False] * 4])
    seen = of_signals([1.0, 0, 0, 0], signals, inside)
    attack = LiRA(variance="per-sample")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attack.fit(seen.take([0, 1]), seen.take([2, 3]))
    assert [text.split(" have")[0] for text in attack.warnings_] == ["1 of 2 samples"]
    with pytest.warns(UserWarning, match="lira online.*: 1 of 4 samples have no shadow model that was trained on them"):
        scores = attack.score(seen)
    assert [text.split(" have")[0] for text in attack.warnings_] == ["1 of 2 samples", "1 of 4 samples"]
    np.testing.assert_allclose(scores[:3], 0, atol=1e-12)
    assert scores[3] == pytest.approx(-2.72537178 - stats.norm.logpdf(0, 0, 5), abs=6e-9)


def test_printed_average_over_queries() -> None:
    inner, outer = [[(-1, 0), (1, 20)]], [[(1, 0), (-1, -20)]]
    signals, inside = columns(inner, outer, queries=2)
    seen = of_signals([(1.0, 0.0)], signals, inside)
    side = summarise(*sides(inner, 2), "median")
    assert -log_density(seen.signals, side.centre, side.deviation) == pytest.approx([2.57023108], abs=6e-9)
    two_sided = LiRA(mode="offline", two_sided=True, variance="per-sample").fit(seen, seen)
    assert two_sided.score(seen) == pytest.approx([2.57023108], abs=6e-9)
    assert LiRA(variance="per-sample").fit(seen, seen).score(seen) == pytest.approx([0], abs=1e-12)


@pytest.mark.parametrize(
    ("which", "centre", "printed"),
    [
        ("both", "median", [-5, 4, -5]),
        ("both", "mean", [-5, 4, -5]),
        ("in", "median", [0, 9, 0]),
        ("out", "median", [-10, -1, -10]),
        ("in", "mean", [0, 28 / 3, 1 / 6]),
        ("out", "mean", [-10, -4 / 3, -61 / 6]),
    ],
)
def test_printed_offsets(which: Any, centre: Any, printed: list[float]) -> None:
    targets = np.array([(-0.1, 0.1, 0), (0, 0, 27), (0, 0, 0)])
    inner: list[list[Any]] = [[(1, 2, -3)], [(-2, 4, 6), (0, 0, 0), (5, -7, -9)], []]
    outer = [[tuple(10 - np.array(value)) for value in own] for own in inner]
    offsets = []
    for lists in (inner, outer):
        side = summarise(*sides(lists, 3), centre)
        centres = np.where(side.empty[:, None], side.spread().centre, side.centre)
        offsets.append((targets - centres).mean(axis=1))
    found = {"in": offsets[0], "out": offsets[1], "both": (offsets[0] + offsets[1]) / 2}[which]
    np.testing.assert_allclose(found, printed, atol=1e-12)
    # The attack itself, on the two samples that have shadows: of the first, only one on each side.
    signals, inside = columns(inner[1:2], outer[1:2], 3)
    seen = of_signals(targets[1:2], signals, inside)
    attack = DifficultyCalibration(sides=which, centre=centre).fit(seen, seen)
    assert attack.score(seen) == pytest.approx([printed[1]], abs=1e-12)


def test_offline_orientation() -> None:
    """attacks.md 9.3: mu 0, s 1; the two-sided form is as high for an unusually unsure answer."""
    seen = of_signals([3.0, -3.0], [[-1.0, 1.0, 50.0]] * 2, [[False, False, True]] * 2)
    two_sided = LiRA(mode="offline", two_sided=True, variance="per-sample").fit(seen, seen)
    np.testing.assert_allclose(two_sided.score(seen), [5.418938533] * 2, atol=6e-10)
    one_sided = LiRA(mode="offline", variance="per-sample").fit(seen, seen)
    np.testing.assert_allclose(one_sided.score(seen), [-0.001350810, -6.607726221], atol=6e-10)


# ---- the definitions, written out ----------------------------------------------------------------------------------


def slowly(seen: ShadowOutputs, known: ShadowOutputs, attack: LiRA) -> list[float]:
    """LiRA sample by sample."""

    def values(outputs: ShadowOutputs, row: int, side: bool, query: int) -> list[float]:
        own = [
            float(outputs.shadow_signals[row, s, query])
            for s in range(outputs.shadows)
            if outputs.inside[row, s] == side
        ]
        if attack.cut_to_smallest:
            own = own[: min(int((outputs.inside[other] == side).sum()) for other in range(len(outputs)))]
        if attack.saturating:
            own = [math.log(1 / (1 + math.exp(-v)) + 1e-45) - math.log(1 / (1 + math.exp(v)) + 1e-45) for v in own]
        return own

    middle = {"median": statistics.median, "mean": statistics.fmean}[attack.centre]
    per_sample = attack.variance == "per-sample" or (attack.variance == "automatic" and seen.shadows >= 64)

    def common(side: bool, query: int) -> float:
        rest: list[float] = []
        for row in range(len(known)):
            own = values(known, row, side, query)
            rest += own if attack.variance == "raw" else [value - middle(own) for value in own]
        return statistics.pstdev(rest)

    def normal(row: int, side: bool, query: int) -> tuple[float, float]:
        own = values(seen, row, side, query)
        spread = statistics.pstdev(own) if per_sample else common(attack.in_for_out or side, query)
        return middle(own), spread + 1e-30

    scores = []
    for row in range(len(seen)):
        terms = []
        for query in range(seen.signals.shape[1]):
            phi = float(seen.signals[row, query])
            out = stats.norm(*normal(row, False, query))
            if attack.mode == "online":
                terms.append(stats.norm.logpdf(phi, *normal(row, True, query)) - out.logpdf(phi))
            else:
                terms.append(-out.logpdf(phi) if attack.two_sided else out.logcdf(phi))
        scores.append(statistics.fmean(terms))
    return scores


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["automatic", "per-sample", "pooled", "raw"]),
    st.sampled_from(["median", "mean"]),
    st.sampled_from(["online", "offline", "two-sided", "in for out"]),
    st.booleans(),
    st.booleans(),
    st.integers(1, 2),
)
def test_a_plain_loop_says_the_same(
    seed: int, variance: Any, centre: Any, mode: str, cut: bool, saturating: bool, queries: int
) -> None:
    rng = np.random.default_rng(seed)
    inside = rng.random((12, 9)) < 0.5
    inside[:, :4] = [True, True, False, False]  # at least two on each side, and any number beyond
    seen = of_signals(rng.normal(0, 3, (12, queries)), rng.normal(0, 3, (12, 9, queries)), inside)
    attack = LiRA(
        mode="offline" if mode in ("offline", "two-sided") else "online",
        variance=variance,
        centre=centre,
        two_sided=mode == "two-sided",
        in_for_out=mode == "in for out" and variance in ("pooled", "raw"),
        cut_to_smallest=cut,
        saturating=saturating,
    )
    known = seen.take(np.arange(8))
    attack.fit(known.take(np.arange(3)), known.take(np.arange(3, 8)))
    part = seen.take(np.arange(6))
    expected = slowly(saturated(part) if saturating else part, known, attack)
    np.testing.assert_allclose(attack.score(part), expected, rtol=1e-7, atol=1e-9)


def saturated(seen: ShadowOutputs) -> ShadowOutputs:
    """The target's signal in its saturating form; the shadows' are made so inside `slowly`."""
    phi = seen.signals
    ours = np.log(1 / (1 + np.exp(-phi)) + 1e-45) - np.log(1 / (1 + np.exp(phi)) + 1e-45)
    return of_signals(ours, seen.shadow_signals, seen.inside)


def test_blocks_and_company_change_nothing() -> None:
    """Thousands of samples at once, or each alone: what is common was learned from the known ones."""
    seen = group(2500, 1, member=1)
    for attack in (LiRA(), LiRA(variance="per-sample"), LiRA(mode="offline"), DifficultyCalibration()):
        attack.fit(group(50, 2, member=1), group(50, 3, member=0))
        whole = attack.score(seen)
        few = np.array([0, 1023, 1024, 2499])
        np.testing.assert_allclose(attack.score(seen.take(few)), whole[few], rtol=1e-12)
        np.testing.assert_allclose(attack.score(seen.take(few[:1])), whole[:1], rtol=1e-12)


def test_automatic_variance_is_per_sample_from_64_shadows_on() -> None:
    for shadows, same in ((62, "pooled"), (64, "per-sample")):
        known = group(40, 1, member=1, shadows=shadows), group(40, 2, member=0, shadows=shadows)
        automatic, named = LiRA().fit(*known), LiRA(variance=same).fit(*known)  # type: ignore[arg-type]
        np.testing.assert_array_equal(automatic.score(known[0]), named.score(known[0]))


# ---- it attacks ----------------------------------------------------------------------------------------------------

ATTACKS = [
    LiRA(),
    LiRA(variance="per-sample"),
    LiRA(mode="offline"),
    LiRA(mode="global"),
    LiRA.published("online"),
    LiRA.published("online", fixed_variance=True),
    DifficultyCalibration(),
    DifficultyCalibration(sides="both"),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_polarity_on_a_separable_case(attack: Any) -> None:
    rng = np.random.default_rng(0)
    inside = assign(8, 60, 0)
    theirs = 10.0 * inside + rng.normal(0, 0.5, (60, 8))
    truth = np.arange(60) < 30
    seen = of_signals(np.where(truth, 10.0, 0.0), theirs, inside)
    members, nonmembers = seen.take(truth), seen.take(~truth)
    attack.fit(members.take(np.arange(10)), nonmembers.take(np.arange(10)))
    scores = attack.score(members), attack.score(nonmembers)
    assert metrics.auc(*scores) == 1
    assert metrics.tpr_at_fpr(*scores) == 1
    assert metrics.tnr_at_fnr(*scores) == 1
    assert attack.predict(members).mean() > 0.8  # the threshold is the lowest known member's score
    assert not attack.predict(nonmembers).any()


@pytest.mark.parametrize("attack", [*ATTACKS, LiRA(mode="offline", two_sided=True)], ids=lambda attack: attack.name)
def test_constant_answers_say_nothing(attack: Any) -> None:
    seen = of_signals(np.ones(20), np.ones((20, 8)), assign(8, 20, 0))
    scores = attack.fit(seen, seen).score(seen)
    assert np.isfinite(scores).all()
    assert metrics.auc(scores[:10], scores[10:]) == 0.5


def test_few_shadows_pool_the_variance_and_beat_what_knows_no_difficulty() -> None:
    """The order that the published tables show at 16 models: pooled above per sample, both above phi alone."""
    known = group(400, 1, member=1, shadows=16), group(400, 2, member=0, shadows=16)
    targets = group(3000, 3, member=1, shadows=16), group(3000, 4, member=0, shadows=16)
    auc = {
        attack.name: metrics.auc(*(attack.fit(*known).score(own) for own in targets))
        for attack in (LiRA(), LiRA(variance="per-sample"), LiRA(mode="offline"), LiRA(mode="global"))
    }
    assert auc["lira online"] > auc["lira online, per-sample variance"] + 0.01
    assert auc["lira online, per-sample variance"] > auc["lira global"] + 0.1
    assert auc["lira offline"] > auc["lira global"] + 0.1


def test_the_two_sided_form_takes_unsure_answers_for_members() -> None:
    low = group(200, 1, member=-4.0), group(200, 2, member=0)
    assert metrics.auc(*(LiRA(mode="offline").fit(*low).score(own) for own in low)) < 0.1
    assert metrics.auc(*(LiRA(mode="offline", two_sided=True).fit(*low).score(own) for own in low)) > 0.9


def test_cutting_loses_with_unbalanced_shadows() -> None:
    """One sample with few shadows on a side costs all others theirs."""
    seen = group(300, 1, member=1, shadows=32), group(300, 2, member=0, shadows=32)
    for own in seen:
        own.inside[0] = False
        own.inside[0, 0] = True
    whole, cut = LiRA(variance="per-sample").fit(*seen), LiRA(variance="per-sample", cut_to_smallest=True).fit(*seen)
    assert metrics.auc(*(whole.score(own) for own in seen)) > metrics.auc(*(cut.score(own) for own in seen)) + 0.1


def test_extremely_sure_answers_keep_their_order() -> None:
    """phi beyond what probabilities can show: p is 1 from 37 on, and the published form ends at 104."""
    inside = np.array([[True, False] * 4] * 3)
    seen = of_signals([150.0, 200.0, 400.0], np.where(inside, 500.0, 100.0) + np.arange(8.0), inside)
    exact, capped = LiRA(mode="global"), LiRA(mode="global", saturating=True)
    assert exact.score(seen).tolist() == [150, 200, 400]
    np.testing.assert_allclose(capped.score(seen), -math.log(1e-45) * np.ones(3), rtol=1e-3)
    assert (np.diff(LiRA().fit(seen, seen).score(seen)) > 0).all()


def test_names_tell_the_variants_apart() -> None:
    attacks = [*ATTACKS, LiRA(centre="mean"), LiRA(variance="pooled"), LiRA(mode="offline", two_sided=True)]
    names = [attack.name for attack in attacks]
    assert len(set(names)) == len(names)
    assert LiRA().name == "lira online"
    assert (
        LiRA.published("online", fixed_variance=True).name == "lira online, raw variance, in for out, cut, saturating"
    )
    assert LiRA.published("offline").name == "lira offline, two-sided, per-sample variance, cut, saturating"


# ---- small and bad input -------------------------------------------------------------------------------------------


def test_two_shadows_are_enough_for_a_score() -> None:
    known = group(200, 1, member=1, shadows=2), group(200, 2, member=0, shadows=2)
    with pytest.warns(UserWarning, match="shows no variance; 1 is taken"):
        attack = LiRA().fit(*known)
    assert metrics.auc(*(attack.score(own) for own in known)) > 0.75


def test_one_sample() -> None:
    seen = group(1, 1, member=1)
    assert np.isfinite(LiRA().fit(seen, seen).score(seen)).all()


def test_bad_input_is_refused_by_name() -> None:
    seen = group(10, 1, member=1)
    for arguments, message in (
        ({"mode": "on"}, r"^mode: .*'on'"),
        ({"variance": "fixed"}, "^variance: "),
        ({"centre": "mode"}, "^centre: "),
        ({"two_sided": True}, "^two_sided: is for the offline mode"),
        ({"in_for_out": True}, "^in_for_out: "),
    ):
        with pytest.raises(ValueError, match=message):
            LiRA(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^sides: "):
        DifficultyCalibration(sides="all")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^members: lira online expects ShadowOutputs, got Outputs"):
        LiRA().fit(Outputs(seen.logits, seen.labels), seen)
    with pytest.raises(RuntimeError, match=r"^lira online: call fit"):
        LiRA().score(seen)
    outside = of_signals(seen.signals, seen.shadow_signals, np.zeros_like(seen.inside))
    with pytest.raises(ValueError, match=r"^inside: lira online needs shadow models that were trained on the samples"):
        LiRA().fit(outside, outside)
    assert np.isfinite(LiRA(mode="offline").fit(outside, outside).score(outside)).all()
    within = of_signals(seen.signals, seen.shadow_signals, np.ones_like(seen.inside))
    with pytest.raises(ValueError, match=r"^inside: lira offline needs shadow models that were not trained on"):
        LiRA(mode="offline").fit(within, within)
    with pytest.raises(ValueError, match=r"^outputs: expected 1 queries as in fit, got 2"):
        LiRA().fit(seen, seen).score(group(10, 1, member=1, queries=2))
    with pytest.raises(ValueError, match=r"^shadows: lira online asks shadow models, got None"):
        LiRA().collect(None, np.zeros((1, 1, 2, 2)))  # type: ignore[arg-type]
