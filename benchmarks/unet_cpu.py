#!/usr/bin/env python3
"""diffence's engine beside PyTorch, ONNX Runtime and OpenVINO on this processor.

    pip install -r benchmarks/requirements.txt
    python benchmarks/unet_cpu.py                      # every case, every peer: more than an hour
    python benchmarks/unet_cpu.py --quick --cases cifar10-b32 small
    python benchmarks/unet_cpu.py --cases fenced --peers torch-channels-last torch-compile

Every engine runs in a process of its own, with the memory settings that suit it and the threads of the case, and is
compared with float64 before anything is timed; a wrong one is not timed, and a wrong diffence is exit status 1. Then
all are measured in turn, round after round, so that a busy machine slows all of them. Printed are medians with
quartiles, the ratio of diffence to each peer (taken within rounds, then the median), the processors that the engine
used, the time that the hypervisor stole and that other processes took, and which goals are met. Measurements that were
disturbed do not count where three calm ones are left; `~` marks rows where they do. `--out` gets unet_cpu.json and the
bar chart unet_cpu.svg and .png, rewritten whole after every case.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from harness import machine, report
from harness.engines import ENGINES, Engine, unavailable
from harness.rounds import Failure, Row, Worker, measure_rounds, prepare
from tqdm.auto import tqdm

from diffence.files import write_text

# Largest relative L2 distance from float64: of diffence, a promise; of the peers, what tells wrong from rounded.
BOUND = {"evaluate": 5e-6, "paper": 1e-5, "early": 1e-5}
PEER_BOUND = {"fp32": 5e-5, "bf16": 1e-1}
_SPARE_MEMORY = 1 << 30
BF16_FACTOR = 1.5  # diffence bf16: at most so many times PyTorch's bf16 error

PYTORCH = ("torch-eager", "torch-channels-last", "torch-compile", "torch-max-autotune")
OTHERS = ("onnxruntime", "openvino-latency", "openvino-throughput")
PYTORCH_BF16 = tuple(name for name in ENGINES if name.startswith("torch-bf16"))
OPENVINO_BF16 = tuple(name for name in ENGINES if name.startswith("openvino-bf16"))


@dataclass(frozen=True)
class Goal:
    """`row` is at least `factor` times as fast as the fastest of `peers`. factor None: reported, not judged."""

    text: str
    factor: float | None
    peers: tuple[str, ...]
    row: str = "diffence"


@dataclass(frozen=True)
class Case:
    """network: a name of harness.networks. bf16: whether bf16 engines are of interest. busy: threads should be."""

    name: str
    title: str
    network: str
    batch: int
    goals: tuple[Goal, ...]
    threads: int = 2
    bf16: bool = False
    busy: bool = True
    fenced: bool = False


def _all(factor: float) -> tuple[Goal, ...]:
    return (Goal("the fastest of all peers", factor, PYTORCH + OTHERS),)


_FULL = (
    Goal("the fastest of PyTorch", 3.0, PYTORCH),
    Goal("the fastest of ONNX Runtime and OpenVINO", 2.8, OTHERS),
    Goal("bf16, the fastest of PyTorch bf16", 2.8, PYTORCH_BF16, "diffence-bf16"),
    Goal("bf16, OpenVINO bf16", 1.8, OPENVINO_BF16, "diffence-bf16"),
)
_PAPER, _RELEASE = (tuple(f"{name}:{kind}" for name in PYTORCH) for kind in ("paper", "release"))
_FENCED = (
    Goal("the same algorithm in PyTorch", 3.0, _PAPER, "diffence:paper"),
    Goal("as the release does it, in PyTorch", 6.0, _RELEASE, "diffence:paper"),
    Goal("early, on images that agree, as the release does it", None, _RELEASE, "diffence:early"),
)

CASES: dict[str, Case] = {
    case.name: case
    for case in (
        Case("cifar10-b1", "CIFAR-10 UNet, batch 1", "cifar10", 1, _all(2.0), busy=False),
        Case("cifar10-b4", "CIFAR-10 UNet, batch 4", "cifar10", 4, _all(2.4)),
        Case("cifar10-b32", "CIFAR-10 UNet, batch 32", "cifar10", 32, _FULL, bf16=True),
        Case("cifar10-b128", "CIFAR-10 UNet, batch 128", "cifar10", 128, _FULL, bf16=True),
        Case("cifar10-t1-b16", "CIFAR-10 UNet, one thread, batch 16", "cifar10", 16, _all(2.8), threads=1),
        Case("small-c64", "64 channels, 32x32, batch 32", "c64", 32, _all(2.5)),
        Case("small-c32", "32 channels, 32x32, batch 32", "c32", 32, _all(2.5)),
        Case("small-c32-16", "32 channels (1,2,2), 16x16, batch 32", "c32-16", 32, _all(2.5), busy=False),
        Case("small-demo", "the demo's: 32 channels (1,2), 8x8, batch 32", "demo", 32, _all(2.5), busy=False),
        Case("fenced", "fenced image, N=30, T=160, ResNet-18", "cifar10", 30, _FENCED, fenced=True),
    )
}


def select(names: Sequence[str], known: Sequence[str], option: str) -> list[str]:
    """Those of `known` that are named, or begin with a name and a dash; ValueError for a name of nothing."""
    chosen = []
    for name in names:
        found = [other for other in known if other == name or other.startswith(f"{name}-")]
        if not found:
            raise ValueError(f"{option}: {name!r} is none of {', '.join(known)}")
        chosen += found
    return [name for name in known if name in chosen]


def engines_of(case: Case, peers: Sequence[str]) -> list[Engine]:
    """diffence first, then the peers that this case is about."""
    chosen = [ENGINES["diffence"], *([ENGINES["diffence-bf16"]] if case.bf16 else [])]
    for name in peers:
        engine = ENGINES[name]
        if (engine.precision == "fp32" or case.bf16) and not (case.fenced and engine.family != "torch"):
            chosen.append(engine)
    return chosen


def rows_of(worker: Worker, case: Case, facts: dict[str, Any]) -> list[tuple[Row, str]]:
    """What is measured of a worker that is ready, with the bound that its error must keep."""
    engine = worker.engine
    found = []
    for measure, error in worker.built["ready"].items():
        bound = BOUND.get(measure, 0.0) if engine.ours else PEER_BOUND[engine.precision]
        if engine.ours and engine.precision == "bf16":
            bound = BF16_FACTOR * facts["bf16_error"]
        name = f"{engine.name}:{measure}" if case.fenced else engine.name
        label = f"{engine.label}: {report.MEASURES[measure]}" if case.fenced else engine.label
        busy = case.threads if case.busy else 0
        found.append((Row(name, label, engine, error, bound, busy, worker.built["facts"][measure]), measure))
    return found


def run_case(case: Case, arguments: argparse.Namespace, peers: Sequence[str]) -> tuple[dict[str, Any], bool]:
    """The case's part of the results, and whether diffence was right."""
    left_out: dict[str, str] = {}
    usable = []
    for engine in engines_of(case, peers):
        reason = unavailable(engine)
        if reason is None:
            usable.append(engine)
        else:
            left_out[engine.name] = reason
    families = {engine.family for engine in usable}
    images = arguments.fenced_images
    options = {
        "network": case.network,
        "checkpoint": None if case.network not in arguments.trained else str(arguments.checkpoint),
        "batch": case.batch,
        "fenced": case.fenced,
        "draws": 30,
        "T": 160,
        "images": max(32, images),
        "onnx": "onnxruntime" in families,
        "openvino": "openvino" in families,
        "bf16": any(engine.precision == "bf16" for engine in usable),
    }
    correct = True
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="unet-cpu-")))
        bar = stack.enter_context(tqdm(total=1 + len(usable), desc=f"{case.name}: preparing", leave=False))
        facts = prepare(folder, options, ENGINES["torch-channels-last"], case.threads)
        bar.update()
        rows: list[tuple[Row, Worker, str]] = []
        need = 0  # the largest process so far, in bytes: the next one may be as large
        for engine in usable:
            bar.set_description(f"{case.name}: building {engine.name}")
            task = {
                "engine": engine.name,
                "folder": str(folder),
                "batch": case.batch,
                "threads": case.threads,
                "fenced": case.fenced,
                "images": images,
            }
            if machine.available_memory() < need + _SPARE_MEMORY:
                left_out[engine.name] = f"not enough memory for another process of {need / 2**30:.1f} GiB"
                continue
            try:
                worker = stack.enter_context(Worker(engine, task, folder / f"{engine.name}.log"))
            except Failure as failure:
                left_out[engine.name] = str(failure)
                correct &= not engine.ours
                continue
            bar.update()
            if "unavailable" in worker.built:
                left_out[engine.name] = worker.built["unavailable"]
                continue
            need = max(need, worker.built["peak_memory"])
            for row, measure in rows_of(worker, case, facts):
                if not row.error <= row.bound:
                    left_out[row.name] = f"wrong: {row.error:.1e} from float64, allowed are {row.bound:.1e}"
                    correct &= not engine.ours
                else:
                    rows.append((row, worker, measure))
        bar.reset(total=arguments.rounds * len(rows))
        for number, row in measure_rounds(rows, arguments.rounds, arguments.seconds, arguments.patience):
            bar.set_description(f"{case.name}: round {number + 1}, {row.name}")
            bar.update()
    goals = [asdict(goal) for goal in case.goals]
    return report.case_results(asdict(case), facts, [row for row, _, _ in rows], goals, left_out), correct


def trained_cases(checkpoint: Path | None, cases: list[Case]) -> tuple[set[str], list[Case]]:
    """The networks that the checkpoint has weights for, and the cases with one for it where it fits none of them."""
    if checkpoint is None:
        return set(), cases
    from harness.networks import NETWORKS, same_architecture

    import diffence.unets

    config = diffence.unets.load(checkpoint).config
    trained = {name for name, other in NETWORKS.items() if same_architecture(config, other)}
    if trained:
        return trained, cases
    own = Case("checkpoint", f"{checkpoint.name}, batch 32", "checkpoint", 32, _all(2.5))
    return {"checkpoint"}, [*cases, own]


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cases", nargs="+", default=list(CASES), metavar="CASE", help=f"or their beginnings; of {', '.join(CASES)}"
    )
    peers = [name for name, engine in ENGINES.items() if not engine.ours]
    parser.add_argument(
        "--peers", nargs="*", default=peers, metavar="PEER", help=f"or their beginnings; of {', '.join(peers)}"
    )
    parser.add_argument("--rounds", type=int, help="measurements of each engine (default: 7, with --quick 2)")
    parser.add_argument("--seconds", type=float, help="of one measurement, at least one call (default: 3, quick 0.5)")
    parser.add_argument(
        "--fenced-images", type=int, help="fenced by one call of the case `fenced` (default: 2, quick 1)"
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=10.0,
        help="seconds to wait at most for an idle machine before a measurement (default: %(default)g)",
    )
    parser.add_argument("--checkpoint", type=Path, help="trained weights, for the cases of its architecture or its own")
    parser.add_argument("--quick", action="store_true", help="does it run at all? Its figures decide nothing")
    parser.add_argument("--out", type=Path, default=Path("artifacts/unet_cpu"), help="folder (default: %(default)s)")
    arguments = parser.parse_args(argv)
    defaults = {"rounds": 2, "seconds": 0.5, "fenced_images": 1}
    if not arguments.quick:
        defaults = {"rounds": 7, "seconds": 3.0, "fenced_images": 2}
    for name, value in defaults.items():
        given = getattr(arguments, name)
        if given is not None and given <= 0:
            parser.error(f"--{name.replace('_', '-')}: expected a positive number, got {given}")
        setattr(arguments, name, value if given is None else given)
    try:
        arguments.cases = select(arguments.cases, list(CASES), "--cases")
        arguments.peers = select(arguments.peers, peers, "--peers")
    except ValueError as error:
        parser.error(str(error))
    return arguments


def main() -> None:
    arguments = parse()
    arguments.trained, cases = trained_cases(arguments.checkpoint, [CASES[name] for name in arguments.cases])
    processors = machine.describe()["processors at hand"]
    packages = sorted({package for name in arguments.peers for package in ENGINES[name].packages} | {"torch", "numpy"})
    versions = {}
    for package in ("diffence", *packages):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    results: dict[str, Any] = {
        "benchmark": "unet_cpu",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "quick": arguments.quick,
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "machine": machine.describe(),
        "versions": versions,
        "checkpoint": None if arguments.checkpoint is None else arguments.checkpoint.name,
        "cases": [],
    }
    print(report.heading(results))
    right = True
    for case in cases:
        if case.threads > processors:
            case = replace(case, threads=processors)
        outcome, correct = run_case(case, arguments, arguments.peers)
        right &= correct
        results["cases"].append(outcome)
        print(report.table(outcome))
        write_text(arguments.out / "unet_cpu.json", json.dumps(results, indent=1) + "\n")
        report.chart(results, arguments.out / "unet_cpu")
    print(report.summary(results))
    print(f"\n{arguments.out / 'unet_cpu.json'}, {arguments.out / 'unet_cpu.svg'}")
    if not right:
        sys.exit("diffence is wrong somewhere above: its outputs are too far from float64, or it failed")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted: what was finished is in the files")
