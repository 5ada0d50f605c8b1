#!/usr/bin/env python3
"""How long an audit with the metric attacks takes: 50,000 + 50,000 evaluated samples, 1,000 bootstrap resamples.

    python benchmarks/audit_speed.py

Prints the seconds of the whole audit, from answers to intervals, and of a plain NumPy bootstrap of one attack's AUC
with as many resamples, beside which it is to be seen. The AUC of both must agree.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from diffence import metrics
from diffence.attacks import Outputs
from diffence.auditing import audit


def answers(n: int, classes: int, seed: int, sure: float) -> Outputs:
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), labels] += sure
    return Outputs(logits, labels)


def plain(members: np.ndarray, nonmembers: np.ndarray, resamples: int) -> tuple[float, float]:
    """The interval of the AUC by sorting every resample."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(resamples):
        ours = members[rng.integers(len(members), size=len(members))]
        theirs = np.sort(nonmembers[rng.integers(len(nonmembers), size=len(nonmembers))])
        below = np.searchsorted(theirs, ours, "left") + np.searchsorted(theirs, ours, "right")
        found.append(below.mean() / (2 * len(theirs)))
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=50_000, help="evaluated, of each group")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    groups = [answers(2 * arguments.samples, arguments.classes, seed, sure) for seed, sure in ((0, 3.0), (1, 2.5))]
    ours, theirs = [], []
    for _ in range(arguments.rounds):
        start = time.perf_counter()
        report = audit(None, *groups, "metric", resamples=arguments.resamples, progress=False)
        ours.append(time.perf_counter() - start)
        scores = report["loss"].evaluation.scores
        start = time.perf_counter()
        low, high = plain(*scores, max(1, arguments.resamples // 10))
        theirs.append(10 * (time.perf_counter() - start))
        auc = metrics.auc(*scores)
        if not low - 0.01 < auc < high + 0.01:
            raise SystemExit(f"the AUC {auc} and the plain interval [{low}, {high}] do not belong together")
    attacks = len(report.findings)
    print(f"{arguments.samples} + {arguments.samples} samples, {arguments.resamples} resamples, {attacks} attacks")
    print(f"audit: {statistics.median(ours):.2f} s; each round: {', '.join(f'{one:.2f}' for one in ours)}")
    print(
        f"one attack's AUC alone, plain NumPy: {statistics.median(theirs):.1f} s (a tenth of the resamples, times ten)"
    )


if __name__ == "__main__":
    main()
