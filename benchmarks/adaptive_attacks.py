"""Label-only and adaptive attacks on the demo's setting: digits, few members, a fence of scenario 1.

    nice -n 19 python benchmarks/adaptive_attacks.py [--repeats 5] [--n 30] [--out FILE.csv]

Classifiers overfit 100 digits each, one diffusion model is trained on the members of all. Attacks are fitted on the
known images of each classifier and evaluated on others; AUCs are pooled within classifiers. Targets: "bare" is the
classifier; "fence" its fence, whose noise is keyed by the image; "fresh noise" a fence that draws new noise for each
query. The fence stops early, which changes no answer; latency is counted in draws, so it is that of draws="early".
"""

from __future__ import annotations

import argparse
import itertools
import pathlib
import tempfile
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from diffence import classifiers
from diffence.attacks import (
    Attack,
    Augmentation,
    Boundary,
    Correctness,
    Evaluation,
    FallbackDetection,
    Loss,
    NearDuplicates,
    NoiseRobustness,
    Outputs,
    RepeatQueries,
    Target,
    Timing,
    evaluate,
    pool,
)
from diffence.data import Dataset, Splits, load, normalisation, repeats
from diffence.engine import Engine
from diffence.experiments.demo import small_network
from diffence.fence import Diffence
from diffence.files import write_text
from diffence.unets import load as load_diffusion
from diffence.unets import train_diffusion

MEMBERS, KNOWN, CALIBRATION = 100, 30, 30
GROUPS = ("known_members", "known_nonmembers", "target_members", "target_nonmembers")


def fenced(data: Dataset, split: Splits, engine: Engine, seed: int, n: int, T: int) -> Diffence:
    """A convnet trained on the members of `split`, behind a fence of scenario 1."""
    images, labels = data.images[split.members], data.labels[split.members]
    mean, std = normalisation(images)
    channels, *size = data.shape
    network = classifiers.build("convnet", classes=data.classes, channels=channels, image=size, seed=seed)
    classifiers.train(network, images, labels, epochs=100, seed=seed, mean=mean, std=std, batch=32, progress=False)
    fence = Diffence(network, engine, n=n, T=T, key=seed, mean=mean, std=std, draws="early")
    return fence.fit(data.images[split.calibration_members], data.images[split.calibration_nonmembers])


def attacked(target: Target, attacks: Sequence[Attack], data: Dataset, split: Splits, seed: int) -> list[Evaluation]:
    """Each attack on the target; those that ask the same share what was answered."""
    parts = [getattr(split, group) for group in GROUPS]
    whole, ends = np.concatenate(parts), np.cumsum([0] + [len(part) for part in parts])
    collected: dict[object, list[Outputs]] = {}
    found = []
    for attack in attacks:
        if attack.query not in collected:
            outputs = attack.collect(target, data.images[whole], data.labels[whole])
            collected[attack.query] = [outputs.take(np.arange(a, b)) for a, b in itertools.pairwise(ends)]
        known_members, known_nonmembers, members, nonmembers = collected[attack.query]
        found.append(evaluate(attack, known_members, known_nonmembers, members, nonmembers, seed=seed))
    return found


def targets(fence: Diffence, alone: Diffence) -> list[tuple[str, Target, list[Attack]]]:
    """(name, target, attacks). alone: the same fence with an engine that computes one draw at a time."""

    def rekeyed() -> Target:
        keys.append(keys[-1] + 1)
        return Target(fence.rekeyed(keys[-1]))

    keys = [10**6]
    bare = Target(fence.classify, ask_labels=lambda images: fence.classify(images).argmax(1))
    label_only: list[Attack] = [
        Correctness(),
        Augmentation(),
        Augmentation(combine="logistic"),
        Augmentation("rotations", d=15),
        NoiseRobustness(sigma=(0.1, 0.2, 0.3)),
        Boundary(),
    ]
    return [
        ("bare", bare, [*label_only, Loss(), RepeatQueries(k=1), *NearDuplicates.ladder()]),
        (
            "fence",
            Target(fence),
            [Loss(), *RepeatQueries.ladder(), *NearDuplicates.ladder(), FallbackDetection(asked=63)],
        ),
        ("fence", Target(alone), [Timing(repeats=1, clock=lambda: float(alone.counts["draws"]))]),
        ("fresh noise", Target(fence, rekey=rekeyed), list(RepeatQueries.ladder(fresh=True))),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="classifiers (default %(default)s)")
    parser.add_argument("--n", type=int, default=30, help="reconstructions an image (default %(default)s)")
    parser.add_argument("--T", type=int, default=160, help="noise level (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ddpm", type=pathlib.Path, help="of the diffusion model: read, or trained if missing")
    parser.add_argument("--threads", type=int, help="of torch and of the engine (default: all cores)")
    parser.add_argument("--out", type=pathlib.Path, help="a CSV file for the table, written after each classifier")
    arguments = parser.parse_args()
    start = time.perf_counter()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    data = load("digits")
    splits = repeats(
        data.labels,
        count=arguments.repeats,
        members=MEMBERS,
        known=KNOWN,
        calibration=CALIBRATION,
        target=MEMBERS - KNOWN - CALIBRATION,
        seed=arguments.seed,
    )
    with tempfile.TemporaryDirectory() as scratch:
        path = arguments.ddpm or pathlib.Path(scratch) / "ddpm.safetensors"
        if not path.exists():
            members = data.images[np.concatenate([split.members for split in splits])]
            network = small_network(data.shape, arguments.T)
            train_diffusion(
                members, network, out=path, steps=500, batch=64, lr=1e-3, flip=False, seed=arguments.seed, progress=True
            )
        model = load_diffusion(path)
    engine, single = Engine(model, threads=arguments.threads), Engine(model, threads=arguments.threads, batch=1)
    found: dict[tuple[str, str], list[Evaluation]] = {}
    for number, split in enumerate(tqdm(splits, "classifiers")):
        fence = fenced(data, split, engine, arguments.seed + number, arguments.n, arguments.T)
        alone = fenced_alone(fence, single)
        for name, target, attacks in targets(fence, alone):
            begun = time.perf_counter()
            for evaluation in attacked(target, attacks, data, split, arguments.seed):
                found.setdefault((name, evaluation.attack), []).append(evaluation)
            tqdm.write(f"{name}: {', '.join(attack.name for attack in attacks)}: {time.perf_counter() - begun:.0f} s")
        if arguments.out is not None:
            write_text(arguments.out, tabulate(found).to_csv(index=False))
    print(tabulate(found).to_string(index=False, float_format="%.3f"))
    print(f"It took {time.perf_counter() - start:.0f} s.")


def tabulate(found: dict[tuple[str, str], list[Evaluation]]) -> pd.DataFrame:
    """A row for each attack on each target, pooled over the classifiers."""
    rows = []
    for (name, attack), evaluations in found.items():
        figures = pool(evaluations).metrics
        auc, accuracy = figures["auc"], figures["balanced_accuracy"]
        rows.append((name, attack, *auc[:3], *accuracy[:3], len(evaluations), auc.n))
    columns = [
        "target",
        "attack",
        "auc",
        "low",
        "high",
        "accuracy",
        "accuracy_low",
        "accuracy_high",
        "classifiers",
        "n",
    ]
    return pd.DataFrame(rows, columns=columns)


def fenced_alone(fence: Diffence, single: Engine) -> Diffence:
    """The same fence on another engine."""
    settings = fence.settings() | {"key": fence.key} | fence._classify.settings()
    other = Diffence(fence.classifier, single, **settings)
    other.interval_ = fence.interval_
    return other


if __name__ == "__main__":
    main()
