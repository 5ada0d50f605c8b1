"""Time of bootstrapping several attacks on the same samples: the core beside the NumPy that it replaced.

    python benchmarks/bootstrap.py [--samples 50000] [--attacks 5] [--resamples 1000] [--plain 10]

Distinct float scores of `samples` members and as many non-members; all statistics; drawing included. NumPy counts
every threshold of every resample. It is timed on the first `plain` resamples of one attack, and the rest is
extrapolated. Their figures must be equal to the last bit. CPU time depends less than seconds on what else runs.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffence import _core, metrics


def counted(places: NDArray[Any], draws: NDArray[Any], points: int) -> NDArray[Any]:
    """(rows, points): how many drawn samples have at most each place; nobody has place 0."""
    flat = (places[draws] + points * np.arange(len(draws))[:, None]).ravel()
    return np.bincount(flat, minlength=len(draws) * points).reshape(len(draws), points).cumsum(axis=1)


def plain_figures(members: NDArray[Any], nonmembers: NDArray[Any], rows: int, resamples: int) -> NDArray[Any]:
    """AUC and oracle accuracy of the first `rows` resamples (all of the first block of draws or fewer)."""
    n = len(members)
    distinct, place = np.unique(np.concatenate([members, nonmembers]), return_inverse=True)
    places, points = len(distinct) - place, len(distinct) + 1
    rng = np.random.default_rng(0)
    block = min(max(1, 2**20 // (2 * n)), resamples)
    ours, theirs = rng.integers(n, size=(block, n))[:rows], rng.integers(n, size=(block, n))[:rows]
    tp, fp = counted(places[:n], ours, points), counted(places[n:], theirs, points)
    auc = np.einsum("rp,rp->r", np.diff(fp, axis=1), tp[:, 1:] + tp[:, :-1]) / (2.0 * n * n)
    return np.stack([auc, 0.5 + (tp * n - fp * n).max(axis=1) / (2.0 * n * n)])


def main() -> None:
    parser = argparse.ArgumentParser(description="The bootstrap: the core beside plain NumPy.")
    parser.add_argument("--samples", type=int, default=50_000, help="members, and as many non-members")
    parser.add_argument("--attacks", type=int, default=5)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--plain", type=int, default=10, help="resamples that NumPy counts (default: 10)")
    args = parser.parse_args()
    if min(args.samples, args.attacks, args.resamples, args.plain) < 1:
        parser.error("expected at least 1 of each")

    rng = np.random.default_rng(1)
    pairs = [(rng.normal(0.3, 1, args.samples), rng.normal(0, 1, args.samples)) for _ in range(args.attacks)]
    wall, cpu = time.perf_counter(), time.process_time()
    _, found = metrics.replicates(pairs, seed=0, resamples=args.resamples)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu

    rows = min(args.plain, args.resamples, max(1, 2**20 // (2 * args.samples)))
    start = time.process_time()
    plain = plain_figures(*pairs[0], rows, args.resamples)
    each = (time.process_time() - start) / rows
    if not np.array_equal(plain, found[0, :2, :rows]):
        sys.exit("the core and NumPy disagree")
    whole = each * args.resamples * args.attacks
    print(f"{args.attacks} attacks, {args.samples} + {args.samples} scores, {args.resamples} resamples, ", end="")
    print(f"{_core.default_threads()} threads, NumPy {np.__version__}")
    print(f"core   {wall:7.2f} s, CPU {cpu:.2f} s")
    print(f"NumPy  {whole:7.1f} s of CPU, from {rows} resamples of one attack: {whole / cpu:.0f}x")


if __name__ == "__main__":
    main()
