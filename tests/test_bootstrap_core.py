"""The core's counts of resamples against plain NumPy (plain_bootstrap.py), and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_bootstrap import Array, plain_counts

from diffence import _core, metrics


def case(pairs: int, members: int, nonmembers: int, rows: int, distinct: int, seed: int) -> tuple[Array, ...]:
    """Places of up to `distinct` scores, and draws."""
    rng = np.random.default_rng(seed)
    places = rng.integers(min(distinct, members + nonmembers), size=(pairs, members + nonmembers))
    return (
        places[:, :members],
        places[:, members:],
        rng.integers(members, size=(rows, members)),
        rng.integers(nonmembers, size=(rows, nonmembers)),
    )


@settings(deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 6),
    st.sampled_from([1, 2, 5, 80]),
    st.integers(0, 45),
    st.integers(0, 45),
    st.integers(0, 2**32 - 1),
)
def test_equals_plain_numpy(
    pairs: int, members: int, nonmembers: int, rows: int, distinct: int, fp: int, fn: int, seed: int
) -> None:
    arrays = case(pairs, members, nonmembers, rows, distinct, seed)
    found = _core.bootstrap(*arrays, false_positives=fp, false_negatives=fn, threads=2)
    np.testing.assert_array_equal(found, plain_counts(*arrays, false_positives=fp, false_negatives=fn))


@pytest.mark.parametrize(("members", "nonmembers"), [(1, 1), (1, 999), (999, 1), (257, 1021)])
@pytest.mark.parametrize("distinct", [10**9, 7])
def test_equals_plain_numpy_at_odd_sizes(members: int, nonmembers: int, distinct: int) -> None:
    arrays = case(3, members, nonmembers, 5, distinct, seed=members)
    for allowed in (0, 1, members // 2, 10**6):
        change = {"false_positives": allowed, "false_negatives": allowed}
        found = _core.bootstrap(*arrays, **change, threads=1)
        np.testing.assert_array_equal(found, plain_counts(*arrays, **change))


def test_threads_and_company_change_nothing() -> None:
    arrays = case(5, 300, 200, 40, 400, seed=2)
    allowed = {"false_positives": 3, "false_negatives": 2}
    one = _core.bootstrap(*arrays, **allowed, threads=1)
    for threads in (2, 3, 8):
        np.testing.assert_array_equal(_core.bootstrap(*arrays, **allowed, threads=threads), one)
    alone = _core.bootstrap(arrays[0][2:3], arrays[1][2:3], arrays[2][7:8], arrays[3][7:8], **allowed, threads=2)
    np.testing.assert_array_equal(alone[:, 0, 0], one[:, 2, 7])


def test_counts_beyond_32_bits() -> None:
    """All members above all non-members: 2 x 70,000 x 70,000 right pairs."""
    size = 70_000
    members, nonmembers = np.arange(size)[None], np.arange(size, 2 * size)[None]
    everyone = np.arange(size)[None]
    found = _core.bootstrap(members, nonmembers, everyone, everyone, false_positives=0, false_negatives=0, threads=1)
    assert found[:, 0, 0].tolist() == [2 * size**2, size**2, size, 0]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"members": [[0, 1, 5]]}, ValueError, "members, nonmembers: expected places from 0 to 4 in pair 0"),
        ({"nonmembers": [[0, -1]]}, ValueError, r"nonmembers\[0, 1\]: expected an integer from 0"),
        ({"member_draws": [[0, 3, 0]]}, ValueError, "member_draws, .*got others in resample 0"),
        ({"nonmember_draws": np.array([[0, -1]], dtype=np.int32)}, ValueError, r"nonmember_draws\[0, 1\]: .*got -1"),
        ({"member_draws": [[0, 1]]}, ValueError, r"member_draws: expected shape \(R, 3\)"),
        ({"nonmember_draws": [[0, 1], [0, 1]]}, ValueError, r"nonmember_draws: expected shape \(1, 2\), got \(2, 2\)"),
        ({"nonmembers": [[0, 1], [0, 1]]}, ValueError, r"nonmembers: expected shape \(1, n\)"),
        ({"members": [[]]}, ValueError, r"members: expected shape \(P, m\) with at least one item"),
        ({"members": [[0.5, 1.0, 2.0]]}, TypeError, "members: expected integers, got float64"),
        ({"false_positives": -1}, ValueError, "false_positives: expected an integer from 0"),
        ({"false_negatives": 0.5}, TypeError, "false_negatives: expected an integer, got float"),
        ({"threads": 0}, ValueError, "threads: expected an integer from 1"),
        ({"threads": 10**6}, ValueError, "threads must be in 1..1024"),
    ],
)
def test_bad_arguments_are_refused_by_name(change: dict[str, Any], error: type[Exception], message: str) -> None:
    good: dict[str, Any] = {
        "members": [[0, 1, 4]],
        "nonmembers": [[2, 3]],
        "member_draws": [[0, 1, 2]],
        "nonmember_draws": [[1, 1]],
        "false_positives": 0,
        "false_negatives": 0,
        "threads": 1,
    }
    assert _core.bootstrap(**good).shape == (4, 1, 1)
    with pytest.raises(error, match=f"^{message}"):
        _core.bootstrap(**good | change)


# ---- metrics.replicates, the public face ---------------------------------------------------------------------------


def scores(members: int, nonmembers: int, seed: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.normal(0.5, 1, members), rng.normal(0, 1, nonmembers)


@pytest.mark.parametrize("strict", [True, False])
def test_replicates_are_the_metrics_of_one_and_the_same_resample(strict: bool) -> None:
    pairs = [scores(30, 40, 1), tuple(np.round(one) for one in scores(30, 40, 2))]
    pairs += [(np.array([np.inf, -np.inf, *range(28)]), np.array([np.inf, *range(38), -np.inf]))]
    names = ("tnr_at_fnr", "auc", "tpr_at_fpr", "balanced_accuracy_oracle")
    values, found = metrics.replicates(pairs, names, seed=5, resamples=20, rate=0.1, strict=strict)
    assert values.shape == (3, 4)
    assert found.shape == (3, 4, 20)
    draw = np.random.default_rng(5)
    ours, theirs = draw.integers(30, size=(20, 30)), draw.integers(40, size=(20, 40))
    for pair, (members, nonmembers) in enumerate(pairs):
        for place, name in enumerate(names):
            rate: dict[str, Any] = {}
            if "_at_" in name:
                rate = {name.split("_at_")[1]: 0.1, "strict": strict}
            figure = getattr(metrics, name)
            assert values[pair, place] == figure(members, nonmembers, **rate)
            expected = [figure(members[a], nonmembers[b], **rate) for a, b in zip(ours, theirs, strict=True)]
            np.testing.assert_array_equal(found[pair, place], expected)


def test_company_changes_no_replicate() -> None:
    pairs = [scores(50, 60, seed) for seed in range(4)]
    values, found = metrics.replicates(pairs, seed=1, resamples=30)
    for pair, own in enumerate(pairs):
        alone = metrics.replicates([own], seed=1, resamples=30)
        np.testing.assert_array_equal(alone[0][0], values[pair])
        np.testing.assert_array_equal(alone[1][0], found[pair])
        estimate = metrics.bootstrap(*own, ("auc",), seed=1, resamples=30)["auc"]
        assert estimate[:3] == (values[pair, 0], *np.percentile(found[pair, 0], [2.5, 97.5]))


def test_blocks_and_chunks_change_no_replicate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Published intervals rest on the order in which the generator is asked: blocks of 2**20 samples."""
    module = metrics.resampling
    pair = scores(300, 200, 3)
    whole = metrics.replicates([pair], seed=1, resamples=11)[1]
    monkeypatch.setattr(module, "_CHUNK", 1)
    np.testing.assert_array_equal(metrics.replicates([pair], seed=1, resamples=11)[1], whole)
    monkeypatch.setattr(module, "_BLOCK", 1000)  # two resamples a block: members, non-members, members, ...
    blocks = metrics.replicates([pair], seed=1, resamples=11)[1]
    assert (blocks != whole).any()
    monkeypatch.setattr(module, "_CHUNK", 10**6)
    np.testing.assert_array_equal(metrics.replicates([pair], seed=1, resamples=11)[1], blocks)
    draw = np.random.default_rng(1)
    drawn = [(draw.integers(300, size=(2, 300)), draw.integers(200, size=(2, 200))) for _ in range(2)]
    expected = [metrics.auc(pair[0][a[1]], pair[1][b[1]]) for a, b in drawn]
    assert blocks[0, 0, [1, 3]].tolist() == expected


def test_groups_are_resampled_apart_and_together_ranked() -> None:
    pairs = [scores(40, 50, seed) for seed in (1, 2)]
    groups = (np.arange(40) % 3, np.arange(50) % 3)
    values, found = metrics.replicates(pairs, seed=4, resamples=9, groups=groups, rate=0.1)
    draw = np.random.default_rng(4)
    strata = [(np.flatnonzero(groups[0] == name), np.flatnonzero(groups[1] == name)) for name in range(3)]
    drawn = [
        (a[draw.integers(len(a), size=(9, len(a)))], b[draw.integers(len(b), size=(9, len(b)))]) for a, b in strata
    ]
    for pair, (members, nonmembers) in enumerate(pairs):
        for row in range(9):
            parts = [metrics.auc(members[a[row]], nonmembers[b[row]]) for a, b in drawn]
            weights = [a.shape[1] * b.shape[1] for a, b in drawn]
            assert found[pair, 0, row] == pytest.approx(np.average(parts, weights=weights), abs=1e-15)
            every = [np.concatenate([part[side][row] for part in drawn]) for side in (0, 1)]
            expected = metrics.tpr_at_fpr(members[every[0]], nonmembers[every[1]], 0.1)
            assert found[pair, 2, row] == expected
    pooled = metrics.replicates(pairs, seed=4, resamples=9, groups=groups, pooled=True, rate=0.1)
    np.testing.assert_array_equal(pooled[1][:, 1:], found[:, 1:])
    assert pooled[0][0, 0] == metrics.auc(*pairs[0]) != values[0, 0]


def test_one_sample_and_one_resample() -> None:
    values, found = metrics.replicates([([1.0], [0.0]), ([0.0], [0.0])], seed=1, resamples=1)
    np.testing.assert_array_equal(values, [[1, 1, 1, 1], [0.5, 0.5, 0, 0]])
    np.testing.assert_array_equal(found[:, :, 0], values)


@pytest.mark.parametrize(
    ("pairs", "change", "message"),
    [
        ([], {}, "pairs: expected at least one"),
        ([([1.0, 2.0],)], {}, r"pairs\[0\]: expected \(members, nonmembers\), got 1 items"),
        ([([1.0], [0.0]), ([1.0], [np.nan])], {}, r"pairs\[1\]\[1\]: expected scores without NaN"),
        ([([1.0], [0.0]), ([1.0, 2.0], [0.0])], {}, r"pairs: expected scores of the same samples, .*\(2, 1\)"),
        ([([1.0], [0.0])], {"statistics": ("auc", "f1")}, "statistics: expected some of auc, .*'f1'"),
        ([([1.0], [0.0])], {"statistics": ()}, "statistics: expected some of"),
        ([([1.0], [0.0])], {"resamples": 0}, "resamples: expected at least 1, got 0"),
        ([([1.0], [0.0])], {"rate": 2.0}, "fpr: expected a rate"),
    ],
)
def test_replicates_refuse_by_name(pairs: Any, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        metrics.replicates(pairs, seed=1, **{"resamples": 2} | change)
