#!/usr/bin/env python3
"""Whether the engine's threads and torch's get in each other's way when they take turns, as in a fence.

    python benchmarks/pool_and_torch.py [--rounds 15]

A batch of evaluations of the 64-channel UNet and a classification (ResNet-18) are timed alone, call after call, and in
turn. Printed are medians in ms and the median of the ratios within rounds: 1 is no interference.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from harness.networks import NETWORKS, random_unet
from tqdm.auto import trange

from diffence import Engine
from diffence.classifiers.resnet import ResNet18


def seconds(calls: list[Callable[[], object]]) -> list[float]:
    """Of each call, the second time that all of them are made in this order."""
    for call in calls:
        call()
    found = []
    for call in calls:
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.manual_seed(0)
    engine = Engine(random_unet(NETWORKS["c64"]), batch=16)
    classifier = ResNet18(10, 3, (32, 32)).eval()
    x, t = np.random.default_rng(0).standard_normal((16, 3, 32, 32), np.float32), np.full(16, 100, np.int32)
    images = torch.rand(16, 3, 32, 32)

    def evaluate() -> object:
        return engine.predict_noise(x, t)

    def classify() -> object:
        with torch.inference_mode():
            return classifier(images)

    alone, turns = [], []
    for _ in trange(rounds, leave=False):
        alone.append((seconds([evaluate])[0], seconds([classify])[0]))
        turns.append(seconds([evaluate, classify]))
    for place, name in enumerate(("engine", "classifier")):
        first, second = ([pair[place] for pair in pairs] for pairs in (alone, turns))
        ratio = statistics.median(b / a for a, b in zip(first, second, strict=True))
        apart, beside = (1e3 * statistics.median(times) for times in (first, second))
        print(f"{name:10} alone {apart:7.1f} ms   in turn {beside:7.1f} ms   ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
