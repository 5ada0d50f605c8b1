"""The engine: memory, precision, accuracy with trained weights, and what is shared."""

from __future__ import annotations

import copy
import gc
import pathlib
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from diffence import Diffence, Engine, _core
from diffence.data import load as load_data
from diffence.unets import DDPMConfig, DDPMUNet, DiffusionModel, load, train_diffusion

CONFIG = DDPMConfig(image=(1, 8, 8), channels=16, multipliers=(1, 2), blocks=1, attention=(1,), groups=4, dropout=0.0)
NO_BF16 = not any(runs for name, runs in _core.isas("bf16").items() if name != "portable")


def relative_l2(got: NDArray[Any], exact: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(got.astype(np.float64) - exact) / np.linalg.norm(exact))


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return load_data("digits").images


@pytest.fixture(scope="module")
def trained(images: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> DiffusionModel:
    """A network with weights as training leaves them: norms and the last convolution far from where they began."""
    path = tmp_path_factory.mktemp("trained") / "ddpm.safetensors"
    train_diffusion(
        images[:500], CONFIG, out=path, steps=150, batch=64, lr=2e-3, flip=False, bf16=False, seed=1, progress=False
    )
    return load(path)


@pytest.fixture(scope="module")
def exact(trained: DiffusionModel) -> DDPMUNet:
    """The trained network in float64."""
    network = DDPMUNet(trained.config)
    network.load_state_dict(trained.tensors())
    return network.double().eval()


@torch.no_grad()
def noise_of(network: DDPMUNet, x: NDArray[Any], t: NDArray[np.int32]) -> NDArray[np.float64]:
    dtype = next(network.parameters()).dtype
    return network(torch.from_numpy(x).to(dtype), torch.from_numpy(t).long()).double().numpy()


def inputs(count: int = 12) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    rng = np.random.default_rng(3)
    return rng.standard_normal((count, *CONFIG.image), np.float32), rng.integers(0, 160, count).astype(np.int32)


def test_trained_weights_against_float64(trained: DiffusionModel, exact: DDPMUNet, isa: str) -> None:
    """At most 5e-6 relative on the network's output, and 1e-5 on reconstructions, after 20 evaluations."""
    engine = Engine(trained, isa=isa, threads=2)
    x, t = inputs()
    assert relative_l2(engine.predict_noise(x, t), noise_of(exact, x, t)) <= 5e-6
    shown = load_data("digits").images[500:504]
    noise = np.random.default_rng(4).standard_normal((4, 2, *CONFIG.image), np.float32)
    sampler = engine.sampler(160, 20)
    state = sampler.signal * (shown[:, None] / 127.5 - 1) + sampler.noise * noise
    state = state.reshape(8, *CONFIG.image)
    for step, of_x, of_eps in sampler.steps:
        state = of_x * state + of_eps * noise_of(exact, state, np.full(8, step, np.int32))
    expected = np.clip((state + 1) / 2, 0, 1).reshape(4, 2, *CONFIG.image)
    assert relative_l2(engine.reconstruct(shown, 2, 160, 20, noise=noise), expected) <= 1e-5


def bf16_isas() -> list[str]:
    return [name for name, runs in _core.isas("bf16").items() if runs]


@pytest.mark.parametrize("name", bf16_isas())
def test_bf16_is_as_near_as_torch_bf16(trained: DiffusionModel, exact: DDPMUNet, name: str) -> None:
    x, t = inputs(24)
    truth = noise_of(exact, x, t)
    torch_error = relative_l2(noise_of(copy.deepcopy(exact).bfloat16(), x, t), truth)
    engine = Engine(trained, isa=name, precision="bf16")
    error = relative_l2(engine.predict_noise(x, t), truth)
    assert 1e-4 < error <= 1.5 * torch_error  # it is bf16, and no worse


@pytest.mark.parametrize("name", bf16_isas())
def test_bf16_has_the_same_bits_in_any_company(trained: DiffusionModel, images: NDArray[np.uint8], name: str) -> None:
    options: dict[str, Any] = {"isa": name, "precision": "bf16"}
    together = Engine(trained, batch=16, threads=2, **options).reconstruct(images[:5], 3, T=20, k=2, key=1)
    alone = Engine(trained, batch=1, threads=1, **options)
    for image, expected in zip(images[:5], together, strict=True):
        assert np.array_equal(alone.reconstruct(image[None], 3, T=20, k=2, key=1)[0], expected)


def test_bf16_without_instructions_is_refused(trained: DiffusionModel) -> None:
    if NO_BF16:
        with pytest.raises(RuntimeError, match="precision: this processor has no instructions for 'bf16'"):
            Engine(trained, precision="bf16")
    with pytest.raises(RuntimeError, match=r"precision: 'avx2' .* has no 'bf16'"):
        Engine(trained, precision="bf16", isa="avx2")
    with pytest.raises(ValueError, match="precision: expected 'fp32' or 'bf16', got 'fp8'"):
        Engine(trained, precision="fp8")  # type: ignore[arg-type]


def test_a_fence_keeps_its_precision(trained: DiffusionModel, tmp_path: pathlib.Path) -> None:
    torch.manual_seed(0)
    classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    images = load_data("digits").images[:6]
    engine = Engine(trained, isa="portable", precision="bf16", batch=8)
    fence = Diffence(classifier, engine, scenario=3, n=3, T=20, k=2, key=5)
    again = pickle.loads(pickle.dumps(fence))
    assert (again.engine.precision, again.engine.isa, again.engine.batch) == ("bf16", "portable", 8)
    assert torch.equal(again(images), fence(images))
    fence.save(tmp_path / "fence.safetensors")
    if NO_BF16:  # `load` takes the fastest instruction set, and there is none
        with pytest.raises(RuntimeError, match="bf16"):
            Diffence.load(tmp_path / "fence.safetensors", classifier)
    else:
        assert Diffence.load(tmp_path / "fence.safetensors", classifier).engine.precision == "bf16"
    assert Diffence.load(tmp_path / "fence.safetensors", classifier, precision="fp32").engine.precision == "fp32"


def test_memory_is_stated_before_it_is_taken(trained: DiffusionModel) -> None:
    stated = Engine.memory_needed(trained, batch=5, threads=2)
    assert stated == Engine(trained, batch=5, threads=2).memory()
    direct = Engine.memory_needed(trained, batch=5, threads=2, direct=True)
    assert direct["weights"] < stated["weights"] / 2


def test_memory_limit_takes_smaller_batches_then_smaller_transforms(trained: DiffusionModel, exact: DDPMUNet) -> None:
    def total(batch: int, direct: bool = False) -> int:
        return sum(Engine.memory_needed(trained, batch=batch, threads=1, direct=direct).values())

    x, t = inputs()
    for limit, batch, direct in [
        (total(32), 32, False),
        (total(32) - 1, 16, False),
        (total(1), 1, False),
        (total(1) - 1, max(b for b in (1, 2, 4, 8, 16, 32) if total(b, True) < total(1)), True),
        (total(1, True), 1, True),
    ]:
        engine = Engine(trained, threads=1, memory_limit=limit)
        assert (engine.batch, engine.direct) == (batch, direct)
        assert sum(engine.memory().values()) <= limit
        assert relative_l2(engine.predict_noise(x, t), noise_of(exact, x, t)) <= 5e-6
    with pytest.raises(MemoryError, match=rf"memory_limit: {total(1, True) - 1} bytes .* take {total(1, True)}"):
        Engine(trained, threads=1, memory_limit=total(1, True) - 1)
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="memory_limit: expected"):
            Engine(trained, memory_limit=wrong)  # type: ignore[arg-type]


def test_engines_share_packed_weights(trained: DiffusionModel) -> None:
    one, two = Engine(trained), Engine(copy.deepcopy(trained), batch=3)
    assert one._backend.engine.model is two._backend.engine.model
    assert Engine(trained, isa="reference")._backend.engine.model is not one._backend.engine.model
    from diffence.backends.cpu import _packed

    del one, two
    gc.collect()
    assert not any(name[0] == trained.fingerprint for name in _packed)
