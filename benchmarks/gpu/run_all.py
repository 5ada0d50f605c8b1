#!/usr/bin/env python3
"""Everything about the CUDA engine that only a GPU can show, in about eight minutes: is it right, and how fast is it.

    pip install --no-build-isolation --no-deps . && python benchmarks/gpu/run_all.py --out OUT
    python benchmarks/gpu/run_all.py --only checks layers --budget 120

Sections: peaks (of this GPU: a matrix product, a copy), tests (tests/test_cuda.py on the GPU), checks (the CIFAR-10
UNet against float64, equal bits, agreement with the processor), layers (each step of the plan against its share of
the peaks), network (beside PyTorch), fenced (whole images, beside PyTorch doing what the authors' release does). A
section that fails says so and the others run. OUT gets gpu.json and the table, as text. Timings are medians of CUDA
events.

Each section runs twice where the GPU is a Hopper: with its own instructions (hopper) and without.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from harness.fencing import MEAN, STD, reconstruct  # noqa: E402
from harness.networks import NETWORKS, random_unet  # noqa: E402

from diffence import Diffence, Engine  # noqa: E402
from diffence.classifiers.resnet import ResNet18  # noqa: E402
from diffence.files import write_text  # noqa: E402

FLOP = 12.443713536e9  # of an evaluation of the CIFAR-10 UNet, computed directly
DEVICE = torch.device("cuda")
N, T = 30, 160


def milliseconds(call: Callable[[], object], seconds: float = 1.5, least: int = 5) -> float:
    """Median of the GPU's time of one call."""
    call()
    torch.cuda.synchronize()
    found: list[float] = []
    end = time.perf_counter() + seconds
    while len(found) < least or (time.perf_counter() < end and len(found) < 200):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        stop.record()
        stop.synchronize()
        found.append(start.elapsed_time(stop))
    return statistics.median(found)


class Report:
    """Lines of the table, and everything for the JSON file."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.facts: dict[str, Any] = {}

    def say(self, line: str) -> None:
        self.lines.append(line)
        print(line, flush=True)


@contextlib.contextmanager
def hopper(wanted: bool) -> Iterator[None]:
    """New engines use Hopper's own instructions, or not."""
    before = os.environ.get("DIFFENCE_CUDA_HOPPER")
    os.environ["DIFFENCE_CUDA_HOPPER"] = str(int(wanted))
    try:
        yield
    finally:
        if before is None:
            del os.environ["DIFFENCE_CUDA_HOPPER"]
        else:
            os.environ["DIFFENCE_CUDA_HOPPER"] = before


def kinds() -> list[bool]:
    """Without Hopper's instructions, and with them where the GPU has them."""
    return [False, True] if torch.cuda.get_device_capability()[0] == 9 else [False]


def named(wanted: bool) -> str:
    return "hopper" if wanted else "sm_80"


def inputs(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 3, 32, 32, generator=generator)
    return x.to(DEVICE), torch.randint(0, T, (count,), generator=generator).to(DEVICE)


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got.double() - want).norm() / want.norm())


def autocast(network: torch.nn.Module) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The network in bf16, as PyTorch runs it best: weights and activations channels_last."""
    network = network.to(DEVICE, torch.bfloat16, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return network(x.to(torch.bfloat16, memory_format=torch.channels_last), t)

    return predict


# ---------------------------------------------------------------- sections


def peaks(report: Report) -> None:
    a, b = (torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    product = 2 * 8192**3 / milliseconds(lambda: a @ b) / 1e9
    source, target = (torch.randn(1 << 28, device=DEVICE) for _ in range(2))
    copy = 2 * source.numel() * 4 / milliseconds(lambda: target.copy_(source)) / 1e9
    report.facts["peaks"] = {"bf16 TFLOP/s": product, "copy TB/s": copy}
    report.say(f"peaks: {product:.0f} TFLOP/s in bf16 (torch.matmul), {copy:.2f} TB/s copied (read and written)")


def tests(report: Report) -> None:
    for wanted in kinds():
        environment = {**os.environ, "DIFFENCE_REQUIRE": "cuda", "DIFFENCE_CUDA_HOPPER": str(int(wanted))}
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-k", "gpu", "tests/test_cuda.py"]
        ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        last = (ran.stdout.strip().splitlines() or ran.stderr.strip().splitlines() or ["nothing"])[-1]
        report.facts[f"tests {named(wanted)}"] = {"status": ran.returncode, "output": ran.stdout[-4000:]}
        report.say(f"tests, {named(wanted)}: {'passed' if ran.returncode == 0 else 'FAILED'}: {last}")


def checks(report: Report) -> None:
    network = random_unet(NETWORKS["cifar10"])
    x, t = inputs(64)
    with torch.no_grad():
        exact = random_unet(NETWORKS["cifar10"]).double().to(DEVICE)
        want = torch.cat([exact(x[i : i + 16].double(), t[i : i + 16]) for i in range(0, len(x), 16)])
        del exact
        peer = relative(autocast(random_unet(NETWORKS["cifar10"]))(x, t).float(), want)
    report.say(f"relative error to float64, 64 images: PyTorch bf16 {peer:.1e}")
    report.facts["error PyTorch bf16"] = peer
    cpu = Engine(network).reconstruct(images(4), 4, T=T, key=1)
    for wanted in kinds():
        with hopper(wanted):
            for precision in ("fp32", "bf16", "fp16"):
                engine = Engine(network, device="cuda", precision=precision, batch=64)
                eps = engine.predict_noise(x, t)
                order = torch.randperm(len(x), generator=torch.Generator().manual_seed(2)).to(DEVICE)
                small = Engine(network, device="cuda", precision=precision, batch=7)
                same = torch.equal(small.predict_noise(x[order], t[order]), eps[order])
                made = torch.as_tensor(engine.reconstruct(images(4), 4, T=T, key=1))
                error, away = relative(eps, want), float((made - torch.as_tensor(cpu)).abs().max())
                graphs = np.array_equal(small.reconstruct(images(4), 4, T=T, key=1), made.numpy())
                fine = error <= (1e-5 if precision == "fp32" else 1.5 * peer) and same and graphs
                report.facts[f"check {named(wanted)} {precision}"] = {"error": error, "bits": same, "cpu": away}
                report.say(
                    f"{named(wanted):6} {precision}: {'right' if fine else 'WRONG'}: error {error:.1e}, equal bits in "
                    f"another batch and order: {same}, in reconstructions: {graphs}, farthest from the processor's "
                    f"reconstructions {away:.1e}"
                )


def layers(report: Report) -> None:
    peak = report.facts.get("peaks", {}).get("bf16 TFLOP/s", float("nan"))
    for wanted in kinds():
        with hopper(wanted):
            engine = Engine(random_unet(NETWORKS["cifar10"]), device="cuda", precision="bf16", batch=1024)
        total: dict[tuple[Any, ...], list[float]] = collections.defaultdict(lambda: [0, 0.0, 0.0])
        for step in engine.profile(engine.batch):
            row = total[(step["kind"], step["shape"], step["made"], step["size"])]
            row[0] += 1
            row[1] += step["seconds"] / engine.batch * 1e6
            row[2] += step["flop"]
        everything = sum(row[1] for row in total.values())
        report.facts[f"layers {named(wanted)}"] = [[*key, *row] for key, row in total.items()]
        report.say(
            f"layers, {named(wanted)}, bf16, batch {engine.batch}: {everything:.1f} us an evaluation, step by step"
        )
        for (kind, shape, made, size), (count, us, flop) in sorted(total.items(), key=lambda item: -item[1][1])[:14]:
            rate = f"{flop / us / 1e6:5.0f} TFLOP/s {flop / us / 1e6 / peak:4.0%}" if flop else ""
            report.say(f"  {us:6.2f} us  {kind:15} x{count:<2} {shape} -> {made} {size}x{size} {rate}")


def network(report: Report) -> None:
    peak = report.facts.get("peaks", {}).get("bf16 TFLOP/s", float("nan"))
    rows: dict[str, dict[int, float]] = {}
    for wanted in kinds():
        with hopper(wanted):
            for precision in ("bf16", "fp16"):
                row = rows.setdefault(f"diffence {named(wanted)} {precision}", {})
                for batch in (64, 256, 1024, 4096):
                    engine = Engine(random_unet(NETWORKS["cifar10"]), device="cuda", precision=precision, batch=batch)
                    x, t = inputs(engine.batch)
                    run = engine._backend.predict
                    t = t.to(torch.int32)
                    row[batch] = 1e3 * milliseconds(lambda: run(x, t), 1.0) / engine.batch  # noqa: B023
    with torch.no_grad():
        plain = random_unet(NETWORKS["cifar10"]).to(DEVICE, torch.bfloat16)
        last = autocast(random_unet(NETWORKS["cifar10"]))
        compiled = torch.compile(autocast(random_unet(NETWORKS["cifar10"])), mode="max-autotune")
        peers: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
            "PyTorch eager, NCHW": (lambda x, t: plain(x.bfloat16(), t), (64, 1024)),
            "PyTorch eager, channels_last": (last, (64, 1024, 4096)),
            "PyTorch compile, max-autotune": (compiled, (1024,)),
        }
        for name, (predict, batches) in peers.items():
            row = rows.setdefault(name, {})
            for batch in batches:
                x, t = inputs(batch)
                row[batch] = 1e3 * milliseconds(lambda: predict(x, t), 1.0) / batch  # noqa: B023
    report.facts["network"] = rows
    report.say("us an evaluation of the CIFAR-10 UNet        64     256    1024    4096   of the peak at the best")
    for name, row in rows.items():
        cells = "".join(f"{row[batch]:8.1f}" if batch in row else "       -" for batch in (64, 256, 1024, 4096))
        report.say(f"  {name:36}{cells}   {FLOP / min(row.values()) / 1e6 / peak:4.0%}")


def images(count: int) -> np.ndarray[Any, Any]:
    """Smooth random ones."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    return torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bicubic").clamp(0, 1).numpy()


def fenced(report: Report) -> None:
    diffusion = random_unet(NETWORKS["cifar10"])
    torch.manual_seed(0)
    classifier = ResNet18(10, 3, (32, 32)).eval().to(DEVICE).bfloat16()
    shown = torch.from_numpy(images(256)).to(DEVICE)
    rows: dict[str, float] = {}
    for wanted in kinds():
        with hopper(wanted):
            engine = Engine(diffusion, device="cuda", precision="bf16", batch=2048)
        for draws in ("full", "early"):
            fence = Diffence(
                classifier, engine, scenario=3, n=N, T=T, draws=draws, key=1, mean=MEAN, std=STD, classifier_batch=1024
            )
            fence(shown)
            fence.reset_counts()
            start = time.perf_counter()
            fence(shown)
            torch.cuda.synchronize()
            spent = time.perf_counter() - start
            used = fence.counts["draws"] / len(shown)
            rows[f"diffence {named(wanted)}, {draws} ({used:.1f} draws an image)"] = 1e3 * spent / len(shown)
    predict = torch.compile(autocast(random_unet(NETWORKS["cifar10"])), mode="max-autotune-no-cudagraphs")
    mean, std = (torch.tensor(values, device=DEVICE).view(1, 3, 1, 1) for values in (MEAN, STD))
    alpha_bar = torch.from_numpy(engine.diffusion.alpha_bar)

    def release() -> None:
        """The authors' algorithm, a batch of draws at a time: two evaluations a draw, all draws, no early stop."""
        with torch.no_grad(), torch.device(DEVICE):
            for image in shown[:32]:
                noise = torch.randn(N, 3, 32, 32)
                made = reconstruct(lambda x, t: predict(x, t).float(), alpha_bar, image, noise, T, "release")
                classifier(((torch.cat([made, image[None]]) - mean) / std).bfloat16())

    rows["PyTorch compile, as the release does it, image by image"] = milliseconds(release, 1.0, 3) / 32
    report.facts["fenced"] = rows
    report.say(f"ms a fenced image, ResNet-18, N={N}, T={T}, {len(shown)} images at once")
    for name, spent in rows.items():
        report.say(f"  {name:60}{spent:8.3f}")


SECTIONS: dict[str, Callable[[Report], None]] = {
    section.__name__: section for section in (peaks, tests, checks, layers, network, fenced)
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("artifacts/gpu"))
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--budget", type=float, default=480, help="seconds after which no section is begun")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU that torch can use", file=sys.stderr)
        return 2
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    report, start, failed = Report(), time.perf_counter(), 0
    report.facts["gpu"] = torch.cuda.get_device_name()
    report.say(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}")
    for name in arguments.only:
        spent = time.perf_counter() - start
        if spent > arguments.budget:
            report.say(f"{name}: left out after {spent:.0f} s")
            continue
        try:
            SECTIONS[name](report)
        except Exception as error:
            failed += 1
            traceback.print_exc()
            report.say(f"{name}: FAILED: {type(error).__name__}: {str(error)[:300]}")
        torch.cuda.empty_cache()
        write_text(arguments.out / "gpu.json", json.dumps(report.facts, indent=1, default=str) + "\n")
        write_text(arguments.out / "gpu.txt", "\n".join(report.lines) + "\n")
    report.say(f"{time.perf_counter() - start:.0f} s")
    return 1 if failed or any("WRONG" in line or "FAILED" in line for line in report.lines) else 0


if __name__ == "__main__":
    sys.exit(main())
