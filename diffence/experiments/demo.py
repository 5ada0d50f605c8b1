"""`diffence demo`: a real leak, and what the fence does to it, on one's own machine in minutes.

Small classifiers overfit few images of a real data set, one diffusion model is trained on the same images, and every
attack is run against the bare classifiers and against each setting of the fence. Few members mean wide intervals, so
several classifiers with disjoint members are attacked and their scores pooled.
"""

from __future__ import annotations

import argparse
import pathlib
import tempfile
import time
from typing import Literal

import numpy as np

from diffence import classifiers
from diffence.attacks import standard_attacks
from diffence.data import Dataset, Splits, load, normalisation
from diffence.data import repeats as disjoint_splits
from diffence.engine import Engine
from diffence.experiments.settings import evaluate_settings, image_grid, make_report, pool_outcomes, tabulate
from diffence.fence import Diffence
from diffence.progress import tqdm
from diffence.report import Report, text_table, write
from diffence.results import Results
from diffence.unets import DDPMConfig, train_diffusion

__all__ = ["add_arguments", "run", "run_demo", "small_network"]

_BATCH = 64  # of the diffusion model's training
_SHOWN = 6  # images in the grid of reconstructions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `diffence demo`."""
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("diffence-demo"), help="folder to write")
    parser.add_argument("--data", default="digits", help="an .npz (images, labels) or a folder of images of your own")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="classifiers, disjoint members (default %(default)s)")
    parser.add_argument("--members", type=int, default=100, help="training images of each (default %(default)s)")
    parser.add_argument("--epochs", type=int, default=100, help="of each classifier (default %(default)s)")
    parser.add_argument("--diffusion-steps", type=int, default=500, help="of the DDPM (default %(default)s)")
    parser.add_argument("--T", type=int, default=160, help="noise level of the fence (default %(default)s)")
    parser.add_argument("--n", type=int, default=30, help="reconstructions an image (default %(default)s)")
    parser.add_argument("--mode", choices=("paper", "official"), default="paper", help="default %(default)s")
    parser.add_argument("--flip", action="store_true", help="mirror images when training the DDPM (not for digits)")


def run(arguments: argparse.Namespace) -> None:
    """Run the demo as the options of `add_arguments` say, and print the table."""
    options = {name: value for name, value in vars(arguments).items() if name not in ("command", "run")}
    results, report = run_demo(**options)
    print()
    print(text_table(report.settings))
    print(f"\n{arguments.out / 'report.html'} has the figures, {arguments.out / 'results.csv'} every number.")
    print(f"It took {results.times['total']:.0f} s.")


def run_demo(
    out: pathlib.Path,
    *,
    data: str = "digits",
    seed: int = 0,
    repeats: int = 5,
    members: int = 100,
    epochs: int = 100,
    diffusion_steps: int = 500,
    T: int = 160,
    n: int = 30,
    mode: Literal["paper", "official"] = "paper",
    flip: bool = False,
    progress: bool = True,
) -> tuple[Results, Report]:
    """Train, fence, attack; write report.html, results.csv and results.json into `out`, all of them or none.

    data: "digits", or a source that `diffence.data.load` reads. members: training images of each of `repeats`
    classifiers; 3/10 of them are the attacker's, 3/10 the defender's for its interval, 4/10 are evaluated, and as many
    images that no classifier was trained on. Raises ValueError when the data set is too small for that.
    """
    start = time.perf_counter()
    dataset = load(data)
    known, calibration = 3 * members // 10, 3 * members // 10
    splits = disjoint_splits(
        dataset.labels,
        count=repeats,
        members=members,
        known=known,
        calibration=calibration,
        target=members - known - calibration,
        seed=seed,
    )
    results = Results(
        {
            "data": {"source": data, "images": len(dataset), "shape": dataset.shape, "classes": dataset.classes},
            "split": {
                "classifiers (repeats)": repeats,
                "members of each": members,
                "known to the attacker": f"{known} members, {known} non-members of each classifier",
                "for the interval": f"{calibration} members, {calibration} non-members of each",
                "evaluated": f"{len(splits[0].target_members)} members and as many non-members of each, pooled",
            },
            "fence": {"n": n, "T": T, "k": T, "mode": mode, "fallback": "swap" if mode == "paper" else "original"},
            "training": {
                "classifier": f"convnet, three convolutions, {epochs} epochs",
                "diffusion": f"DDPM, {diffusion_steps} steps of {_BATCH} images, on the members of all classifiers",
            },
            "seed": seed,
        }
    )
    with tempfile.TemporaryDirectory(prefix="diffence-demo-") as scratch:
        with results.timed("train diffusion model"):
            trained_on = dataset.images[np.concatenate([split.members for split in splits])]
            model = train_diffusion(
                trained_on,
                small_network(dataset.shape, T),
                out=pathlib.Path(scratch) / "ddpm.safetensors",
                steps=diffusion_steps,
                batch=_BATCH,
                lr=1e-3,
                flip=flip,
                seed=seed,
                progress=progress,
            )
        engine = Engine(model)
    outcomes = []
    grid = None
    for number, split in enumerate(tqdm(splits, desc="classifiers", unit="classifier", disable=not progress)):
        with results.timed("train classifiers"):
            fence = _train_and_fence(dataset, split, engine, epochs=epochs, seed=seed + number, n=n, T=T, mode=mode)
        with results.timed("fence and attack"):
            outcomes.append(
                evaluate_settings(fence, dataset, split, lambda: standard_attacks(seed), seed=seed, progress=False)
            )
        if grid is None:
            shown = np.concatenate([split.target_members[: _SHOWN // 2], split.target_nonmembers[: _SHOWN // 2]])
            kinds = ["member"] * (_SHOWN // 2) + ["non-member"] * (_SHOWN // 2)
            grid = image_grid(fence, dataset.images[shown], kinds)
    with results.timed("intervals of the figures"):
        pooled = pool_outcomes(outcomes)
        tabulate(pooled, results, dataset=dataset.name, classifier="convnet", mode=mode, seed=seed)
    results.times["total"] = time.perf_counter() - start
    report = make_report(f"The fence on {dataset.name}", pooled, results, grid, notes=_NOTES)
    write(out / "report.html", report)
    results.save(out)
    return results, report


_NOTES = (
    "The diffusion model was trained on the members of all classifiers together, so on more images than each of them "
    "saw; no evaluated non-member is among them.",
    "Each classifier's attacks were fitted on its own known images; the figures are of other images, and pairs are "
    "compared within a classifier only.",
    "Intervals of phi are fitted for each classifier apart; those drawn here are the first one's.",
)


def small_network(shape: tuple[int, int, int], T: int) -> DDPMConfig:
    """A small UNet for images of this shape: a level more as long as the sides halve to at least 4 pixels."""
    levels = 1
    while levels < 4 and all(side % 2**levels == 0 and side >> levels >= 4 for side in shape[1:]):
        levels += 1
    multipliers = (1, 2, 2, 2)[:levels]
    return DDPMConfig(
        image=shape,
        channels=32,
        multipliers=multipliers,
        blocks=1,
        attention=(min(1, levels - 1),),
        dropout=0.0,
        groups=8,
        max_t=T,
    )


def _train_and_fence(
    dataset: Dataset,
    split: Splits,
    engine: Engine,
    *,
    epochs: int,
    seed: int,
    n: int,
    T: int,
    mode: Literal["paper", "official"],
) -> Diffence:
    """A convnet trained on the members of `split`, behind an unfitted fence."""
    images, labels = dataset.images[split.members], dataset.labels[split.members]
    channels, *size = dataset.shape
    mean, std = normalisation(images)
    network = classifiers.build("convnet", classes=dataset.classes, channels=channels, image=size, seed=seed)
    classifiers.train(network, images, labels, epochs=epochs, seed=seed, mean=mean, std=std, batch=32, progress=False)
    return Diffence(network, engine, n=n, T=T, mode=mode, key=seed, mean=mean, std=std)
