"""Splits: disjoint, seeded, stratified, and clear about sizes that do not fit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffence.data import Splits, repeats, split

PARTS = ("known", "calibration", "target")


@st.composite
def requests(draw: st.DrawFn) -> dict[str, object]:
    count = draw(st.integers(1, 4))
    sizes = {part: draw(st.integers(0, 9)) for part in PARTS}
    members = max(1, sum(sizes.values()) + draw(st.integers(0, 5)))
    n = count * (members + max(1, sum(sizes.values()))) + draw(st.integers(0, 20))
    labels = draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
    given_labels = np.array(labels) if draw(st.booleans()) else n
    return {
        "labels_or_n": given_labels,
        "count": count,
        "members": members,
        **sizes,
        "seed": draw(st.integers(0, 2**40)),
        "stratify": draw(st.booleans()),
    }


@settings(max_examples=60, deadline=None)
@given(requests())
def test_all_parts_are_disjoint_and_have_their_sizes(request: dict[str, object]) -> None:
    splits = repeats(**request)  # type: ignore[arg-type]
    assert len(splits) == request["count"]
    n = request["labels_or_n"] if isinstance(request["labels_or_n"], int) else len(request["labels_or_n"])  # type: ignore[arg-type]
    everything = np.concatenate([np.concatenate([one.members, one.nonmembers]) for one in splits])
    assert len(np.unique(everything)) == len(everything)
    assert everything.min() >= 0
    assert everything.max() < n
    if request["count"] == 1:
        assert len(everything) == n
    for one in splits:
        assert len(one.members) == request["members"]
        for side in ("members", "nonmembers"):
            parts = [getattr(one, f"{part}_{side}") for part in PARTS]
            assert [len(part) for part in parts] == [request[part] for part in PARTS]
            assert all(part.dtype == np.int64 for part in parts)
            joined = np.concatenate(parts)
            assert len(np.unique(joined)) == len(joined)
            assert np.isin(joined, getattr(one, side)).all()


def draw(seed: int = 0, **changes: object) -> Splits:
    labels = np.repeat(np.arange(4), (100, 200, 300, 400))
    return split(labels, **{"members": 300, "known": 50, "calibration": 50, "target": 100, "seed": seed, **changes})  # type: ignore[arg-type]


def test_the_seed_decides() -> None:
    one, again, other = draw(), draw(), draw(1)
    for field in dataclasses.fields(Splits):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(again, field.name))
    # 300 of 1000 drawn twice have 90 in common on average, with a deviation of 7.9.
    assert 50 < len(np.intersect1d(one.members, other.members)) < 130


def test_the_draw_is_fixed_for_ever() -> None:
    # Saved results name their members by seed, so another version of this package must draw the same.
    sizes = {"members": 5, "known": 1, "calibration": 1, "target": 1, "seed": 3}
    assert split(20, **sizes).members.tolist() == [0, 4, 9, 7, 1]
    assert split(np.arange(20) % 2, **sizes).members.tolist() == [0, 9, 7, 4, 16]


def test_members_do_not_depend_on_the_other_sizes() -> None:
    np.testing.assert_array_equal(draw().members, draw(known=0, calibration=7, target=0).members)


def test_stratified_parts_have_the_classes_in_proportion() -> None:
    labels = np.repeat(np.arange(4), (100, 200, 300, 400))
    for seed in range(20):
        one = draw(seed)
        for field in dataclasses.fields(Splits)[:-1]:
            part = getattr(one, field.name)
            counts = np.bincount(labels[part], minlength=4)
            np.testing.assert_allclose(counts, len(part) * np.array([0.1, 0.2, 0.3, 0.4]), atol=2)
    plain = [np.bincount(labels[draw(seed, stratify=False).members], minlength=4)[0] for seed in range(20)]
    assert max(plain) - min(plain) > 4


@pytest.mark.parametrize("stratify", [True, False])
def test_every_image_is_a_member_equally_often(stratify: bool) -> None:
    labels = np.repeat(np.arange(2), (30, 10))
    draws = [
        split(labels, members=10, known=0, calibration=0, target=0, seed=seed, stratify=stratify).members
        for seed in range(2000)
    ]
    share = np.bincount(np.concatenate(draws), minlength=40) / 2000
    # Each is Binomial(2000, 1/4) / 2000 with a deviation below 0.0097; 5 deviations for 40 of them.
    assert np.abs(share - 0.25).max() < 0.049


def test_repeats_of_one_are_split() -> None:
    sizes = {"members": 30, "known": 5, "calibration": 5, "target": 10, "seed": 4}
    np.testing.assert_array_equal(
        repeats(200, count=1, **sizes)[0].target_nonmembers, split(200, **sizes).target_nonmembers
    )


def test_sizes_that_do_not_fit_show_the_arithmetic() -> None:
    with pytest.raises(ValueError, match=r"known 50 \+ calibration 50 \+ target 201 = 301 .*only members 300"):
        draw(target=201)
    with pytest.raises(
        ValueError, match=r"= 250 images of the non-members, but 1000 images - 1 x members 800 leave 200"
    ):
        draw(members=800, known=50, calibration=50, target=150)
    with pytest.raises(ValueError, match=r"in each of 3 splits, but 100 images - 3 x members 20 leave 13"):
        repeats(100, count=3, members=20, known=10, calibration=0, target=5, seed=0)
    with pytest.raises(ValueError, match="leave 0"):
        split(10, members=20, known=0, calibration=0, target=0, seed=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"members": 0}, "members: .* at least 1, got 0"),
        ({"known": -1}, "known: .* at least 0, got -1"),
        ({"target": 1.5}, "target: .* got 1.5"),
        ({"count": 0}, "count"),
        ({"seed": -1}, "seed"),
        ({"labels_or_n": 0}, "labels_or_n"),
        ({"labels_or_n": np.zeros(9)}, "labels_or_n"),
        ({"labels_or_n": np.zeros((3, 3), int)}, "labels_or_n"),
    ],
)
def test_refuses(changes: dict[str, object], message: str) -> None:
    request = {"labels_or_n": 100, "count": 1, "members": 20, "known": 1, "calibration": 1, "target": 1, "seed": 0}
    with pytest.raises(ValueError, match=message):
        repeats(**{**request, **changes})  # type: ignore[arg-type]
