"""The engines that are compared, what each needs, and the environment that its process is given."""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from harness.machine import has_bf16

__all__ = ["ENGINES", "Engine", "environment", "pip_command", "unavailable"]

_REQUIREMENTS = Path(__file__).resolve().parents[1] / "requirements.txt"


@dataclass(frozen=True)
class Engine:
    """A way to evaluate the network.

    family: "diffence", "torch", "onnxruntime" or "openvino". precision: "fp32" or "bf16".
    options: what the worker needs to build it. packages: modules that must be importable.
    """

    name: str
    label: str
    family: str
    precision: str = "fp32"
    options: tuple[tuple[str, str], ...] = ()
    packages: tuple[str, ...] = ()

    @property
    def ours(self) -> bool:
        return self.family == "diffence"


def _torch(name: str, label: str, precision: str = "fp32", **options: str) -> Engine:
    return Engine(name, label, "torch", precision, tuple(options.items()))


def _openvino(name: str, label: str, hint: str, precision: str = "fp32") -> Engine:
    return Engine(name, label, "openvino", precision, (("hint", hint),), ("openvino",))


ENGINES: dict[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine("diffence", "diffence", "diffence"),
        _torch("torch-eager", "PyTorch eager, NCHW", layout="nchw"),
        _torch("torch-channels-last", "PyTorch eager, channels_last"),
        _torch("torch-compile", "PyTorch compile, freezing", compile="default"),
        _torch("torch-max-autotune", "PyTorch compile, max-autotune", compile="max-autotune"),
        Engine("onnxruntime", "ONNX Runtime", "onnxruntime", packages=("onnxruntime", "onnx", "onnxscript")),
        _openvino("openvino-latency", "OpenVINO, LATENCY", "LATENCY"),
        _openvino("openvino-throughput", "OpenVINO, THROUGHPUT", "THROUGHPUT"),
        Engine("diffence-bf16", "diffence bf16", "diffence", "bf16"),
        _torch("torch-bf16-autocast", "PyTorch bf16 autocast, eager", "bf16", cast="autocast"),
        _torch(
            "torch-bf16-autocast-compile", "PyTorch bf16 autocast, compile", "bf16", cast="autocast", compile="default"
        ),
        _torch("torch-bf16-pure", "PyTorch bf16, eager", "bf16", cast="pure"),
        _torch("torch-bf16-pure-compile", "PyTorch bf16, compile", "bf16", cast="pure", compile="default"),
        _openvino("openvino-bf16-latency", "OpenVINO bf16, LATENCY", "LATENCY", "bf16"),
        _openvino("openvino-bf16-throughput", "OpenVINO bf16, THROUGHPUT", "THROUGHPUT", "bf16"),
    )
}


def pip_command(packages: tuple[str, ...]) -> str:
    """The command that installs `packages`, with the versions of requirements.txt."""
    lines = [line.strip() for line in _REQUIREMENTS.read_text(encoding="utf-8").splitlines()]
    pinned = {line.partition("==")[0]: line for line in lines if line and not line.startswith("#")}
    return "pip install " + " ".join(pinned.get(package, package) for package in packages)


def unavailable(engine: Engine) -> str | None:
    """Why the engine cannot be measured here, before it is tried; None where it may work."""
    if engine.precision == "bf16" and not has_bf16():
        # PyTorch emulates them there, several times slower than fp32, and OpenVINO ignores the hint.
        return "no bf16 instructions on this processor (avx512_bf16 or amx_bf16)"
    missing = tuple(package for package in engine.packages if importlib.util.find_spec(package) is None)
    if missing:
        return f"{', '.join(missing)} not installed: {pip_command(missing)}"
    if "compile" in dict(engine.options) and not shutil.which(os.environ.get("CXX", "g++")):
        return "torch.compile needs a C++ compiler (g++, or the one that $CXX names)"
    return None


def environment(engine: Engine, threads: int) -> dict[str, str]:
    """The environment of the engine's process: as many threads as asked, and memory that is kept and in huge pages.

    Without these settings glibc gives large tensors back to the system after each use, and a page fault for every
    4 KiB of the next one costs the peers up to a quarter of their speed. No OMP_PROC_BIND: threads that are not
    OpenMP's inherit the mask of a single processor from it.
    """
    foreign = ("OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_", "TORCHINDUCTOR_", "DIFFENCE_NUM_THREADS", "LD_PRELOAD")
    chosen = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    keep = 1 << 33
    chosen |= {
        "OMP_NUM_THREADS": str(threads),
        "GLIBC_TUNABLES": ":".join(
            f"glibc.malloc.{name}={value}"
            for name, value in {"hugetlb": 1, "mmap_threshold": keep, "trim_threshold": keep}.items()
        ),
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        "PYTHONUNBUFFERED": "1",
    }
    if engine.family == "torch":
        chosen["THP_MEM_ALLOC_ENABLE"] = "1"
    return chosen
