"""How often the 95 % intervals hold the true value, in simulations whose true value is known.

    python benchmarks/interval_coverage.py [--simulations 2000] [--resamples 1000] [--only auc]

Scores are normal, members shifted by sqrt(2) Phi^-1(AUC). "below", "above": how often the interval lies below or above
the true value; each should be 2.5 %. "width": the mean, in points. "+-": the simulation's own standard error. For the
maximum of eight attacks, and its change, the last columns are the bias of the value and of the naive one, in points.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy import stats

from diffence import metrics

os.environ.setdefault("DIFFENCE_NUM_THREADS", "1")  # the simulations run side by side

Floats = NDArray[np.float64]
Pair = tuple[Floats, Floats]


class Seen(NamedTuple):
    """One interval and what is true."""

    low: float
    high: float
    true: float
    value: float = math.nan
    naive: float = math.nan


def shift(auc: float | Floats) -> Floats:
    return np.asarray(math.sqrt(2) * stats.norm.ppf(auc))


def normal_scores(auc: float, n: int, seed: int) -> Pair:
    rng = np.random.default_rng(seed)
    return rng.normal(shift(auc), 1, n), rng.normal(0, 1, n)


def attacks(aucs: list[float], correlation: float, n: int, seed: int) -> list[Pair]:
    """Attacks of these true AUCs on the same n + n samples, each two correlated as said."""
    rng = np.random.default_rng(seed)
    common, own = math.sqrt(correlation), math.sqrt(1 - correlation)
    noise = [common * rng.normal(size=n) + own * rng.normal(size=(len(aucs), n)) for _ in range(2)]
    return list(zip(noise[0] + shift(np.array(aucs))[:, None], noise[1], strict=True))


def auc(true: float, n: int, seed: int, resamples: int) -> Seen:
    found = metrics.bootstrap(*normal_scores(true, n, seed), ("auc",), seed=seed, resamples=resamples)["auc"]
    return Seen(found.low, found.high, true)


def calibrated_accuracy(true: float, n: int, seed: int, resamples: int) -> Seen:
    """Balanced accuracy of decisions at a given threshold: half the shift, where TPR = TNR = Phi(shift / 2)."""
    middle = float(shift(true)) / 2
    decisions = [own >= middle for own in normal_scores(true, n, seed)]
    found = metrics.bootstrap(decisions[0], decisions[1], ("auc",), seed=seed, resamples=resamples)["auc"]
    return Seen(found.low, found.high, float(stats.norm.cdf(middle)))


def oracle_accuracy(true: float, n: int, seed: int, resamples: int) -> Seen:
    name = "balanced_accuracy_oracle"
    found = metrics.bootstrap(*normal_scores(true, n, seed), (name,), seed=seed, resamples=resamples)[name]  # type: ignore[arg-type]
    return Seen(found.low, found.high, float(stats.norm.cdf(shift(true) / 2)))


def rate(true: float, n: int, seed: int, resamples: int) -> Seen:
    """Clopper-Pearson, of a share of n samples that is `true`."""
    return Seen(*metrics.clopper_pearson(int(np.random.default_rng(seed).binomial(n, true)), n), true)


def change(true: float, n: int, seed: int, resamples: int) -> Seen:
    """A paired difference: AUC `true` before, 0.55 after, correlated 0.7."""
    after, before = attacks([0.55, true], 0.7, n, seed)
    found = metrics.paired_bootstrap(after, before, ("auc",), seed=seed, resamples=resamples)["auc"]
    return Seen(found.low, found.high, 0.55 - true)


EIGHT = {
    "all 0.5, independent": ([0.5] * 8, 0.0),
    "all 0.5, correlated 0.9": ([0.5] * 8, 0.9),
    "one 0.7, others 0.5": ([0.7] + [0.5] * 7, 0.3),
    "from 0.50 to 0.56": (list(np.linspace(0.5, 0.56, 8)), 0.5),
    "all 0.97, correlated 0.5": ([0.97] * 8, 0.5),
}


def maximum(case: str, n: int, seed: int, resamples: int) -> Seen:
    aucs, correlation = EIGHT[case]
    values, found = metrics.replicates(attacks(aucs, correlation, n, seed), ("auc",), seed=seed, resamples=resamples)
    strongest = metrics.maximum(values[:, 0], found[:, 0])
    return Seen(strongest.low, strongest.high, max(aucs), strongest.value, strongest.naive)


TWO = {
    "all 0.7 -> all 0.7": ([0.7] * 8, [0.7] * 8),
    "one 0.8 -> all 0.6": ([0.8] + [0.5] * 7, [0.6] * 8),
    "one 0.8 -> one 0.6": ([0.8] + [0.5] * 7, [0.6] + [0.5] * 7),
}


def maxima(case: str, n: int, seed: int, resamples: int) -> Seen:
    """The change of the maximum over eight attacks, correlated 0.5, and those of before with those of after."""
    before, after = TWO[case]
    pairs = attacks([*after, *before], 0.5, n, seed)
    values, found = metrics.replicates(pairs, ("auc",), seed=seed, resamples=resamples)
    sides = [(values[part, 0], found[part, 0]) for part in (slice(8), slice(8, 16))]
    low, high = metrics.maximum_change(*sides[0], *sides[1])
    value = metrics.maximum(*sides[0]).value - metrics.maximum(*sides[1]).value
    return Seen(low, high, max(after) - max(before), value, sides[0][0].max() - sides[1][0].max())


def cases() -> Iterator[tuple[str, str, Callable[..., Seen], float | str, int]]:
    for n in (100, 1000):
        for true in (0.5, 0.68, 0.9):
            yield "auc", f"AUC {true}", auc, true, n
        for true in (0.5, 0.68, 0.9):
            yield "accuracy", f"balanced accuracy at AUC {true}", calibrated_accuracy, true, n
        for true in (0.5, 0.68, 0.9):
            yield "oracle", f"oracle accuracy at AUC {true}", oracle_accuracy, true, n
        for true in (0.68, 0.9):
            yield "change", f"AUC {true} -> 0.55", change, true, n
    for true, n in ((0.001, 1000), (0.001, 10000), (0.3, 100)):
        yield "rate", f"rate {true:.1%}", rate, true, n
    for n in (200, 1000):
        for case in EIGHT:
            yield "maximum", f"maximum, {case}", maximum, case, n
        for case in TWO:
            yield "maxima", f"change of maximum, {case}", maxima, case, n


def main() -> None:
    parser = argparse.ArgumentParser(description="How often intervals cover.")
    parser.add_argument("--simulations", type=int, default=2000, help="of each case (default: 2000)")
    parser.add_argument("--resamples", type=int, default=1000, help="of each bootstrap (default: 1000)")
    parser.add_argument("--only", help="one kind: auc, accuracy, oracle, change, rate, maximum, maxima")
    args = parser.parse_args()

    print(f"{args.simulations} simulations a case, {args.resamples} resamples; percentages")
    print(f"{'case':<36}{'n + n':>7}{'covers':>9}{'+-':>5}{'below':>7}{'above':>7}{'width':>7}{'bias':>8}{'naive':>7}")
    for kind, name, simulate, what, n in cases():
        if args.only not in (None, kind):
            continue
        seen = Parallel(n_jobs=-1)(delayed(simulate)(what, n, seed, args.resamples) for seed in range(args.simulations))
        low, high, true, value, naive = np.array(seen).T
        covers = float(((low <= true) & (true <= high)).mean())
        error = math.sqrt(covers * (1 - covers) / len(seen))
        line = (
            f"{name:<36}{n:>7}{covers:>9.1%}{error * 100:>5.1f}{(high < true).mean():>7.1%}{(low > true).mean():>7.1%}"
        )
        line += f"{(high - low).mean() * 100:>7.2f}"
        if kind in ("maximum", "maxima"):
            line += f"{(value - true).mean() * 100:>+8.2f}{(naive - true).mean() * 100:>+7.2f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
