#!/usr/bin/env python3
"""Shadow-model attacks on a small CIFAR-10 network, beside the attacks that need no shadows.

    python benchmarks/lira_cifar10.py --data ../shared/data

--data as for cifar10_slice.py, whose network this is, a little narrower. The pool is shared by 16 shadows and the
targets: every model is trained on half of it, the targets on halves drawn on their own. All models are kept in --out; a
second run, or one after Ctrl-C or a kill, goes on from there. --quick checks the plumbing and shows nothing about privacy.
"""

from __future__ import annotations

import argparse
import pathlib
import time

import numpy as np
from cifar10 import read

from diffence.data import Dataset
from diffence.shadows import ShadowRecipe, Shadows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("artifacts/lira_cifar10"))
    parser.add_argument("--pool", type=int, default=8000)
    parser.add_argument("--shadows", type=int, default=16)
    parser.add_argument("--targets", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--known", type=int, default=1000, help="the attacker's, members and as many non-members")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all?")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.pool, arguments.shadows, arguments.targets = 400, 4, 2
        arguments.epochs, arguments.known = 2, 60
    began = time.perf_counter()
    dataset = read(arguments.data)
    shadows = make_shadows(dataset, arguments).train()
    print(f"{len(shadows)} models, {time.perf_counter() - began:.0f} s in this run")


def make_shadows(dataset: Dataset, arguments: argparse.Namespace) -> Shadows:
    """The shadows, and after them the targets: all of one recipe."""
    from diffence.attacks.shadow import assign

    rng = np.random.default_rng([arguments.seed, 1])
    pool = np.sort(rng.permutation(len(dataset))[: arguments.pool])
    inside = assign(arguments.shadows, arguments.pool, arguments.seed)
    halves = np.stack([rng.permutation(arguments.pool) < arguments.pool // 2 for _ in range(arguments.targets)], axis=1)
    recipe = ShadowRecipe(
        network="resnet_small", epochs=arguments.epochs, lr=1e-3, batch=64, options={"width": arguments.width}
    )
    return Shadows(
        dataset.images[pool],
        dataset.labels[pool],
        recipe,
        folder=arguments.out,
        seed=arguments.seed,
        inside=np.concatenate([inside, halves], axis=1),
        classes=dataset.classes,
        n_jobs=arguments.jobs,
    )


if __name__ == "__main__":
    main()
