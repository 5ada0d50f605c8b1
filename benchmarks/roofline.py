#!/usr/bin/env python3
"""The machine's peaks, and each kind of layer of a UNet against the time that it needs at least.

    python benchmarks/roofline.py                          # the CIFAR-10 UNet, batch 32, 2 threads
    python benchmarks/roofline.py --network c32 --threads 1 --batch 16

Prints fused multiply-adds and bytes a second with one and with --threads threads (the best of several tries), then for
each kind and resolution of layers: floating-point operations, the time they take at the peak, the same with stride-1
3x3 convolutions by Winograd F(4x4, 3x3) (36 multiplications for 16 outputs instead of 144), the bytes that move if
nothing is fused, and the time of those. Milliseconds are for one evaluation of one image. From Engine.profile come what
was measured (the best of several evaluations, step by step), the operations a second as a direct computation would
count them, and the share of the F(4x4) floor of what the engine's plan computes. --json FILE writes it all to a file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness import machine
from harness.layers import KINDS, Layer, layers
from harness.networks import NETWORKS, random_unet
from harness.peaks import Peaks, measure_peaks

import diffence.unets
from diffence.engine import Engine
from diffence.files import write_text

Key = tuple[str, int]  # kind of layer, height of its output; 0 for kinds that are not split by resolution


@dataclass
class Group:
    """Layers of one kind and resolution, for one image; floors in seconds. The batch shares the reading of weights.

    done, measured: operations (counted as a direct computation) and seconds of the engine's steps of this kind.
    """

    kind: str
    side: int
    count: int = 0
    flop: float = 0.0
    direct: float = 0.0
    winograd: float = 0.0
    bytes: float = 0.0
    memory: float = 0.0
    done: float = 0.0
    measured: float | None = None

    def floor(self) -> float:
        """Seconds by F(4x4) for what the engine really does: it may have merged operations of the program."""
        return self.winograd * self.done / self.flop if self.flop else 0.0


def key_of(kind: str, side: int) -> Key:
    return (kind, 0 if kind in ("linear", "group norm", "elementwise, moves") else side)


def group(found: Sequence[Layer], peaks: Peaks, batch: int) -> dict[Key, Group]:
    """The layers by kind, the finest resolution first."""
    keys = sorted({key_of(layer.kind, layer.side) for layer in found}, key=lambda key: (KINDS.index(key[0]), -key[1]))
    groups = {key: Group(*key) for key in keys}
    for layer in found:
        entry = groups[key_of(layer.kind, layer.side)]
        entry.count += 1
        entry.flop += layer.flop
        entry.direct += layer.flop / peaks.flop
        entry.winograd += layer.winograd / peaks.flop
        moved = layer.moved + layer.weights / batch
        entry.bytes += moved
        entry.memory += moved / peaks.copy
    return groups


def key_of_step(step: dict[str, Any]) -> Key:
    """The row that a step of Engine.profile belongs to; a kind that the table does not know gets a row of its own."""
    kind, before, side = step["kind"], step["shape"][1], step["made"][1]
    if kind in ("conv", "winograd"):
        if side == before == 1:
            return key_of("linear", side)
        name = f"conv {step['size']}x{step['size']}"
        return key_of(f"{name}, stride 2" if side < before else name, side)
    if kind in ("norm", "statistics"):
        return key_of("group norm", side)
    if kind in ("import", "export", "time", "silu", "add", "concat", "upsample"):
        return key_of("elementwise, moves", side)
    return key_of(kind, side)


def add_measured(groups: dict[Key, Group], model: Any, batch: int, threads: int, repeats: int) -> bool:
    """Fill in what Engine.profile measures, the best of `repeats` for each step; False where there is no such thing."""
    engine = Engine(model, batch=batch, threads=threads)
    if not hasattr(engine, "profile"):
        return False
    runs = [engine.profile(batch) for _ in range(repeats)]
    for steps in zip(*runs, strict=True):
        key = key_of_step(steps[0])
        entry = groups.setdefault(key, Group(*key))
        entry.done += steps[0]["flop"]
        entry.measured = (entry.measured or 0.0) + min(step["seconds"] for step in steps) / batch
    return True


def total_of(groups: Sequence[Group]) -> Group:
    """The sum of all rows."""
    total = Group("all", 0)
    for entry in groups:
        for name in ("count", "flop", "direct", "winograd", "bytes", "memory", "done"):
            setattr(total, name, getattr(total, name) + getattr(entry, name))
    seconds = [entry.measured for entry in groups if entry.measured is not None]
    total.measured = sum(seconds) if seconds else None
    return total


def table(groups: Sequence[Group]) -> str:
    """One line a group and a sum."""
    total = total_of(groups)
    measured = total.measured is not None
    heads = [
        "layers",
        "size",
        "count",
        "GFLOP",
        "share",
        "direct",
        "F(4x4)",
        "MB",
        "memory",
        "measured",
        "GFLOP/s",
        "of floor",
    ]
    units = ["", "", "", "", "", "ms", "ms", "", "ms", "ms", "", ""]
    rows = [heads, units]
    floor = sum(entry.floor() for entry in groups)
    for entry in (*groups, total):
        row = [entry.kind, f"{entry.side or ''}", f"{entry.count}", f"{entry.flop / 1e9:.4f}"]
        row += [f"{entry.flop / total.flop:.1%}", f"{1e3 * entry.direct:.3f}", f"{1e3 * entry.winograd:.3f}"]
        row += [f"{entry.bytes / 1e6:.2f}", f"{1e3 * entry.memory:.3f}"]
        if entry.measured is not None:
            least = floor if entry is total else entry.floor()
            row += [f"{1e3 * entry.measured:.3f}", f"{entry.done / entry.measured / 1e9:.0f}" if entry.done else ""]
            row += [f"{least / entry.measured:.0%}" if entry.done else ""]
        rows.append(row)
    columns = len(heads) if measured else len(heads) - 3
    widths = [max(len(row[column]) for row in rows if column < len(row)) for column in range(columns)]
    lines = []
    for row in rows:
        first, *others = (f"{cell:>{width}}" for cell, width in zip(row, widths, strict=False))
        lines.append("  ".join([f"{first.strip():<{widths[0]}}", *others]))
    lines.append(
        f"evaluations a second at the floor: {1 / total.direct:.1f} direct, {1 / total.winograd:.1f} with F(4x4); "
        f"{1 / total.memory:.1f} by memory alone if nothing is fused"
        + (f"; {1 / total.measured:.1f} measured, step by step" if total.measured else "")
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="cifar10")
    parser.add_argument("--checkpoint", type=Path, help="take the network of this file instead")
    parser.add_argument("--batch", type=int, default=32, help="images that share the weights (default: 32)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tries", type=int, default=5, help="of each peak, of which the best counts (default: 5)")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    for name in ("batch", "threads", "tries"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name}: expected at least 1, got {getattr(arguments, name)}")

    model = diffence.unets.load(arguments.checkpoint or random_unet(NETWORKS[arguments.network]))
    facts = machine.describe()
    print(f"{facts['processor']} (family, model {', '.join(facts['family, model'])}), {', '.join(facts['features'])}")
    measured_peaks = [measure_peaks(threads, arguments.tries) for threads in sorted({1, arguments.threads})]
    one, many = measured_peaks[0], measured_peaks[-1]
    print(f"peaks, with vectors of {one.lanes} floats; a copy counts what it reads and what it writes")
    print(f"{'threads':>7} {'fp32 GFLOP/s':>13} {'read GB/s':>10} {'copy GB/s':>10}")
    for peaks in measured_peaks:
        print(f"{peaks.threads:>7} {peaks.flop / 1e9:>13.1f} {peaks.read / 1e9:>10.1f} {peaks.copy / 1e9:>10.1f}")
    if many.flop < 0.9 * many.threads * one.flop:
        print(
            f"{many.threads} threads reach only {many.flop / one.flop:.2f} times the peak of one: the machine was "
            "busy, or threads share cores; do not trust the floors below before a second run says the same"
        )
    print()

    groups = group(layers(model.program), measured_peaks[-1], arguments.batch)
    add_measured(groups, model, arguments.batch, arguments.threads, arguments.tries)
    name = arguments.checkpoint or arguments.network
    print(f"{name}, batch {arguments.batch}, threads: {arguments.threads}; one image:")
    print(table(list(groups.values())))
    if arguments.json is not None:
        results = {
            "benchmark": "roofline",
            "machine": facts,
            "network": model.config.to_dict(),
            "batch": arguments.batch,
            "peaks": [asdict(peaks) for peaks in measured_peaks],
            "layers": [asdict(entry) for entry in groups.values()],
        }
        write_text(arguments.json, json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
