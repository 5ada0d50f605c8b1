"""RMIA against its definition, written out, and what it must do at ties, in the tail and with few shadows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from test_attacks_lira import group, of_signals

from diffence import metrics
from diffence.attacks import RMIA, ShadowOutputs, assign


def real_logits(n: int, seed: int, *, shadows: int = 6, queries: int = 1, classes: int = 3) -> ShadowOutputs:
    rng = np.random.default_rng(seed)
    return ShadowOutputs.from_logits(
        rng.normal(0, 2, (n, queries, classes)),
        rng.integers(0, classes, n),
        rng.normal(0, 2, (n, shadows, queries, classes)),
        assign(shadows, n, seed),
    )


def p_of(logits: np.ndarray, label: int, attack: RMIA) -> float:
    z = logits / attack.temperature

    def f(x: float) -> float:
        if attack.terms is None:
            return math.exp(x)
        return max(sum(x**i / math.factorial(i) for i in range(attack.terms)), 0.0)

    top = f(z[label] - attack.margin)
    total = top + sum(f(x) for i, x in enumerate(z) if i != label)
    return max(top / total, 1e-30) if total > 0 else 1e-30


def slowly(seen: ShadowOutputs, population: ShadowOutputs, attack: RMIA) -> list[float]:
    """The definition, sample by sample and pair by pair."""
    assert seen.query_logits is not None

    def ratio(outputs: ShadowOutputs, row: int, query: int) -> float:
        assert outputs.query_logits is not None
        assert outputs.shadow_logits is not None
        label = int(outputs.true_labels[row])
        p = [p_of(outputs.shadow_logits[row, s, query], label, attack) for s in range(outputs.shadows)]
        inner = [p[s] for s in range(outputs.shadows) if outputs.inside[row, s]]
        outer = [p[s] for s in range(outputs.shadows) if not outputs.inside[row, s]]
        if attack.mode == "offline":
            a = attack.a_
            mean = ((1 + a) * float(stats.trim_mean(outer, attack.trim)) + 1 - a) / 2
        elif attack.trim:
            mean = float(stats.trim_mean(p, attack.trim))
        else:
            mean = (np.mean(inner) + np.mean(outer)) / 2
        return p_of(outputs.query_logits[row, query], label, attack) / float(mean)

    bars = [ratio(population, row, 0) * attack.gamma for row in range(len(population))]
    scores = []
    queries = seen.query_logits.shape[1]
    for row in range(len(seen)):
        own = [ratio(seen, row, query) for query in range(queries)]
        beaten = [[value > bar or (attack.ties and value == bar) for value in own] for bar in bars]
        if attack.votes == "majority":
            scores.append(float(np.mean([sum(votes) > queries / 2 for votes in beaten])))
        else:
            scores.append(float(np.mean(beaten)))
    return scores


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["online", "offline"]),
    st.sampled_from([1.0, 2.0, 1.37]),
    st.sampled_from([1.0, 2.0]),
    st.sampled_from([0.0, 0.6]),
    st.sampled_from([None, 4, 5]),
    st.sampled_from([0.0, 0.2, 0.34]),
    st.sampled_from(["majority", "mean"]),
    st.integers(1, 4),
)
def test_a_plain_loop_says_the_same(
    seed: int,
    mode: Any,
    gamma: float,
    temperature: float,
    margin: float,
    terms: Any,
    trim: float,
    votes: Any,
    queries: int,
) -> None:
    attack = RMIA(
        mode=mode, gamma=gamma, a=0.3, temperature=temperature, margin=margin, terms=terms, trim=trim, votes=votes
    )
    known = real_logits(5, seed, queries=queries), real_logits(9, seed + 1, queries=queries)
    seen = real_logits(7, seed + 2, queries=queries)
    # A ratio right at a bar may fall on either side of it, one population sample of nine being 1/9.
    found, expected = attack.fit(*known).score(seen), slowly(seen, known[1], attack)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_softmax_needs_only_signals() -> None:
    seen = real_logits(30, 1), real_logits(30, 2)
    without = [
        ShadowOutputs(own.logits, own.true_labels, own.shadow_signals, own.inside, signals=own.signals) for own in seen
    ]
    for attack in (RMIA(), RMIA(mode="offline", a=0.3, gamma=2, margin=0.5)):
        np.testing.assert_array_equal(attack.fit(*seen).score(seen[0]), attack.fit(*without).score(without[0]))
    for attack in (RMIA(temperature=2), RMIA(terms=4)):
        with pytest.raises(ValueError, match="needs all logits of the shadows"):
            attack.fit(*without)


def test_the_series_of_a_sure_network() -> None:
    """Logits as overfitted networks have them: four terms of the series still grow with the true logit."""
    true = np.array([-5.0, 0.0, 5.0, 15.0])
    logits = np.concatenate([true[:, None], np.tile([-9.0, 1.0, -14.0, 3.0], (4, 1))], axis=1)
    p = RMIA(temperature=2, margin=0.6, terms=4)._softened(logits, np.zeros(4, np.int64))
    assert (np.diff(p) > 0).all()
    assert ((p >= 0) & (p <= 1)).all()
    assert p[0] == 0
    assert p[3] > 0.9


# ---- ties ----------------------------------------------------------------------------------------------------------


def test_ties_at_saturation() -> None:
    """All p_y are 1 in float64: every ratio is the same, > beats nobody and >= everybody."""
    seen = of_signals(np.full(8, 50.0), np.full((8, 4), 50.0), assign(4, 8, 0))
    assert (RMIA().fit(seen, seen).score(seen) == 0).all()
    assert (RMIA(ties=True).fit(seen, seen).score(seen) == 1).all()
    assert RMIA(ties=True).name == "rmia online, ties"


@pytest.mark.parametrize(
    "attack", [RMIA(), RMIA(mode="offline"), RMIA(ties=True), RMIA(mode="offline", a=0.3, gamma=2)]
)
def test_constant_answers_say_nothing(attack: Any) -> None:
    seen = of_signals(np.ones(20), np.ones((20, 8)), assign(8, 20, 0))
    scores = attack.fit(seen, seen).score(seen)
    assert metrics.auc(scores[:10], scores[10:]) == 0.5


# ---- it attacks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_polarity_on_a_separable_case(mode: Any) -> None:
    rng = np.random.default_rng(0)
    inside = assign(8, 60, 0)
    theirs = 6.0 * inside - 3 + rng.normal(0, 0.1, (60, 8))
    truth = np.arange(60) < 30
    seen = of_signals(np.where(truth, 3.0, -3.0), theirs, inside)
    members, nonmembers = seen.take(truth), seen.take(~truth)
    attack = RMIA(mode=mode).fit(members.take(np.arange(10)), nonmembers.take(np.arange(10)))
    scores = attack.score(members), attack.score(nonmembers)
    assert metrics.auc(*scores) == 1
    assert metrics.tpr_at_fpr(*scores) == 1
    assert metrics.tnr_at_fnr(*scores) == 1
    assert attack.predict(members).all()


def test_difficulty_is_taken_into_account() -> None:
    known = group(500, 1, member=1), group(500, 2, member=0)
    targets = group(2000, 3, member=1), group(2000, 4, member=0)
    plain = metrics.auc(*(own.signals[:, 0] for own in targets))
    for attack in (RMIA(), RMIA(mode="offline"), RMIA(mode="offline", a=0.3)):
        assert metrics.auc(*(attack.fit(*known).score(own) for own in targets)) > plain + 0.1


def test_the_tuned_a_is_the_best_for_a_shadow() -> None:
    """Checked against trying every value with the first shadow as the target."""
    known = group(300, 1, member=1, shadows=6), group(300, 2, member=0, shadows=6)
    attack = RMIA(mode="offline").fit(*known)
    both = {name: np.concatenate([getattr(own, name) for own in known]) for name in ("shadow_signals", "inside")}
    truth = both["inside"][:, 0]
    found = []
    for step in range(11):
        pretended = of_signals(both["shadow_signals"][:, 0], both["shadow_signals"][:, 1:], both["inside"][:, 1:])
        one = RMIA(mode="offline", a=step / 10).fit(pretended.take(truth), pretended.take(~truth))
        found.append(metrics.auc(one.score(pretended.take(truth)), one.score(pretended.take(~truth))))
    assert attack.a_ == int(np.argmax(found)) / 10
    assert attack.name == "rmia offline"


def test_tuning_leaves_out_the_paired_model() -> None:
    """A shadow of the other half is OUT for just the pretended target's members: here it says nothing but that."""
    known = group(300, 1, member=1, shadows=6), group(300, 2, member=0, shadows=6)
    plain = RMIA(mode="offline").fit(*known)
    paired = []
    for own in known:
        mate = np.where(own.inside[:, :1], 30.0, -30.0)[:, :, None]
        paired.append(
            of_signals(
                own.signals,
                np.concatenate([own.shadow_signals, mate], 1),
                np.concatenate([own.inside, ~own.inside[:, :1]], 1),
            )
        )
    assert RMIA(mode="offline").fit(*paired).a_ == plain.a_
    two = [own.with_shadows([0, 6]) for own in paired]
    with pytest.raises(ValueError, match=r"^a: cannot be tuned with two shadow models of complementary halves"):
        RMIA(mode="offline").fit(*two)


def test_shadows_that_saw_none_of_the_known_samples() -> None:
    own = group(40, 1, member=1)
    outside = of_signals(own.signals, own.shadow_signals, np.zeros_like(own.inside))
    with pytest.raises(ValueError, match=r"^a: cannot be tuned"):
        RMIA(mode="offline").fit(outside, outside)
    assert np.isfinite(RMIA(mode="offline", a=0.3).fit(outside, outside).score(outside)).all()
    with pytest.raises(ValueError, match=r"^inside: rmia online needs shadow models that were trained on"):
        RMIA().fit(outside, outside)


def test_a_sample_without_shadows_on_a_side_is_flagged() -> None:
    known = group(40, 1, member=1), group(40, 2, member=0)
    attack = RMIA().fit(*known)
    known[0].inside[3] = True
    with pytest.warns(UserWarning, match="rmia online: 1 of 40 samples have no shadow model that was not trained on"):
        scores = attack.score(known[0])
    assert np.isfinite(scores).all()


# ---- presets and refusals ------------------------------------------------------------------------------------------


def test_presets() -> None:
    cifar10, cifar100 = RMIA.published("cifar10", "offline"), RMIA.published("cifar100")
    assert (cifar10.gamma, cifar10.temperature, cifar10.a, cifar10.margin, cifar10.terms) == (2, 2, 0.33, 0.6, 4)
    assert (cifar100.temperature, cifar100.a, cifar100.trim, cifar100.votes) == (1, 0.6, 0.2, "majority")
    meter = RMIA.privacy_meter()
    assert (meter.mode, meter.gamma, meter.a, meter.temperature, meter.terms) == ("offline", 1, "tuned", 1, None)
    known = real_logits(20, 1, queries=3), real_logits(20, 2, queries=3)
    for attack in (cifar10, cifar100, meter):
        scores = attack.fit(*known).score(known[0])
        assert ((scores >= 0) & (scores <= 1)).all()
    assert cifar10.name == "rmia offline, gamma 2, a 0.33, temperature 2, margin 0.6, trim 0.2, 4 terms"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"mode": "both"}, "mode"),
        ({"votes": "all"}, "votes"),
        ({"gamma": 0.0}, "gamma"),
        ({"temperature": math.inf}, "temperature"),
        ({"a": 1.5}, "a"),
        ({"a": "best"}, "a"),
        ({"margin": math.nan}, "margin"),
        ({"trim": 0.5}, "trim"),
        ({"terms": 1}, "terms"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments: Any, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        RMIA(**arguments)


def test_score_before_fit() -> None:
    with pytest.raises(RuntimeError, match=r"^rmia online: call fit"):
        RMIA().score(real_logits(4, 0))
    with pytest.raises(ValueError, match=r"^dataset: "):
        RMIA.published("svhn")  # type: ignore[arg-type]
