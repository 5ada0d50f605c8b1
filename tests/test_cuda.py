"""The CUDA engine from Python: in the emulator, where any machine can run it, and on a GPU where there is one.

DIFFENCE_REQUIRE=cuda turns the skips for want of a GPU into failures.
"""

from __future__ import annotations

import ast
import ctypes
import importlib.util
import inspect
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.dlpack import to_dlpack

import diffence.backends.cuda as backend
from diffence import Diffence, Engine
from diffence.data import load as load_data
from diffence.selection import phi
from diffence.unets import DDPMConfig, DDPMUNet, DiffusionModel, load

HERE = pathlib.Path(__file__).parent / "cuda"
CONFIG = DDPMConfig(image=(1, 8, 8), channels=16, multipliers=(1, 2), blocks=1, attention=(1,), groups=4, dropout=0.0)
KEY = 7
TOOLS = shutil.which("c++") and shutil.which("cc") and shutil.which("make")
# Relative to float64; the networks are those of `diffusion`, the bounds about twice what was seen.
BOUNDS = {"fp32": 2e-6, "bf16": 2e-2, "fp16": 2.5e-3}
REAL = backend._cuda


def no_gpu() -> str | None:
    """Why there is none, or None where there is."""
    try:
        backend.cuda_device(torch.device("cuda"))
    except RuntimeError as error:
        return str(error)
    return None


def make(*targets: str) -> str:
    """What it printed."""
    command = ["make", "-s", "-j2", "BUILD=build/tests", *targets]
    made = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    return made.stdout


@pytest.fixture(scope="session")
def emulated() -> Any:
    """The extension module whose GPU is the processor."""
    if not TOOLS:
        pytest.skip("needs C and C++ compilers and make")
    make("extension", f"PYTHON={sys.executable}")
    spec = importlib.util.spec_from_file_location("diffence._cuda", HERE / "build" / "tests" / "_cuda.so")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["emulated", "gpu"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    if request.param == "emulated":
        monkeypatch.setattr(backend, "_cuda", request.getfixturevalue("emulated"))
    elif reason := no_gpu():
        if "cuda" in os.environ.get("DIFFENCE_REQUIRE", ""):
            pytest.fail(reason)
        pytest.skip(reason)
    yield backend._cuda
    backend._packed.clear()  # a model of one module is none of the other's


@pytest.fixture(scope="module")
def diffusion() -> DiffusionModel:
    torch.manual_seed(5)
    network = DDPMUNet(CONFIG)
    with torch.no_grad():  # the last convolution begins at zero: no output would be right
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return load(network.eval())


@pytest.fixture(scope="module")
def images() -> NDArray[np.float32]:
    return (load_data("digits").images[:24] / np.float32(255)).astype(np.float32)


def relative(got: Any, want: Any) -> float:
    got, want = (torch.as_tensor(values).double().cpu() for values in (got, want))
    return float((got - want).norm() / want.norm())


class Classifier(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.layer = torch.nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.flatten(1)) * 3


@pytest.mark.skipif(not TOOLS, reason="needs C and C++ compilers and make")
def test_kernels_and_engine_in_the_emulator() -> None:
    make("all")
    shown = make("check")
    assert shown.count(" 0 failed") == len(list(HERE.glob("test_*.c*"))), shown


@pytest.mark.parametrize("precision", list(BOUNDS))
def test_predicts_what_the_network_does(gpu: Any, diffusion: DiffusionModel, precision: Any) -> None:
    network = DDPMUNet(CONFIG)
    network.load_state_dict(diffusion.tensors())
    x, t = torch.randn(9, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(9) * 17
    with torch.no_grad():
        want = network.double().eval()(x.double(), t)
    engine = Engine(diffusion, device="cuda", precision=precision, batch=4)
    assert (engine.precision, engine.batch, engine.isa) == (precision, 4, None)
    eps = engine.predict_noise(x, t)
    assert relative(eps, want) < BOUNDS[precision]
    alone = [engine.predict_noise(x[i : i + 1], t[i : i + 1]) for i in range(9)]
    assert torch.equal(torch.cat(alone), eps)
    np.testing.assert_array_equal(engine.predict_noise(x.numpy(), t.numpy()), eps.numpy())
    assert set(engine.memory()) == {"weights", "arena"}
    assert {"conv tiled" if precision != "fp32" else "conv plain", "norm"} <= {
        step["kind"] for step in engine.profile(4)
    }


def test_reconstructs_what_the_processor_does(gpu: Any, diffusion: DiffusionModel, images: NDArray[np.float32]) -> None:
    on_cpu = Engine(diffusion).reconstruct(images[:6], 3, T=120, k=60, key=KEY)
    for precision, bound in BOUNDS.items():
        engine = Engine(diffusion, device="cuda", precision=precision, batch=8)
        got = engine.reconstruct(images[:6], 3, T=120, k=60, key=KEY)
        assert relative(got, on_cpu) < 2 * bound
        assert np.array_equal(engine.reconstruct(images[4:6], 3, T=120, k=60, key=KEY), got[4:6])
    as_bytes = (images[:2] * 255).round().astype(np.uint8)
    there = torch.from_numpy(as_bytes).to(engine.device)
    noise = torch.randn(2, 3, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    tensor = engine.reconstruct(there, 3, T=80, noise=noise)
    assert tensor.device == engine.device
    assert tensor.shape == (2, 3, 1, 8, 8)
    assert np.allclose(tensor.cpu(), engine.reconstruct(as_bytes, 3, T=80, noise=noise.numpy()), atol=1e-6)


def test_hashes_and_phi_are_the_processors(gpu: Any, diffusion: DiffusionModel, images: NDArray[np.float32]) -> None:
    engine, cpu = Engine(diffusion, device="cuda", batch=2), Engine(diffusion)
    key = bytes(range(16))
    assert engine.hashes(key, engine.place(images)).cpu().numpy().tobytes() == cpu.hashes(key, cpu.place(images))
    as_bytes = torch.from_numpy((images * 255).round().astype(np.uint8))
    there = engine.hashes(key, engine.place(as_bytes.to(engine.device)))
    assert there.cpu().numpy().tobytes() == cpu.hashes(key, cpu.place(as_bytes))
    logits = torch.randn(40, 10, generator=torch.Generator().manual_seed(4)) * 20
    for mode in ("paper", "official"):
        (got, classes), (want, wanted) = engine.phi(logits.to(engine.device), mode), phi(logits, mode)
        assert np.allclose(got, want, rtol=1e-6)
        assert np.array_equal(classes, wanted)
    assert np.array_equal(engine.phi(logits.double(), "paper")[0], phi(logits.double())[0])
    logits[3, 4] = float("nan")
    with pytest.raises(ValueError, match="row 3"):
        engine.phi(logits.to(engine.device), "paper")


def test_a_fence_moves_to_the_gpu_and_back(
    gpu: Any, diffusion: DiffusionModel, images: NDArray[np.float32], tmp_path: pathlib.Path
) -> None:
    fence = Diffence(Classifier().eval(), diffusion, scenario=1, n=6, T=60, key=KEY)
    fence.fit(images[:12], images[12:])
    want = fence(images)
    if gpu.EMULATED:  # the classifier's GPU would be the processor too
        fence.engine = Engine(diffusion, device="cuda", precision="fp32")
    else:
        assert fence.to("cuda").engine.device.type == next(fence.classifier.parameters()).device.type == "cuda"
        assert fence.engine.precision == "bf16"
        fence.engine = Engine(diffusion, device="cuda", precision="fp32")
    got = fence(images)
    assert torch.equal(got.argmax(1).cpu(), want.argmax(1))
    same = (got.cpu() - want).abs().amax(1) < 1e-3 * want.abs().max()
    assert same.float().mean() > 0.9  # a draw at the interval's edge may be another one
    assert torch.equal(fence(images[5:7]), got[5:7])
    early = fence.variant(draws="early")
    early.interval_ = fence.interval_
    assert torch.equal(early(torch.from_numpy(images).to(fence.engine.device)), got)
    again = pickle.loads(pickle.dumps(fence))
    assert torch.equal(again(images), got)
    fence.save(tmp_path / "fence")
    loaded = Diffence.load(tmp_path / "fence", fence.classifier, device="cuda", batch=5)
    assert loaded.engine.batch == 5
    assert torch.equal(loaded(images), got)
    assert torch.equal(fence.cpu()(images), want)
    fence.engine = Engine(diffusion)
    fence.save(tmp_path / "plain")
    assert Diffence.load(tmp_path / "plain", fence.classifier, device="cuda", batch=2).engine.precision == "bf16"


def test_calls_from_several_threads_take_turns(gpu: Any, diffusion: DiffusionModel, images: Any) -> None:
    engine = Engine(diffusion, device="cuda", batch=3)
    want = engine.reconstruct(images[:4], 2, T=50, key=KEY)
    found: list[Any] = []

    def ask() -> None:
        found.append(engine.reconstruct(images[:4], 2, T=50, key=KEY))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert all(np.array_equal(one, want) for one in found)


def test_engines_share_packed_weights(gpu: Any, diffusion: DiffusionModel) -> None:
    one, two = (Engine(diffusion, device="cuda", batch=batch) for batch in (1, 2))
    assert one._backend._engine.model is two._backend._engine.model
    assert len(backend._packed) == 1
    del one, two
    assert len(backend._packed) == 0


def test_a_batch_that_does_not_fit_is_halved(
    emulated: Any, monkeypatch: pytest.MonkeyPatch, diffusion: DiffusionModel
) -> None:
    monkeypatch.setattr(backend, "_cuda", emulated)
    small = Engine(diffusion, device="cuda", batch=2)
    needed = small.memory()
    limit = sum(needed.values()) + 1024
    with pytest.warns(UserWarning, match="batch: 8 images do not fit into memory_limit; 2 do"):
        assert Engine(diffusion, device="cuda", batch=8, memory_limit=limit).batch == 2
    with pytest.raises(MemoryError, match="memory_limit"):
        Engine(diffusion, device="cuda", batch=8, memory_limit=1000)
    fail = ctypes.CDLL(emulated.__file__).emulator_fail_allocation
    fail.argtypes = [ctypes.c_size_t]
    del small
    fail(needed["weights"] + 3 * needed["arena"])
    try:
        with pytest.warns(UserWarning, match="free memory"):
            assert Engine(diffusion, device="cuda", batch=16).batch in (2, 4)
        fail(1)
        with pytest.raises(MemoryError):
            Engine(diffusion, device="cuda", batch=16)
    finally:
        fail(0)
        backend._packed.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Engine(diffusion, device="cuda", batch=16).batch == 16
    backend._packed.clear()


def test_wrong_arguments_say_so(gpu: Any, diffusion: DiffusionModel, images: NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match="isa"):
        Engine(diffusion, device="cuda", isa="avx2")
    with pytest.raises(ValueError, match="precision"):
        Engine(diffusion, device="cuda", precision="int8")  # type: ignore[arg-type]
    engine = Engine(diffusion, device="cuda", batch=2)
    with pytest.raises(ValueError, match="batch = 2"):
        engine.profile(3)
    x = torch.zeros(2, 1, 8, 8)
    with pytest.raises(ValueError, match="t: expected 0 to"):
        engine.predict_noise(x, torch.tensor([0, CONFIG.steps]))
    with pytest.raises(TypeError, match="x: expected float32"):
        engine.predict_noise(x.double(), torch.zeros(2))
    with pytest.raises(ValueError, match="x: expected length 8 in dimension 3"):
        engine.predict_noise(torch.zeros(2, 1, 8, 9), torch.zeros(2))
    with pytest.raises(ValueError, match="length 2 in dimension 0"):
        engine.predict_noise(x, torch.zeros(3))
    with pytest.raises(ValueError, match="NaN"):
        engine.reconstruct(np.full_like(images, np.nan), 1, key=KEY)
    with pytest.raises(ValueError, match="index, draws"):
        engine.reconstruct_items(
            engine.sampler(50), engine.place(images), np.array([99], np.int32), np.array([0], np.int32), hashes=None
        )
    with pytest.raises(ValueError, match="hashes"):
        engine.reconstruct_items(
            engine.sampler(50), engine.place(images), np.array([0], np.int32), np.array([0], np.int32)
        )
    raw, stream = engine._backend._engine, engine._backend._stream()
    here = engine.place(images)
    times = torch.zeros(24, dtype=torch.int32, device=engine.device)
    capsule = to_dlpack(here)
    for bad, error, message in (
        (here, TypeError, "DLPack capsule"),
        (to_dlpack(here.flatten(0, 1)), ValueError, "4 dimensions"),
        (to_dlpack(here.transpose(2, 3)), ValueError, "contiguous"),
        (to_dlpack(here.flatten()[1 : 1 + 64 * 4].view(4, 1, 8, 8)), ValueError, "aligned"),
        (to_dlpack(here.int()), TypeError, "float32"),
    ):
        with pytest.raises(error, match=message):
            raw.predict(bad, to_dlpack(times), capsule, stream)
    torch.utils.dlpack.from_dlpack(capsule)
    with pytest.raises(TypeError, match="nobody has taken"):
        raw.predict(capsule, to_dlpack(times), to_dlpack(here), stream)
    weights = {name: tensor.clone() for name, tensor in diffusion.tensors().items()}
    next(iter(weights.values()))[0] = 1e6
    large = DiffusionModel.from_tensors(weights, diffusion.config.to_dict())
    with pytest.raises(ValueError, match="fp16"):
        Engine(large, device="cuda", precision="fp16")


def test_the_stub_names_what_the_module_has(emulated: Any) -> None:
    tree = ast.parse((pathlib.Path(backend.__file__).parents[1] / "_cuda.pyi").read_text(encoding="utf-8"))
    for part in tree.body:
        if isinstance(part, ast.FunctionDef):
            function = getattr(emulated, part.name)
            names = [argument.arg for argument in (*part.args.posonlyargs, *part.args.args)]
            assert list(inspect.signature(function).parameters) == names
        elif isinstance(part, ast.ClassDef):
            cls = getattr(emulated, part.name)
            stated = {item.name for item in part.body if isinstance(item, ast.FunctionDef)} - {"__new__"}
            assert {name for name in vars(cls) if not name.startswith("_")} == stated
            assert all(vars(cls)[name].__doc__ for name in stated)
    assert emulated.EMULATED is True


def test_without_the_engine_or_a_gpu_the_reason_is_given(
    monkeypatch: pytest.MonkeyPatch, diffusion: DiffusionModel
) -> None:
    with pytest.raises(ValueError, match="fp16"):
        Engine(diffusion, precision="fp16")
    with pytest.raises(RuntimeError, match="no engine for mps"):
        Engine(diffusion, device="mps")
    if REAL is not None and no_gpu():
        with pytest.raises(RuntimeError, match=r"GPU|no CUDA"):
            Engine(diffusion, device="cuda")
    monkeypatch.setattr(backend, "_cuda", None)
    monkeypatch.setattr(backend, "_MISSING", "No module named 'diffence._cuda'", raising=False)
    with pytest.raises(RuntimeError, match="built without its CUDA engine"):
        Diffence(Classifier().eval(), diffusion, device="cuda")


def test_the_classifiers_batch_follows_its_device(diffusion: DiffusionModel, monkeypatch: pytest.MonkeyPatch) -> None:
    fence = Diffence(Classifier().eval(), diffusion)
    given = Diffence(Classifier().eval(), diffusion, classifier_batch=5)
    assert (fence._classify.batch, given._classify.batch) == (16, 5)
    for one in (fence, given):
        monkeypatch.setattr(one._classify, "_place", lambda: (torch.device("cuda"), torch.float32))
    assert (fence._classify.batch, given._classify.batch) == (256, 5)
    assert (fence._classify.settings()["classifier_batch"], given._classify.settings()["classifier_batch"]) == (None, 5)
