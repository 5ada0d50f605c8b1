"""The bootstrap: intervals of one attack, of differences on the same samples, and the replicates behind both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffence import _core
from diffence.metrics.checks import Floats, Groups, Ints, checked_labels, checked_scores
from diffence.metrics.curve import LOW_RATE, STATISTICS, Statistic, allowed_errors

Scores = tuple[ArrayLike, ArrayLike]
Draws = list[tuple[NDArray[np.int32], NDArray[np.int32]]]  # of each group: (rows, members), (rows, non-members)

_BLOCK, _CHUNK = 2**20, 2**23  # samples drawn at a time; samples counted at a time, some MiB


class Estimate(NamedTuple):
    """A figure, its 95 % interval and the number of samples that it was computed from."""

    value: float
    low: float
    high: float
    n: int


# ---- resamples ---------------------------------------------------------------------------------------------------


def _strata(members: int, nonmembers: int, groups: Groups | None) -> list[tuple[Ints, Ints]]:
    """Positions of the members and of the non-members of each group; one group of all where groups is None."""
    if groups is None:
        return [(np.arange(members), np.arange(nonmembers))]
    positive = checked_labels("groups[0]", groups[0], members)
    negative = checked_labels("groups[1]", groups[1], nonmembers)
    names = np.unique(positive)
    if not np.array_equal(names, np.unique(negative)):
        raise ValueError("groups: expected members and non-members in every group")
    return [(np.flatnonzero(positive == name), np.flatnonzero(negative == name)) for name in names]


def _blocks(sizes: list[tuple[int, int]], resamples: int, seed: int) -> Iterator[Draws]:
    """Resamples, positions inside each group. They depend on the sizes of the groups and the seed alone.

    That is what makes pairs. So the order in which the generator is asked is part of every published interval: blocks
    of about 2**20 samples, in each of them group by group, members first.
    """
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK // sum(map(sum, sizes)))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        yield [
            (
                rng.integers(ours, size=(rows, ours), dtype=np.int32),  # the same numbers as in 64 bits
                rng.integers(theirs, size=(rows, theirs), dtype=np.int32),
            )
            for ours, theirs in sizes
        ]


def _chunk(blocks: Iterator[Draws], least: int) -> Draws | None:
    """The next blocks as one, at least `least` samples of them; None where there are none left."""
    taken: list[Draws] = []
    drawn = 0
    while drawn < least and (block := next(blocks, None)) is not None:
        taken.append(block)
        drawn += sum(side.size for group in block for side in group)
    if len(taken) < 2:
        return taken[0] if taken else None
    parts = zip(*taken, strict=True)
    return [(np.concatenate([one[0] for one in group]), np.concatenate([one[1] for one in group])) for group in parts]


def _chunks(sizes: list[tuple[int, int]], resamples: int, seed: int) -> Iterator[Draws]:
    """All resamples, drawn by a thread of their own while the caller counts those before."""
    blocks = _blocks(sizes, resamples, seed)
    with ThreadPoolExecutor(1) as drawer:
        coming = drawer.submit(_chunk, blocks, _CHUNK)
        while (chunk := coming.result()) is not None:
            coming = drawer.submit(_chunk, blocks, _CHUNK)
            yield chunk


# ---- their figures -----------------------------------------------------------------------------------------------


def _places(pairs: list[tuple[Floats, Floats]]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(pairs, members) and (pairs, non-members): the place of each score among the distinct ones, 0 for the largest."""
    members: list[NDArray[np.int32]] = []
    nonmembers: list[NDArray[np.int32]] = []
    for positive, negative in pairs:
        distinct, place = np.unique(np.concatenate([positive, negative]), return_inverse=True)
        places = (len(distinct) - 1 - place).astype(np.int32)
        members.append(places[: len(positive)])
        nonmembers.append(places[len(positive) :])
    return np.stack(members), np.stack(nonmembers)


class _Resampler:
    """Several attacks' scores of the same samples, ranked once: all together and, with groups, in each of them."""

    def __init__(
        self,
        pairs: list[tuple[Floats, Floats]],
        statistics: Sequence[Statistic],
        groups: Groups | None,
        pooled: bool,
        rate: float,
        strict: bool,
    ) -> None:
        members, nonmembers = (len(side) for side in pairs[0])
        self.statistics = statistics
        self.strata = _strata(members, nonmembers, groups)
        self.sizes = [(len(ours), len(theirs)) for ours, theirs in self.strata]
        by_group = len(self.strata) > 1 and not pooled and "auc" in statistics
        self.together = None if by_group and set(statistics) == {"auc"} else _places(pairs)
        self.within = [
            _places([(positive[ours], negative[theirs]) for positive, negative in pairs])
            for ours, theirs in (self.strata if by_group else [])
        ]
        self.allowed = {
            "false_positives": allowed_errors("fpr", rate, nonmembers, strict) if "tpr_at_fpr" in statistics else 0,
            "false_negatives": allowed_errors("fnr", rate, members, strict) if "tnr_at_fnr" in statistics else 0,
        }
        self.threads = _core.default_threads()

    def figures(self, draws: Draws) -> Floats:
        """(pairs, statistics, rows)."""
        found: dict[str, Floats] = {}
        if self.together is not None:
            drawn = [draws[0][side] if len(draws) == 1 else self._among_all(draws, side) for side in (0, 1)]
            members, nonmembers = drawn[0].shape[1], drawn[1].shape[1]
            counts = _core.bootstrap(*self.together, *drawn, **self.allowed, threads=self.threads)
            twice, gain, true_positives, false_positives = counts
            found = {
                "auc": twice / (2.0 * members * nonmembers),
                "balanced_accuracy_oracle": 0.5 + gain / (2.0 * members * nonmembers),
                "tpr_at_fpr": true_positives / members,
                "tnr_at_fnr": 1.0 - false_positives / nonmembers,
            }
        if self.within:
            parts = [
                _core.bootstrap(*places, *draw, false_positives=0, false_negatives=0, threads=self.threads)[0]
                / (2.0 * ours * theirs)
                for places, draw, (ours, theirs) in zip(self.within, draws, self.sizes, strict=True)
            ]
            found["auc"] = np.average(parts, axis=0, weights=[ours * theirs for ours, theirs in self.sizes])
        return np.stack([found[name] for name in self.statistics], axis=1)

    def _among_all(self, draws: Draws, side: int) -> Ints:
        """Positions inside a group -> positions among all the members (0) or non-members (1)."""
        return np.concatenate([own[side][draw[side]] for own, draw in zip(self.strata, draws, strict=True)], axis=1)

    def identity(self) -> Draws:
        """The samples themselves, each once."""
        return [tuple(np.arange(size, dtype=np.int32)[None] for size in sizes) for sizes in self.sizes]  # type: ignore[misc]


def _checked(pair: Scores, names: tuple[str, str]) -> tuple[Floats, Floats]:
    return checked_scores(names[0], pair[0]), checked_scores(names[1], pair[1])


def _replicates(
    pairs: list[tuple[Floats, Floats]],
    statistics: Sequence[Statistic],
    seed: int,
    resamples: int,
    groups: Groups | None,
    pooled: bool,
    rate: float,
    strict: bool,
) -> tuple[Floats, Floats]:
    if resamples < 1:
        raise ValueError(f"resamples: expected at least 1, got {resamples}")
    if not statistics or not set(statistics) <= set(STATISTICS):
        raise ValueError(f"statistics: expected some of {', '.join(STATISTICS)}, got {statistics!r}")
    resampler = _Resampler(pairs, statistics, groups, pooled, rate, strict)
    values = resampler.figures(resampler.identity())[:, :, 0]
    found = [resampler.figures(draws) for draws in _chunks(resampler.sizes, resamples, seed)]
    return values, np.concatenate(found, axis=2)


def replicates(
    pairs: Sequence[Scores],
    statistics: Sequence[Statistic] = STATISTICS,
    *,
    seed: int,
    resamples: int = 1000,
    groups: Groups | None = None,
    pooled: bool = False,
    rate: float = LOW_RATE,
    strict: bool = True,
) -> tuple[Floats, Floats]:
    """-> values (pairs, statistics), replicates (pairs, statistics, resamples), of several attacks on the same samples.

    pairs: (members, nonmembers) scores, each attack's of the same samples in the same order. Every attack is computed
    on the same resamples, members and non-members drawn apart: differences and maxima of replicates are those of one
    and the same resample. The resamples depend on the seed and on the sizes of the groups alone, not on how many
    pairs there are. groups, pooled, rate, strict: as `bootstrap` says.
    """
    checked = []
    for place, pair in enumerate(pairs):
        if len(pair) != 2:
            raise ValueError(f"pairs[{place}]: expected (members, nonmembers), got {len(pair)} items")
        checked.append(_checked(pair, (f"pairs[{place}][0]", f"pairs[{place}][1]")))
    if not checked:
        raise ValueError("pairs: expected at least one (members, nonmembers), got none")
    sizes = [(len(members), len(nonmembers)) for members, nonmembers in checked]
    if len(set(sizes)) > 1:
        raise ValueError(f"pairs: expected scores of the same samples, got (members, non-members) {sizes}")
    return _replicates(checked, statistics, seed, resamples, groups, pooled, rate, strict)


# ---- intervals ---------------------------------------------------------------------------------------------------


def _estimates(
    statistics: Sequence[Statistic], values: Floats, replicates: Floats, n: int, oracle_limits: tuple[float, float]
) -> dict[str, Estimate]:
    estimates: dict[str, Estimate] = {}
    for name, value, own in zip(statistics, values, replicates, strict=True):
        low, high = np.percentile(own, [2.5, 97.5])
        if name == "balanced_accuracy_oracle":
            # The maximum over thresholds is too large, and that of a resample is too large once more: percentiles add
            # up both (measured: at AUC 0.5 and 1000 + 1000 samples they cover in 1 % of the cases, mirrored in 89 %).
            low, high = np.clip([2 * value - high, 2 * value - low], *oracle_limits)
        estimates[name] = Estimate(float(value), float(low), float(high), n)
    return estimates


def bootstrap(
    members: ArrayLike,
    nonmembers: ArrayLike,
    statistics: Sequence[Statistic] = STATISTICS,
    *,
    seed: int,
    resamples: int = 1000,
    groups: Groups | None = None,
    pooled: bool = False,
    rate: float = LOW_RATE,
    strict: bool = True,
) -> dict[str, Estimate]:
    """Each statistic with its 95 % bootstrap interval; members and non-members are resampled apart.

    The interval is the percentiles'; for the oracle accuracy, which is biased upwards, they are mirrored at the value.
    Below some thousand samples that of a rate at 0.1 % is rough, for it rests on one or two samples.

    groups: for repeats, two integer arrays that name the classifier which scored each member and each non-member.
    Resampling keeps to the groups. Different classifiers' scores have no common scale, so the AUC is the share of right
    pairs among all pairs of one classifier; `pooled=True` counts the pairs across classifiers too. The statistics
    that pick a threshold on the samples evaluated pick one for all groups: one each would make them too large, and
    a rate of 0.1 % cannot be seen in a small group. rate, strict: of `tpr_at_fpr` and `tnr_at_fnr`.
    """
    pair = _checked((members, nonmembers), ("members", "nonmembers"))
    values, found = _replicates([pair], statistics, seed, resamples, groups, pooled, rate, strict)
    return _estimates(statistics, values[0], found[0], sum(map(len, pair)), (0.5, 1.0))


def paired_bootstrap(
    defended: Scores,
    undefended: Scores,
    statistics: Sequence[Statistic] = STATISTICS,
    *,
    seed: int,
    resamples: int = 1000,
    groups: Groups | None = None,
    pooled: bool = False,
    rate: float = LOW_RATE,
    strict: bool = True,
) -> dict[str, Estimate]:
    """defended - undefended of each statistic, with its interval: each resample takes the same samples from both.

    defended, undefended: (members, nonmembers) scores of the same samples in the same order. The rest as `bootstrap`.
    """
    after = _checked(defended, ("defended[0]", "defended[1]"))
    before = _checked(undefended, ("undefended[0]", "undefended[1]"))
    sizes = [tuple(map(len, pair)) for pair in (after, before)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            "defended, undefended: expected scores of the same samples, "
            f"got (members, non-members) {sizes[0]} and {sizes[1]}"
        )
    values, found = _replicates([after, before], statistics, seed, resamples, groups, pooled, rate, strict)
    return _estimates(statistics, values[0] - values[1], found[0] - found[1], sum(sizes[0]), (-0.5, 0.5))
