#!/usr/bin/env python3
"""Time to score 50,000 samples with 256 shadow models: every attack that uses shadows, fitted before.

python benchmarks/lira_speed.py
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from diffence import metrics
from diffence.attacks import RMIA, Attack, DifficultyCalibration, LiRA, ShadowOutputs, assign


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--shadows", type=int, default=256)
    parser.add_argument("--queries", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    members, nonmembers = (outputs(arguments, seed) for seed in (0, 1))
    known = members.take(np.arange(1000)), nonmembers.take(np.arange(1000))
    attacks: list[Attack] = [
        LiRA(),
        LiRA(centre="mean"),
        LiRA(variance="pooled"),
        LiRA(mode="offline"),
        LiRA.published("online"),
        RMIA(),
        RMIA(mode="offline"),
        DifficultyCalibration(),
    ]
    print(
        f"{arguments.samples} samples, {arguments.shadows} shadows, {arguments.queries} queries; best and worst of "
        f"{arguments.repeats} runs, processor seconds of the best, in s"
    )
    for attack in attacks:
        attack.fit(*known)
        times = []
        for _ in range(arguments.repeats):
            began, used = time.perf_counter(), time.process_time()
            scores = attack.score(members)
            times.append((time.perf_counter() - began, time.process_time() - used))
        auc = metrics.auc(scores, attack.score(nonmembers))
        best, worst = min(times), max(times)
        print(f"{attack.name:45} {best[0]:6.2f} {worst[0]:6.2f} {best[1]:6.2f}   AUC {auc:.3f}")


def outputs(arguments: argparse.Namespace, seed: int) -> ShadowOutputs:
    """Made-up answers of the shape of real ones; seed 0: members."""
    rng = np.random.default_rng(seed)
    n = arguments.samples
    inside = assign(arguments.shadows, n, seed)
    hardness = rng.normal(3, 2, (n, 1))
    shadow = hardness[:, :, None] + rng.normal(0, 1, (n, arguments.shadows, arguments.queries)) + inside[:, :, None]
    own = hardness + rng.normal(0, 1, (n, arguments.queries)) + (seed == 0)
    return ShadowOutputs(np.stack([own[:, 0], 0 * own[:, 0]], 1), np.zeros(n, np.int64), shadow, inside, signals=own)


if __name__ == "__main__":
    main()
