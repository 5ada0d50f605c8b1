#!/usr/bin/env python3
"""The demo's table on a slice of CIFAR-10: a small residual network that leaks, and the fence in front of it.

    python benchmarks/cifar10_slice.py --data ../shared/data

--data is a folder that holds a pack `cifar10/` (labels.bin, one byte an image; sprite_*.webp, lossless, 100 x 100 tiles
of 32 x 32 pixels in order), the official archive (cifar-10-python.tar.gz), or anything else that diffence.data.load
reads. What takes long is kept in --out under a name made of everything that it depends on: a second run, or one after
Ctrl-C, goes on from there. --quick checks the plumbing in a few minutes and shows nothing about privacy.

    python benchmarks/cifar10_slice.py --data ../shared/data --paper --device cuda

The paper's sizes, for a GPU: ResNet-18 and the DDPM of 35.7 million parameters, both on the same 25,000 members.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pathlib
import time
from typing import Any

import numpy as np
import torch
from cifar10 import SIDE, read

from diffence import classifiers
from diffence.answers import Samples
from diffence.attacks import standard_attacks
from diffence.data import normalisation, split
from diffence.engine import Engine
from diffence.experiments.settings import GROUPS, evaluate_settings, image_grid, make_report, tabulate
from diffence.fence import Diffence
from diffence.files import load_tensors, save_tensors
from diffence.report import detail_table, text_table, write
from diffence.results import Results
from diffence.unets import DDPMConfig, train_diffusion


def name_of(kind: str, recipe: dict[str, Any]) -> str:
    """A file name that changes with anything that the content depends on."""
    return f"{kind}-{hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]}.safetensors"


class Stages:
    """Times of the stages, kept beside the artefacts: a run from the cache still knows what making them took."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.path = folder / "seconds.json"
        self.seconds: dict[str, float] = json.loads(self.path.read_text()) if self.path.exists() else {}

    def add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self.path.write_text(json.dumps(self.seconds, indent=2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("artifacts/cifar10_slice"))
    parser.add_argument("--device", default="cpu", help="of the training and of the fence: cpu or cuda")
    parser.add_argument("--paper", action="store_true", help="the paper's networks, and its sizes where none are given")
    parser.add_argument("--members", type=int, help="default: 5000, with --paper 25000")
    parser.add_argument("--known", type=int, default=1000, help="the attacker's, members and as many non-members")
    parser.add_argument("--calibration", type=int, default=500, help="the defender's, members and as many non-members")
    parser.add_argument("--targets", type=int, default=1000, help="evaluated, members and as many non-members")
    parser.add_argument("--epochs", type=int, help="of the classifier; default: 40, with --paper 100")
    parser.add_argument("--diffusion-steps", type=int, help="default: 2500, with --paper 60000")
    parser.add_argument("--n", type=int, default=30)
    parser.add_argument("--T", type=int, default=160)
    parser.add_argument("--mode", choices=("paper", "official"), default="paper")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all?")
    arguments = parser.parse_args()
    usual = {"members": 5000, "epochs": 40, "diffusion_steps": 2500}
    if arguments.paper:
        usual = {"members": 25000, "epochs": 100, "diffusion_steps": 60000}
    for name, value in usual.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    if arguments.quick:
        arguments.members, arguments.known, arguments.calibration, arguments.targets = 300, 80, 80, 80
        arguments.epochs, arguments.diffusion_steps, arguments.n = 3, 20, 4
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    stages, start = Stages(out), time.perf_counter()

    dataset = read(arguments.data)
    splits = split(
        dataset.labels,
        members=arguments.members,
        known=arguments.known,
        calibration=arguments.calibration,
        target=arguments.targets,
        seed=arguments.seed,
    )
    images, labels = dataset.images[splits.members], dataset.labels[splits.members]
    mean, std = normalisation(images)
    origin = {"data": hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest(), "seed": arguments.seed}

    kind, lr = ("resnet18", 1e-3) if arguments.paper else ("resnet_small", 5e-4)
    recipe = {**origin, "epochs": arguments.epochs, "network": kind, "lr": lr}
    path = out / name_of("classifier", recipe)
    if not path.exists():
        began = time.perf_counter()
        network = classifiers.build(
            kind, classes=dataset.classes, channels=3, image=(SIDE, SIDE), seed=arguments.seed
        ).to(arguments.device)
        classifiers.train(
            network,
            images,
            labels,
            epochs=arguments.epochs,
            lr=lr,  # the small network's training accuracy still jumps between 97 % and 100 % at the end at 1e-3
            seed=arguments.seed,
            mean=mean,
            std=std,
            out=path,
        )
        stages.add(path.stem, time.perf_counter() - began)
    network, _ = classifiers.load(path)
    network.to(arguments.device)
    print(f"{path.name}: {stages.seconds.get(path.stem, 0):.0f} s of training, once")

    config = DDPMConfig(
        image=dataset.shape, channels=32, multipliers=(1, 2, 2, 2), blocks=1, attention=(1,), dropout=0.0, groups=8
    )
    batch = 64
    if arguments.paper:
        config, batch, lr = DDPMConfig(image=dataset.shape), 128, 2e-4
    recipe = {**origin, "config": config.to_dict(), "steps": arguments.diffusion_steps, "batch": batch, "lr": lr}
    ddpm = out / name_of("ddpm", recipe)
    if not ddpm.exists():
        began = time.perf_counter()
        train_diffusion(
            images,
            config,
            out=ddpm,
            steps=arguments.diffusion_steps,
            batch=batch,
            lr=lr,
            max_t=200,
            seed=arguments.seed,
            checkpoint_every=500 if arguments.paper else 100,
            device=arguments.device,
        )
        stages.add(ddpm.stem, time.perf_counter() - began)
    print(f"{ddpm.name}: {stages.seconds.get(ddpm.stem, 0):.0f} s of training, once")

    engine = Engine(ddpm, device=arguments.device)
    fence = Diffence(
        network, engine, n=arguments.n, T=arguments.T, mode=arguments.mode, key=arguments.seed, mean=mean, std=std
    )
    answered = {
        "classifier": path.stem,
        "diffusion": engine.diffusion.fingerprint,
        "fence": fence.settings(),
        "key": fence.key.hex(),
        "isa": engine.isa or f"{torch.cuda.get_device_name()}, {engine.precision}",
    }
    samples = {}
    for group in GROUPS:
        indices = getattr(splits, group)
        cached = out / name_of(f"samples-{group}", {**answered, "indices": indices.tolist()})
        if not cached.exists():
            began = time.perf_counter()
            store(cached, fence.sample(dataset.images[indices], progress=True))
            stages.add("sampling", time.perf_counter() - began)
        samples[group] = restore(cached)

    began = time.perf_counter()
    outcomes = evaluate_settings(
        fence,
        dataset,
        splits,
        lambda: standard_attacks(arguments.seed),
        seed=arguments.seed,
        samples=samples,
    )
    results = Results(
        {
            "slice": {
                "members": arguments.members,
                "known to the attacker": f"{arguments.known} members, {arguments.known} non-members",
                "for the interval": f"{arguments.calibration} members, {arguments.calibration} non-members",
                "evaluated": f"{arguments.targets} members, {arguments.targets} non-members",
            },
            "fence": fence.settings() | {"isa": answered["isa"]},
            "training": {
                "classifier": f"{kind}, {arguments.epochs} epochs, Adam, no augmentation",
                "diffusion": f"DDPM of {len(engine.diffusion.tensors())} tensors, {arguments.diffusion_steps} steps",
                "accuracy on all members": classifiers.accuracy(network, images, labels, mean=mean, std=std),
            },
            "seed": arguments.seed,
        }
    )
    tabulate(outcomes, results, dataset="cifar10-slice", classifier=kind, mode=arguments.mode, seed=arguments.seed)
    stages.add("attacks", time.perf_counter() - began)
    results.times |= stages.seconds | {"this run": time.perf_counter() - start}
    shown = np.concatenate([splits.target_members[:4], splits.target_nonmembers[:4]])
    grid = image_grid(fence, dataset.images[shown], ["member"] * 4 + ["non-member"] * 4)
    report = make_report("The fence on a slice of CIFAR-10", outcomes, results, grid)
    results.save(out)
    write(out / "report.html", report)
    print(f"\n{text_table(report.settings)}\n\n{detail_table(report.attacks)}\n")
    print(f"accuracy on all {len(images)} members: {results.setup['training']['accuracy on all members']:.4f}")
    print("seconds:", ", ".join(f"{name} {seconds:.0f}" for name, seconds in results.times.items()))


def store(path: pathlib.Path, samples: Samples) -> None:
    """Write samples whole or not at all."""
    tensors = {
        name: torch.as_tensor(getattr(samples, name)).cpu()
        for name in ("original", "draws", "phi", "predicted", "labels", "phi_original")
    }
    save_tensors(path, "samples", tensors, {})


def restore(path: pathlib.Path) -> Samples:
    tensors, _ = load_tensors(path, "samples")
    arrays = {name: tensors[name].numpy() for name in ("phi", "predicted", "labels", "phi_original")}
    return Samples(original=tensors["original"], draws=tensors["draws"], **arrays)


if __name__ == "__main__":
    main()
