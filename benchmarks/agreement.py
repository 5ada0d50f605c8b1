#!/usr/bin/env python3
"""The fence on another engine beside the fence in fp32 on the processor, on real images: labels, chosen draws, phi and
what an attacker sees.

    python benchmarks/agreement.py                    # bf16, where the processor multiplies bfloat16
    python benchmarks/agreement.py --isa portable     # bf16 anywhere, computed without such instructions: slow
    python benchmarks/agreement.py --device cuda      # on a GPU, in --precision bf16, fp16 or fp32

Trains the demo's networks on scikit-learn's digits (or on --data), once: they are kept in --cache. Then the same images
get the same noise on both engines. A draw can be chosen otherwise only where a phi near an end of the interval, or a
class near a tie, is rounded to the other side.
"""

from __future__ import annotations

import argparse
import pathlib

import numpy as np

from diffence import Diffence, Engine, _core, classifiers, metrics, unets
from diffence.data import load, normalisation
from diffence.experiments.demo import small_network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="digits, an .npz (images, labels) or a folder of images")
    parser.add_argument("--images", type=int, default=1000, help="half members, half not (default: %(default)s)")
    parser.add_argument("--n", type=int, default=30, help="draws of each image (default: %(default)s)")
    parser.add_argument("--T", type=int, default=160, help="noise level (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=500, help="of training the DDPM (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="of the other engine: cpu or cuda (default: %(default)s)")
    parser.add_argument("--precision", default="bf16", help="of the other engine (default: %(default)s)")
    parser.add_argument("--isa", help="its instruction set (default: the fastest that runs the precision)")
    parser.add_argument("--cache", type=pathlib.Path, default=pathlib.Path("artifacts/agreement"))
    options = parser.parse_args()
    if options.images < 4 or options.images % 2:
        parser.error("--images: expected an even number, 4 or more")

    data = load(options.data)
    order = np.random.default_rng(0).permutation(len(data))
    members, others = order[: options.images // 2], order[options.images // 2 : options.images]
    if len(others) < len(members):
        parser.error(f"--images: {options.data} has {len(data)} images")
    options.cache.mkdir(parents=True, exist_ok=True)
    path = unets.train_diffusion(
        data.images[members],
        small_network(data.shape, options.T),
        out=options.cache / "ddpm.safetensors",
        steps=options.steps,
        batch=64,
        lr=1e-3,
        flip=False,
    )
    mean, std = normalisation(data.images[members])
    channels, *size = data.shape
    network = classifiers.build("convnet", classes=data.classes, channels=channels, image=size, seed=0)
    classifiers.train(
        network, data.images[members], data.labels[members], epochs=60, seed=0, mean=mean, std=std, batch=32
    )

    model = unets.load(path)
    other = Engine(model, device=options.device, precision=options.precision, isa=options.isa)
    engines = {"fp32": Engine(model), "other": other}
    fences, samples = {}, {}
    for name, engine in engines.items():
        fence = Diffence(network, engine, n=options.n, T=options.T, key=1, mean=mean, std=std)
        fences[name] = fence
        samples[name] = [fence.sample(data.images[group], progress=True) for group in (members, others)]
    one, two = ([*samples[name]] for name in engines)

    where = other.isa or other.device
    print(f"\n{options.images} images of {data.name}, {options.n} draws each; {other.precision} by {where}")
    moved = np.concatenate([np.abs(a.phi - b.phi).ravel() for a, b in zip(one, two, strict=True)])
    same = np.concatenate([(a.predicted == b.predicted).ravel() for a, b in zip(one, two, strict=True)])
    print(f"classes of draws agree: {same.mean():.3%} of {same.size}")
    print(f"|phi - phi|: median {np.median(moved):.4f}, 99 % within {np.quantile(moved, 0.99):.3f}")
    print(f"\n{'scenario':<10} {'labels':>9} {'same draw':>10} {'|phi shown|':>12} {'AUC of phi':>24}")
    for scenario in (1, 2, 3):
        shown, chosen, auc = [], [], []
        for name, fence in fences.items():
            # The interval is fitted in fp32, once: a saved fence keeps it whatever computes.
            fitted = fences["fp32"].variant(scenario=scenario).fit_samples(*samples["fp32"])
            variant = fence.variant(scenario=scenario)
            variant.interval_ = fitted.interval_
            answers = [variant.answer(group) for group in samples[name]]
            kept = [a.logits.argmax(1).numpy() == group.labels for a, group in zip(answers, one, strict=True)]
            phis = [_core.phi(answer.logits.numpy().astype(np.float64))[0] for answer in answers]
            chosen.append((np.concatenate([answer.draw for answer in answers]), np.concatenate(kept)))
            shown.append(np.concatenate(phis))
            auc.append(metrics.auc(*phis))
        labels = chosen[1][1].mean()
        agree = (chosen[0][0] == chosen[1][0]).mean()
        distance = np.median(np.abs(shown[0] - shown[1]))
        print(f"{scenario:<10} {labels:>9.2%} {agree:>10.2%} {distance:>12.4f} {auc[0]:>11.4f} -> {auc[1]:.4f}")
    print("\nlabels: that the other's answers keep. |phi shown|: median change of the shown answer's.")


if __name__ == "__main__":
    main()
