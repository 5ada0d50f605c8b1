"""Fixtures that more than one test file uses."""

from __future__ import annotations

import importlib.util
import pathlib
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from diffence.unets.program import Program, ProgramBuilder

SHARED_DATA = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_configure() -> None:
    torch.set_num_threads(min(2, torch.get_num_threads()))
    # Started in the background by a shell, all processes of ours would ignore the interrupts that tests send.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs every test that asks for `isa` once for each instruction set of the build."""
    if "isa" in metafunc.fixturenames:
        from diffence import _core

        metafunc.parametrize("isa", list(_core.isas()), indirect=True)


@pytest.fixture
def isa(request: pytest.FixtureRequest) -> str:
    """Name of an instruction set; skips the test where this machine cannot run it."""
    from diffence import _core

    if not _core.isas()[request.param]:
        pytest.skip(f"this processor, or this build, cannot run {request.param}")
    return str(request.param)


@pytest.fixture(scope="session")
def shared_cifar10() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """load(first, last) -> real CIFAR-10 images, uint8 (N, 32, 32, 3), and labels; skips where they are not at hand."""
    loader = SHARED_DATA / "load.py"
    if not (loader.is_file() and (SHARED_DATA / "cifar10").is_dir()):
        pytest.skip("needs the CIFAR-10 pack in ../shared/data beside the project")
    spec = importlib.util.spec_from_file_location("load", loader)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda first=0, last=None: module.load("cifar10", first, last)


@pytest.fixture(scope="session")
def small_program() -> Program:
    """A small UNet of 3 x 8 x 12 images and 20 time steps that has every operation, with seeded random weights."""
    rng = np.random.default_rng(20240817)
    shapes = {
        "time.weight": (20, 8),
        "mlp0.weight": (12, 8),
        "mlp0.bias": (12,),
        "mlp1.weight": (8, 12),
        "in.weight": (8, 3, 3, 3),
        "in.bias": (8,),
        "norm.weight": (8,),
        "norm.bias": (8,),
        "down.weight": (8, 8, 3, 3),
        "down.bias": (8,),
        **{
            f"{name}.{part}": (8, 8, 1, 1) if part == "weight" else (8,)
            for name in "qkv"
            for part in ("weight", "bias")
        },
        "out.weight": (3, 16, 3, 3),
    }
    tensors = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    build = ProgramBuilder((3, 8, 12), tensors)
    time = build.linear(build.silu(build.linear(build.time_embedding("time"), "mlp0")), "mlp1", bias=False)
    skip = build.add(build.silu(build.group_norm(build.conv(build.IMAGE, "in"), "norm", 4)), time)
    low = build.conv(skip, "down", stride=2)
    low = build.add(build.attention(build.conv(low, "q"), build.conv(low, "k"), build.conv(low, "v"), heads=2), low)
    build.conv(build.concat(build.upsample(low), skip), "out", bias=False)
    return build.finish()


@pytest.fixture(scope="session")
def make_model(small_program: Program) -> Callable[..., Any]:
    """make_model(**changes) -> the `_core.Model` of small_program, with these arguments instead of its own."""
    from diffence import _core

    whole = {name: getattr(small_program, name) for name in ("shape", "ops", "epsilons")}
    whole["weights"] = list(small_program.weights.items())
    return lambda **changes: _core.Model(**(whole | changes))
