#!/usr/bin/env python3
"""Shadow-model attacks on a small CIFAR-10 network, beside the attacks that need no shadows.

    python benchmarks/lira_cifar10.py --data ../shared/data

--data as for cifar10_slice.py, whose network this is, half as wide. The pool is shared by the shadows and the target:
every model is trained on half of it, the target on a half drawn on its own: the shadows' membership says nothing
about the target's. All models are kept in --out; a second run, or one after Ctrl-C or a kill, goes on from there.
--quick checks the plumbing and shows nothing about privacy.
"""

from __future__ import annotations

import argparse
import pathlib
import time
import warnings

import numpy as np
from cifar10 import read
from numpy.typing import NDArray

from diffence import metrics
from diffence.attacks import (
    RMIA,
    Attack,
    Correctness,
    DifficultyCalibration,
    Entropy,
    Evaluation,
    ImageOutputs,
    LiRA,
    Loss,
    ModifiedEntropy,
    Outputs,
    QuantileRegression,
    Salem,
    ShadowOutputs,
    assign,
    compare,
    evaluate,
)
from diffence.data import Dataset
from diffence.results import Results
from diffence.shadows import ShadowRecipe, Shadows

COLUMNS = {"auc": "AUC", "balanced_accuracy": "balanced accuracy", "tpr_at_fpr": "TPR at 0.1 % FPR"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("artifacts/lira_cifar10"))
    parser.add_argument("--pool", type=int, default=8000)
    parser.add_argument("--shadows", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--known", type=int, default=1000, help="the attacker's, members and as many non-members")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all?")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.pool, arguments.shadows, arguments.epochs, arguments.known = 400, 4, 2, 60
    dataset = read(arguments.data)
    models = make_models(dataset, arguments)
    results = Results({"arguments": {name: str(value) for name, value in vars(arguments).items()}})
    with results.timed("training in this run"):
        models.train()
    with results.timed("asking and attacking"):
        found, seen, truth = attack_target(models, arguments)
    gap = metrics.gap_floor(*(accuracy(seen.take(group)) for group in (truth, ~truth)))
    results.setup["target"] = {
        "accuracy on its members": accuracy(seen.take(truth)),
        "accuracy on the others": accuracy(seen.take(~truth)),
        "gap floor": gap,
        "members": int(truth.sum()),
    }
    print(f"\ntarget: {results.setup['target']}\n")
    print_table(found)
    where = {"dataset": "cifar10", "classifier": f"resnet_small, width {arguments.width}", "seed": arguments.seed}
    for evaluation in found:
        for metric, own in evaluation.metrics.items():
            results.add(metric, own.value, own.low, own.high, own.n, attack=evaluation.attack, **where)
    by_name = {evaluation.attack: evaluation for evaluation in found}
    change = compare(by_name["lira online"], by_name["loss"])
    print("\nlira online - loss, paired:")
    for metric, own in change.items():
        print(f"  {metric}: {100 * own.value:+.2f} ({100 * own.low:+.2f} to {100 * own.high:+.2f})")
        results.add(metric, own.value, own.low, own.high, own.n, attack="lira online - loss", **where)
    print_each_shadow(models, arguments, seen)
    print("\nseconds:", ", ".join(f"{name} {seconds:.0f}" for name, seconds in results.times.items()))
    results.save(arguments.out)


def make_models(dataset: Dataset, arguments: argparse.Namespace) -> Shadows:
    """The shadows, and after them the target: all of one recipe."""
    rng = np.random.default_rng([arguments.seed, 1])
    pool = np.sort(rng.permutation(len(dataset))[: arguments.pool])
    inside = assign(arguments.shadows, arguments.pool, arguments.seed)
    half = rng.permutation(arguments.pool) < arguments.pool // 2
    recipe = ShadowRecipe(
        network="resnet_small", epochs=arguments.epochs, lr=1e-3, batch=64, options={"width": arguments.width}
    )
    return Shadows(
        dataset.images[pool],
        dataset.labels[pool],
        recipe,
        folder=arguments.out,
        seed=arguments.seed,
        inside=np.concatenate([inside, half[:, None]], axis=1),
        classes=dataset.classes,
        n_jobs=arguments.jobs,
    )


def attack_target(
    models: Shadows, arguments: argparse.Namespace
) -> tuple[list[Evaluation], ShadowOutputs, NDArray[np.bool_]]:
    """Every attack on the last of the models; its answers beside the shadows', and who its members are."""
    target = models.target(len(models) - 1)
    truth = models.inside[:, -1]
    seen = models.subset(np.arange(len(models) - 1)).collect(target, models.images)
    images = ImageOutputs(seen.logits, seen.true_labels, models.images)
    known = known_samples(truth, arguments)
    seed = arguments.seed
    shadow_attacks: list[Attack] = [
        DifficultyCalibration(),
        LiRA(),
        LiRA(variance="per-sample"),
        LiRA(mode="offline"),
        LiRA(mode="offline", variance="per-sample"),
        LiRA.published("online"),
        LiRA.published("online", fixed_variance=True),
        LiRA.published("offline", fixed_variance=True),
        RMIA(),
        RMIA(mode="offline"),
        RMIA.published("cifar10", "online"),
        RMIA.published("cifar10", "offline"),
    ]
    plan: list[tuple[Attack, Outputs]] = [
        *((attack, seen) for attack in (Correctness(), Loss(), ModifiedEntropy(), Entropy(), Salem(seed=seed))),
        *((QuantileRegression(seed=seed, regression=kind), images) for kind in ("gaussian", "pinball")),
        *((attack, seen) for attack in shadow_attacks),
    ]
    return [one(attack, outputs, truth, known, seed) for attack, outputs in plan], seen, truth


def known_samples(truth: NDArray[np.bool_], arguments: argparse.Namespace) -> NDArray[np.bool_]:
    """The attacker's: equally many members and non-members, drawn."""
    rng = np.random.default_rng([arguments.seed, 2])
    known = np.zeros(len(truth), bool)
    for group in (truth, ~truth):
        known[rng.permutation(np.flatnonzero(group))[: arguments.known]] = True
    return known


def one(attack: Attack, outputs: Outputs, truth: NDArray[np.bool_], known: NDArray[np.bool_], seed: int) -> Evaluation:
    groups = (known & truth, known & ~truth, ~known & truth, ~known & ~truth)
    return evaluate(attack, *(outputs.take(group) for group in groups), seed=seed)


def accuracy(outputs: Outputs) -> float:
    return float((outputs.predicted == outputs.true_labels).mean())


def print_table(found: list[Evaluation]) -> None:
    """Markdown, in percent, 95 % intervals in brackets."""
    print(f"| attack | {' | '.join(COLUMNS.values())} |\n|---|{'---|' * len(COLUMNS)}")
    for evaluation in found:
        cells = []
        for metric in COLUMNS:
            own = evaluation.metrics[metric]
            cells.append(f"{100 * own.value:.2f} ({100 * own.low:.2f} to {100 * own.high:.2f})")
        print(f"| {evaluation.attack} | {' | '.join(cells)} |", flush=True)


def print_each_shadow(models: Shadows, arguments: argparse.Namespace, seen: ShadowOutputs) -> None:
    """Each shadow as the target, attacked with the other shadows: how much of it all is the chance of one training."""
    attacks: list[Attack] = [Loss(), LiRA(), LiRA(mode="offline"), RMIA(), RMIA(mode="offline")]
    figures: dict[str, list[tuple[float, float]]] = {attack.name: [] for attack in attacks}
    assert seen.shadow_logits is not None
    for shadow in range(seen.shadows):
        truth = seen.inside[:, shadow]
        others = np.delete(np.arange(seen.shadows), shadow)
        outputs = ShadowOutputs.from_logits(
            seen.shadow_logits[:, shadow, 0],
            seen.true_labels,
            seen.shadow_logits[:, others, 0],
            seen.inside[:, others],
        )
        known = known_samples(truth, arguments)
        for attack in attacks:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of samples without a shadow on a side, with few shadows
                scores = one(attack, outputs, truth, known, arguments.seed).scores
            figures[attack.name].append((metrics.auc(*scores), metrics.tpr_at_fpr(*scores)))
    print(f"\neach of the {seen.shadows} shadows as the target of the others, mean (smallest to largest):\n")
    print("| attack | AUC | TPR at 0.1 % FPR |\n|---|---|---|")
    for name, pairs in figures.items():
        cells = [
            f"{100 * np.mean(own):.2f} ({100 * min(own):.2f} to {100 * max(own):.2f})"
            for own in zip(*pairs, strict=True)
        ]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    began = time.perf_counter()
    main()
    print(f"{time.perf_counter() - began:.0f} s in all")
