"""What this installation is and runs on: for bug reports and for the set-up of every result."""

from __future__ import annotations

import argparse
import platform
from importlib import metadata
from typing import Any

from diffence import _core

__all__ = ["add_arguments", "environment", "run"]

_PACKAGES = ("diffence", "torch", "numpy", "scipy", "scikit-learn", "safetensors")


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith(("model name", "Model")):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _gpu() -> str:
    """Its name, or why there is none for the engine."""
    import torch  # here, for it takes a second, and results do not need it

    from diffence.backends.cuda import cuda_device

    try:
        return str(torch.cuda.get_device_name(cuda_device(torch.device("cuda"))))
    except RuntimeError as error:
        return "none, " + str(error).removeprefix("device: ").removeprefix("no GPU: ").partition(";")[0]


def environment() -> dict[str, Any]:
    """Versions of the packages that a result depends on, the processor, and what the core uses of it."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "python": platform.python_version(),
        "versions": versions,
        "processor": _processor(),
        "isa": _core.default_isa(),
        "isas": _core.isas(),
        "isas_bf16": _core.isas("bf16"),
        "threads": _core.default_threads(),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`diffence info` takes no options."""


def run(arguments: argparse.Namespace) -> None:
    """Print the environment, a fact a line."""
    facts = environment()
    print(f"python {facts['python']}")
    for name, version in facts["versions"].items():
        print(f"{name} {version}")
    print(f"processor: {facts['processor']}")
    where = {
        (True, True): "",
        (True, False): " (fp32)",
        (False, True): " (bf16)",
        (False, False): " (not on this processor)",
    }
    sets = ", ".join(name + where[runs, facts["isas_bf16"][name]] for name, runs in facts["isas"].items())
    print(f"instruction sets: {sets}; in use: {facts['isa']}")
    print(f"threads: {facts['threads']}")
    print(f"GPU for the engine: {_gpu()}")
